"""The training step beside its twin in PyTorch: same weights, same choices, one process.

    python -m tests.benchmarks.against_pytorch --size 64 --batch 4 --strategy adaptive --k 6

The twin has the structure of the official code; see pytorch_twin.py. First it is shown that both compute the
same images, features, losses and gradients, then blocks of steps are timed in turns: ours, PyTorch's,
ours, ... The process should have the machine to itself. `main.py` asks glibc for huge pages, from which PyTorch
gains on CPU too; GLIBC_TUNABLES=glibc.malloc.hugetlb=1 in the environment does it here.
"""

import argparse
import dataclasses
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import torch
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from configs import default
from convert import clip_tables, rules
from convert.stylegan2 import to_official
from nada_jax import trees
from nada_jax.adaptation.freezing.strategy import FROZEN
from nada_jax.adaptation.prompts import Targets
from nada_jax.adaptation.selection import select
from nada_jax.adaptation.settings import Settings
from nada_jax.adaptation.state import Frozen, TrainState
from nada_jax.adaptation.step import loss, make_train_step
from nada_jax.devices import compilation
from nada_jax.models.clip import Clip
from nada_jax.models.clip_network import STACKED
from nada_jax.models.stylegan2 import draw_latents
from nada_jax.performance.workloads import ARCHITECTURES, Workload
from tests.benchmarks.pytorch_twin import Guide, Twin, Weights, synthesize

# Bounds of what `differences` returns, by precision. Gradients move by up to 1e-3 where a leaky ReLU rounds to
# the other side.
TOLERANCE = {"float32": 5e-3, "bfloat16": 0.2}


# -- Both from one workload --------------------------------------------------------------------------


class Pair(NamedTuple):
    """The arguments of our step, and the twin that has the same weights."""

    state: TrainState
    frozen: Frozen
    run_key: jax.Array
    twin: Twin


def make_pair(workload: Workload, device: str) -> Pair:
    """Both as some steps after the start, where the edit between equal generators is rounding noise."""
    state, frozen, run_key = workload.build()
    random, labels = np.random.default_rng(0), workload.labels
    params = jax.tree.map(
        lambda x, label: (
            x if label == FROZEN else x + 0.05 * random.standard_normal(x.shape, np.float32)
        ),
        state.trained,
        labels,
    )
    by_path = trees.flatten(labels)
    source, matches = to_official(frozen.generator, "the source")
    adapted, _ = to_official(frozen.generator.replace(params=params), "the adapted generator")
    trained = {
        match.destination: by_path[match.source]
        for match in matches
        if by_path.get(match.source, FROZEN) != FROZEN
    }
    source, adapted = _tensors(source, device), _tensors(adapted, device)
    leaves = [adapted[key].requires_grad_() for key in trained]
    optimizer = torch.optim.Adam(leaves, lr=0.0016, betas=(0.0, 0.99**0.8))
    guides = [_guide(*pair, device) for pair in zip(frozen.clips, frozen.targets, strict=True)]
    twin = Twin(workload, source, adapted, trained, guides, optimizer)
    return Pair(state.replace(trained=params), frozen, run_key, twin)


def _guide(clip: Clip, targets: Targets, device: str) -> Guide:
    config = json.loads(clip.config)["vision_config"] | {"projection_dim": clip.dim}
    network = CLIPVisionModelWithProjection(CLIPVisionConfig.from_dict(config))
    arrays = {path: np.asarray(x, np.float32) for path, x in trees.flatten(clip.params).items()}
    # For accelerators, the layers are stacked.
    for path in [path for path in arrays if f".{STACKED}." in path]:
        for i, x in enumerate(arrays.pop(path)):
            arrays[path.replace(STACKED, str(i))] = x
    official, _ = rules.apply(clip_tables.HUGGINGFACE, arrays, backward=True, what=clip.name)
    vision = {key: x for key, x in official.items() if key.startswith("vis")}
    network.load_state_dict(_tensors(vision, "cpu"))
    mean, std = (torch.tensor(x, device=device).view(3, 1, 1) for x in (clip.mean, clip.std))
    texts = _tensors({"direction": targets.direction, "bare": targets.bare}, device)
    return Guide(network.to(device).eval().requires_grad_(False), mean, std, **texts)


def _tensors(arrays: Mapping[str, Any], device: str) -> Weights:
    return {key: torch.tensor(np.asarray(x), device=device) for key, x in arrays.items()}


def differences(pair: Pair) -> dict[str, float]:
    """How far ours and the twin are apart, |ours - twin| / |twin|, with the buffers as noise.

    Returns:
      By name: "latents", "images", "features" (the largest of a CLIP's), "loss", "gradients" (of all
      parameters that train, as one vector), and "scores" where layers are adaptive.
    """
    state, frozen, run_key, twin = pair
    settings = twin.workload.settings
    generator = dataclasses.replace(settings.generator, noise="const")
    settings = dataclasses.replace(settings, generator=generator)
    shape = settings.batch_size, frozen.generator.architecture.z_dim
    z = np.random.default_rng(0).standard_normal(shape, np.float32)

    def compute(params, frozen, z):
        ws = frozen.generator.broadcast(frozen.generator.map(z))
        images = frozen.generator.replace(params=params).synthesize(ws, "const")
        features = [clip.embed_images(images) for clip in frozen.clips]
        gradient = jax.value_and_grad(loss, has_aux=True)
        (total, _), gradients = gradient(params, {}, frozen, ws, run_key, settings)
        scores = None
        if settings.freeze.chooses:
            scores = select(params, frozen, run_key, settings)[1]
        return ws, images, features, total, gradients, scores

    ws, images, features, total, gradients, scores = jax.jit(compute)(state.trained, frozen, z)
    gradients, _ = to_official(frozen.generator.replace(params=gradients), "the gradient")

    their_ws = twin.broadcast(torch.tensor(z, device=twin.device))
    with torch.no_grad(), twin.autocast():
        their_images = synthesize(twin.adapted, their_ws, "const")
        their_features = [guide.embed(their_images) for guide in twin.guides]
    their_loss = twin.loss(their_ws, "const")
    their_loss.backward()
    found = {
        "latents": _error(ws, their_ws),
        "images": _error(images.transpose(0, 3, 1, 2), their_images),
        "features": max(map(_error, features, their_features)),
        "loss": _error(total, their_loss),
        "gradients": _error(
            np.concatenate([gradients[key].ravel() for key in twin.labels]),
            torch.cat([twin.adapted[key].grad.flatten() for key in twin.labels]),
        ),
    }
    if settings.freeze.chooses:
        # The latents that `select` draws from this key.
        key, count = jax.random.split(run_key)[0], settings.freeze.batch_size
        selected = np.asarray(draw_latents(frozen.generator, key, count))
        selected = torch.tensor(selected, device=twin.device)
        found["scores"] = _error(scores, twin.scores(selected, "const"))
    return found


def _error(ours: Any, twin: torch.Tensor) -> float:
    theirs = twin.detach().float().cpu().numpy()
    return float(np.linalg.norm(np.asarray(ours) - theirs) / np.linalg.norm(theirs))


# -- Timing ------------------------------------------------------------------------------------------


def measure(pair: Pair, steps: int, rounds: int) -> dict[str, Any]:
    """Times blocks of steps in turns; the pair goes on training.

    Returns:
      "compile_s" of ours (from JAX's persistent cache, where there is one), and milliseconds per step by round,
      "ours_ms" and "pytorch_ms".
    """
    state, frozen, run_key, twin = pair
    workload = twin.workload
    step = jax.jit(make_train_step(workload.settings, workload.optimizer), donate_argnums=0)
    start = time.perf_counter()
    step = step.lower(state, frozen, run_key).compile()
    times = {"compile_s": time.perf_counter() - start, "ours_ms": [], "pytorch_ms": []}

    def ours():
        nonlocal state
        for _ in range(steps):
            state, _ = step(state, frozen, run_key)
        jax.block_until_ready(state)

    def pytorch():
        for _ in range(steps):
            twin.train_step()
        if twin.device.type == "cuda":
            torch.cuda.synchronize()

    blocks = {"ours_ms": ours, "pytorch_ms": pytorch}
    for block in blocks.values():
        block()  # warm-up
    for _ in range(rounds):
        for name, block in blocks.items():
            times[name].append(_milliseconds(block) / steps)
    losses = float(twin.train_step()), float(step(state, frozen, run_key)[1]["loss"])
    if not np.isfinite(losses).all():
        raise SystemExit("a loss is not finite: these times are not those of training")
    return times


def _milliseconds(block: Callable[[], None]) -> float:
    start = time.perf_counter()
    block()
    return 1e3 * (time.perf_counter() - start)


def _summary(values: list[float]) -> dict[str, Any]:
    low, high = min(values), max(values)
    return {"median": statistics.median(values), "min": low, "max": high, "rounds": values}


def _device() -> str:
    """Where both compute: "cuda" or "cpu"."""
    ours = jax.default_backend()
    if ours == "cpu":
        return "cpu"
    if ours == "gpu" and torch.cuda.is_available():
        # JAX multiplies in TF32 by default; PyTorch does so when it is allowed to.
        torch.backends.fp32_precision = "tf32"
        return "cuda"
    raise SystemExit(f"JAX computes on {ours} and PyTorch cannot; set JAX_PLATFORMS=cpu")


def main(argv: list[str] | None = None) -> None:
    """Runs the comparison; see `--help`."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=64, choices=ARCHITECTURES, help="of images")
    parser.add_argument(
        "--clips", default="avatar-p8,avatar-p16", help="workloads.CLIPS, by commas"
    )
    parser.add_argument("--batch", type=int, default=4, help="images of each generator")
    parser.add_argument("--strategy", default="none", help="of freezing: none, late, adaptive")
    parser.add_argument("--k", type=int, default=0, help="latents of late and adaptive; 0: all")
    parser.add_argument("--precision", default="float32", choices=TOLERANCE)
    parser.add_argument("--steps", type=int, default=5, help="in a block")
    parser.add_argument("--rounds", type=int, default=6, help="blocks of each")
    parser.add_argument("--json", type=Path, help="file for the results")
    args = parser.parse_args(argv)
    workload = Workload(
        base=Settings.read(default.get_config("ffhq")),
        size=args.size,
        clips=tuple(args.clips.split(",")),
        batch_size=args.batch,
        precision=args.precision,
        strategy=args.strategy,
        k=args.k,
        low_memory=False,
    )
    compilation.set_flags()
    device = _device()
    name = torch.cuda.get_device_name() if device == "cuda" else f"{os.cpu_count()} CPU cores"
    extensions = "; on CUDA the official code compiles kernels of its own, the twin does not"
    print(
        f"{workload}\njax {jax.__version__}, torch {torch.__version__} on {name}, "
        f"{torch.get_num_threads()} PyTorch threads{extensions if device == 'cuda' else ''}"
    )

    pair = make_pair(workload, device)
    apart = differences(pair)
    described = ", ".join(f"{name} {value:.1e}" for name, value in apart.items())
    if not all(value <= TOLERANCE[args.precision] for value in apart.values()):
        raise SystemExit(
            f"ours and the twin compute different things: {described}; expected at most "
            f"{TOLERANCE[args.precision]:.0e} of each"
        )
    print(f"the same work: relative differences are {described}")

    times = measure(pair, args.steps, args.rounds)
    ratios = [b / a for a, b in zip(times["ours_ms"], times["pytorch_ms"], strict=True)]
    report = {
        "workload": str(workload),
        "device": name,
        "threads": torch.get_num_threads(),
        "jax": jax.__version__,
        "torch": torch.__version__,
        "glibc_tunables": os.environ.get("GLIBC_TUNABLES", ""),
        "differences": apart,
        "compile_s": times["compile_s"],
        "ours_ms": _summary(times["ours_ms"]),
        "pytorch_ms": _summary(times["pytorch_ms"]),
        "ratio": _summary(ratios),
    }
    print(
        f"compile {report['compile_s']:.1f} s; {args.rounds} rounds of {args.steps} steps in turns"
    )
    for row, unit in (("ours_ms", " ms"), ("pytorch_ms", " ms"), ("ratio", "")):
        median, low, high = (report[row][key] for key in ("median", "min", "max"))
        label = {"ratio": "pytorch / ours"}.get(row, row.removesuffix("_ms"))
        print(f"{label:15} {median:8.4g}{unit} ({low:.4g} to {high:.4g})")
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
