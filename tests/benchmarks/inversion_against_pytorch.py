"""Inversion and editing beside their twins in PyTorch: same weights, same schedule, one process.

    python -m tests.benchmarks.inversion_against_pytorch                        # projector and edit, batches of 1 and 8
    python -m tests.benchmarks.inversion_against_pytorch --work edit --batches 1 --size 256 --clip b32
    OMP_NUM_THREADS=1 taskset -c 0 python -m tests.benchmarks.inversion_against_pytorch --clock cpu

The twins have the structure of the official codes, which do one image at a time; see pytorch_inversion.py. First it is
shown that both compute the same losses and gradients, then blocks of steps are timed in turns: ours, PyTorch's, ours,
... With other work on the machine, times on the wall say little: on one core, `--clock cpu` counts what the process
itself has computed. As for the training step, GLIBC_TUNABLES=glibc.malloc.hugetlb=1 belongs to both.
"""

import argparse
import functools
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch

from convert.stylegan2 import to_official
from nada_jax import trees
from nada_jax.adaptation.prompts import Targets
from nada_jax.devices import compilation
from nada_jax.latents import editing, projection
from nada_jax.latents.codes import Codes
from nada_jax.latents.descent import Descent
from nada_jax.latents.projection import Networks
from nada_jax.models.clip import Clip
from nada_jax.models.stylegan2 import Generator, draw_latents
from nada_jax.models.vgg import Vgg
from nada_jax.performance import workloads
from nada_jax.weights.loading import load_clip, load_generator, load_lpips
from tests.benchmarks.against_pytorch import _device, _error, _guide, _summary, _tensors
from tests.benchmarks.pytorch_inversion import PEAK, Edit, Projector, vgg_weights

TOLERANCE = 5e-3  # of `differences`; gradients move where a leaky ReLU rounds to the other side
L2 = 0.008  # of the edit, as in StyleCLIP
SHARE = (
    0.8  # of the steps, after which the projector draws no more noise: there both compute the same
)
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


class Work(NamedTuple):
    """What both do.

    Attributes:
      descent: ours.
      variables, context: of b images, which `descent` takes.
      twin: makes the optimisation in PyTorch of a schedule of some steps, of the first image.
    """

    descent: Descent
    variables: Any
    context: Any
    twin: Callable[[int], Projector | Edit]


class Models(NamedTuple):
    """The networks."""

    generator: Generator
    vgg: Vgg
    clip: Clip


def load(size: int, clip: str) -> Models:
    """The embedded models at 64 pixels; or random weights of the published shapes."""
    vgg = load_lpips("lpips", field="lpips.weights")
    if size == 64 and clip.startswith("avatar"):
        return Models(load_generator("avatar64"), vgg, load_clip(clip))
    random = np.random.default_rng(0)
    generator = workloads.random_generator(workloads.ARCHITECTURES[size], random)
    return Models(generator, vgg, workloads.random_clip(clip, random))


def projector(models: Models, batch: int, device: str) -> Work:
    """The projection of images of the generator into W."""
    generator, vgg = models.generator, models.vgg
    ws = draw_latents(generator, jax.random.key(1), batch)
    images = generator.synthesize(ws)
    networks = Networks(generator, vgg)
    target = projection.see(networks, images)
    mean, deviation = projection.spread(generator)
    start = jnp.broadcast_to(mean, (batch, generator.num_layers, len(mean)))
    context = projection._Context(networks, target, start, 0.05 * deviation, jnp.float32(0))
    keys = jax.random.split(jax.random.key(2), batch)
    latents, noise = projection._begin(generator, start, keys, "w", True)
    official, matches = to_official(generator, "the generator")
    official = _tensors(official, device)
    native = {m.source: m.destination for m in matches}
    weights = {
        k: x.to(device) for k, x in vgg_weights(trees.flatten(jax.device_get(vgg.params))).items()
    }

    def twin(steps: int) -> Projector:
        image = _tensors({"": images[:1].transpose(0, 3, 1, 2)}, device)[""].contiguous()
        made = Projector(
            official, weights, image, torch.tensor(np.array(mean)), float(deviation), steps
        )
        with torch.no_grad():
            for name, x in noise.items():
                made.noise[native[f"noise.{name}"]].copy_(torch.tensor(np.array(x[:1]))[None])
        return made

    return Work(projection._DESCENTS["w"], {"latents": latents, "noise": noise}, context, twin)


def edit(models: Models, batch: int, device: str) -> Work:
    """The edit of images of the generator in W+ by a text."""
    generator, clip = models.generator, models.clip
    ws = draw_latents(generator, jax.random.key(1), batch)
    text = jax.random.normal(jax.random.key(3), (1, clip.dim))
    text /= jnp.linalg.norm(text)
    guides = editing.Guides((clip.without_texts(),), (1.0,))
    context = editing.prepare(generator, guides, Codes(ws=ws), (text,), "w+", l2=L2, identity=0.0)
    official, _ = to_official(generator, "the generator")
    official = _tensors(official, device)
    guide = _guide(clip, Targets(text[0], text[0], text[0], None), device)

    def twin(steps: int) -> Edit:
        return Edit(official, guide, torch.tensor(np.array(ws[:1])), L2, steps)

    return Work(editing.descent_of("w+", "proper"), context.variables, context, twin)


WORK = {"projector": projector, "edit": edit}


def differences(work: Work, twin: Projector | Edit) -> dict[str, float]:
    """How far losses and gradients of the first image are apart, |ours - twin| / |twin|.

    Returns:
      By name: "loss"; "latents" and "noise", the gradients.
    """

    @jax.jit
    def compute(variables, context):
        rows = len(jax.tree.leaves(variables)[0])
        share, keys = jnp.full(rows, SHARE), jax.random.split(jax.random.key(0), rows)

        def total(variables):
            losses, _ = work.descent.loss(variables, context, share, keys)
            return jnp.sum(losses), losses

        return jax.grad(total, has_aux=True)(variables)

    gradients, losses = compute(work.variables, work.context)
    loss = twin.loss(SHARE)
    latents, *noise = torch.autograd.grad(loss, twin.leaves)
    found = {"loss": _error(losses[0], loss)}
    if noise:
        buffers, gradients = gradients["noise"], gradients["latents"]
        ours = [np.ravel(buffers[f"conv_{i}"][0]) for i in range(len(noise))]
        found["noise"] = _error(np.concatenate(ours), torch.cat([x.flatten() for x in noise]))
    return found | {"latents": _error(np.ravel(gradients[0]), latents.flatten())}


def measure(
    made: dict[int, Work], steps: int, rounds: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Times blocks of a whole schedule in turns, PyTorch with one image and ours with each batch.

    Args:
      made: batch -> work.
      steps: of a schedule.
      rounds: blocks of each.
      clock: in seconds.

    Returns:
      By name ("pytorch", "1", "8", ...) the milliseconds a step and image, of each round.
    """

    def ours(work: Work, batch: int) -> None:
        keys = jax.random.split(jax.random.key(0), batch)
        found, figures, _ = work.descent.run(
            work.variables, work.context, peaks=PEAK, steps=steps, keys=keys
        )
        if not np.isfinite(figures["loss"]).all():
            raise SystemExit("a loss is not finite: these times are not those of an optimisation")

    def pytorch(work: Work) -> None:
        twin = work.twin(steps)
        for _ in range(steps):
            loss = twin.advance()
        if not torch.isfinite(loss):
            raise SystemExit("a loss is not finite: these times are not those of an optimisation")

    blocks = {
        str(batch): (functools.partial(ours, work, batch), batch) for batch, work in made.items()
    }
    first = next(iter(made.values()))
    blocks["pytorch"] = functools.partial(pytorch, first), 1
    return in_turns(blocks, steps, rounds, clock)


def in_turns(
    blocks: dict[str, tuple[Callable[[], None], int]],
    steps: int,
    rounds: int,
    clock: Callable[[], float],
) -> dict[str, list[float]]:
    """Times blocks in turns, after one of each to warm up.

    Args:
      blocks: by name, what computes a block of steps, and of how many images.
      steps: in a block.
      rounds: blocks of each.
      clock: in seconds.

    Returns:
      By name the milliseconds a step and image, of each round.
    """
    times: dict[str, list[float]] = {name: [] for name in blocks}
    for block, _ in blocks.values():
        block()  # warm-up
    for _ in range(rounds):
        for name, (block, batch) in blocks.items():
            began = clock()
            block()
            times[name].append(1e3 * (clock() - began) / steps / batch)
    return times


def compare(times: dict[str, list[float]]) -> dict[str, dict[str, Any]]:
    """Prints and summarises what `in_turns` found, "pytorch" and ours by the number of images.

    Returns:
      "ms" of a step and image by name; "ratio", PyTorch's over ours, by the number of images.
    """
    report = {"ms": {row: _summary(values) for row, values in times.items()}, "ratio": {}}
    for row, values in times.items():
        label = "PyTorch, one by one" if row == "pytorch" else f"ours, {row} at once"
        line = f"  {label:20} {statistics.median(values):8.4g} ms a step and image"
        if row != "pytorch":
            pairs = zip(values, times["pytorch"], strict=True)
            ratio = report["ratio"][row] = _summary([b / a for a, b in pairs])
            line += "; PyTorch / ours {median:.3g} ({min:.3g} to {max:.3g})".format(**ratio)
        print(line, flush=True)
    return report


def main(argv: list[str] | None = None) -> None:
    """Runs the comparison; see `--help`."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", default=",".join(WORK), help="projector, edit, by commas")
    parser.add_argument("--size", type=int, default=64, choices=workloads.ARCHITECTURES)
    parser.add_argument("--clip", default="avatar-p8", help="of the edit; workloads.CLIPS")
    parser.add_argument("--batches", default="1,8", help="images at once of ours, by commas")
    parser.add_argument("--steps", type=int, default=20, help="in a block")
    parser.add_argument("--rounds", type=int, default=5, help="blocks of each")
    parser.add_argument("--clock", default="wall", choices=CLOCKS, help="what counts as time")
    parser.add_argument("--json", type=Path, help="file for the results")
    args = parser.parse_args(argv)
    compilation.set_flags()
    device = _device()
    threads = min(torch.get_num_threads(), len(os.sched_getaffinity(0)))
    torch.set_num_threads(threads)
    models, reports = load(args.size, args.clip), {}
    for name in args.work.split(","):
        made = {int(b): WORK[name](models, int(b), device) for b in args.batches.split(",")}
        first = next(iter(made.values()))
        apart = differences(first, first.twin(args.steps))
        described = ", ".join(f"{key} {value:.1e}" for key, value in apart.items())
        if not all(value <= TOLERANCE for value in apart.values()):
            raise SystemExit(
                f"{name}: ours and the twin compute different things: {described}; expected at most {TOLERANCE:.0e}"
            )
        print(f"{name}, {args.size} pixels: the same work, relative differences are {described}")
        before = os.getloadavg()[0]
        times = measure(made, args.steps, args.rounds, CLOCKS[args.clock])
        reports[name] = {
            "differences": apart, "threads": threads, "clock": args.clock,
            "load": (before, os.getloadavg()[0]), "jax": jax.__version__, "torch": torch.__version__,
        } | compare(times)  # fmt: skip
    if args.json:
        args.json.write_text(json.dumps(reports, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
