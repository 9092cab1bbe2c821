"""The step of style transfer beside the same work in PyTorch: same weights, same layers, one process.

    python -m tests.benchmarks.style_against_pytorch                               # 256, 512 and 1024 pixels
    python -m tests.benchmarks.style_against_pytorch --sizes 256 --batches 1,4,8   # several images at once
    OMP_NUM_THREADS=1 taskset -c 0 python -m tests.benchmarks.style_against_pytorch --clock cpu

A step is the loss of Gatys et al. 2016 and its gradient by the image: content at one layer of VGG-16 and Gram matrices
at five. First it is shown that both compute the same losses and gradients, then blocks of steps are timed in turns:
ours, PyTorch's, ours, ... PyTorch takes one image at a time, as the codes of style transfer do. What a step adds to the
memory of a process is measured in two further ones. As for the training step, GLIBC_TUNABLES=glibc.malloc.hugetlb=1
belongs to both, and `--clock cpu` on one core to a machine that has other work.
"""

import argparse
import concurrent.futures
import functools
import json
import multiprocessing
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from nada_jax import trees
from nada_jax.devices import compilation
from nada_jax.losses import style
from nada_jax.models.vgg import Vgg
from nada_jax.weights.loading import load_lpips
from tests.benchmarks.against_pytorch import _device, _error
from tests.benchmarks.inversion_against_pytorch import CLOCKS, compare, in_turns
from tests.benchmarks.pytorch_inversion import relus, vgg_weights

CONTENT = "relu4_2"
STYLE = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
WEIGHT = 1000.0  # of the style
# Of `differences`: where a ReLU or a maximum rounds to the other side, a gradient moves.
TOLERANCE = 5e-3
GRAM = style.KINDS["gram"]


def draw(size: int, batch: int) -> dict[str, np.ndarray]:
    """Smooth images in [-1, 1], as photographs are: "images" [b, h, h, 3], and "content" and "style" of one each."""
    random, drawn = np.random.default_rng(0), {}
    for name, rows in (("images", batch), ("content", 1), ("style", 1)):
        coarse = random.uniform(-1, 1, (rows, 16, 16, 3)).astype(np.float32)
        smooth = np.array(jax.image.resize(coarse, (rows, size, size, 3), "cubic"))
        smooth += 0.1 * random.standard_normal(smooth.shape, np.float32)
        drawn[name] = np.clip(smooth, -1, 1)
    return drawn


class Ours:
    """The step in nada_jax, compiled.

    Args:
      vgg: the network.
      drawn: see `draw`.

    Attributes:
      compile_s: seconds it took to compile.
      temporary: bytes that the program needs beside what goes in and out.
    """

    def __init__(self, vgg: Vgg, drawn: dict[str, np.ndarray]):
        def described(vgg, images):
            found = vgg.features(images, (CONTENT, *STYLE))
            statistics = {}
            for layer in STYLE:
                x = found[layer]
                statistics[layer] = GRAM.statistics(GRAM.sums(x, jnp.ones((1, *x.shape[1:3]))))
            return found[CONTENT], statistics

        def losses(images, vgg, targets):
            content, statistics = described(vgg, images)
            losses = style.content(content, targets[0])
            for layer, x in statistics.items():
                losses += WEIGHT * GRAM.distance(x, targets[1][layer])
            return jnp.sum(losses), losses

        describe = jax.jit(described)
        targets = describe(vgg, drawn["content"])[0], describe(vgg, drawn["style"])[1]
        self.arguments = jnp.array(drawn["images"]), vgg, targets
        lowered = jax.jit(jax.grad(losses, has_aux=True)).lower(*self.arguments)
        began = time.perf_counter()
        self.compiled = lowered.compile()
        self.compile_s = time.perf_counter() - began
        self.temporary = int(self.compiled.memory_analysis().temp_size_in_bytes)

    def step(self) -> tuple[jax.Array, jax.Array]:
        """Losses [b] and gradients [b, h, h, 3]."""
        gradients, losses = self.compiled(*self.arguments)
        return jax.block_until_ready((losses, gradients))


class Twin:
    """The step in PyTorch, of the first image; the arguments are those of `Ours`, and where to compute."""

    def __init__(self, vgg: Vgg, drawn: dict[str, np.ndarray], device: str):
        params = trees.flatten(jax.device_get(vgg.params))
        self.weights = {name: x.to(device) for name, x in vgg_weights(params).items()}
        images = {
            name: torch.tensor(x[:1].transpose(0, 3, 1, 2).copy(), device=device)
            for name, x in drawn.items()
        }
        self.image = images["images"].requires_grad_()
        with torch.no_grad():
            self.content = self.describe(images["content"])[0]
            self.style = self.describe(images["style"])[1]

    def describe(self, image: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Features of the content, and Gram matrices by layer."""
        content, grams = None, {}
        for name, x in relus(self.weights, image):
            if name == CONTENT:
                content = x
            if name in STYLE:
                x = x.flatten(2)[0]
                grams[name] = x @ x.T / x.numel()
            if name == STYLE[-1]:
                break
        return content, grams

    def step(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss and gradient [1, 3, h, h]."""
        content, grams = self.describe(self.image)
        loss = (content - self.content).square().mean()
        for name, gram in grams.items():
            loss = loss + WEIGHT * (gram - self.style[name]).square().mean()
        (gradient,) = torch.autograd.grad(loss, self.image)
        return loss.detach(), gradient


def differences(ours: Ours, twin: Twin) -> dict[str, float]:
    """How far "loss" and "gradient" of the first image are apart, |ours - twin| / |twin|."""
    losses, gradients = ours.step()
    loss, gradient = twin.step()
    return {
        "loss": _error(losses[0], loss),
        "gradient": _error(gradients[0].transpose(2, 0, 1), gradient[0]),
    }


def measure(
    made: dict[int, Ours], twin: Twin, steps: int, rounds: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Times blocks of steps in turns, PyTorch with one image and ours with each number of them; see `in_turns`."""

    def block(side: Ours | Twin) -> None:
        for _ in range(steps):
            loss, gradient = side.step()
        if not np.isfinite(np.asarray(loss.cpu() if side is twin else loss)).all():
            raise SystemExit("a loss is not finite: these times are not those of an optimisation")

    blocks = {str(batch): (functools.partial(block, x), batch) for batch, x in made.items()}
    return in_turns(blocks | {"pytorch": (functools.partial(block, twin), 1)}, steps, rounds, clock)


def resident(side: str, weights: str, size: int) -> int:
    """Bytes by which two steps of "ours" or "pytorch" raise the peak of what this process holds in memory."""
    compilation.set_flags()
    vgg, drawn = load(weights), draw(size, 1)
    # Making either looks at content and style without gradients, which takes less than a step.
    made = Ours(vgg, drawn) if side == "ours" else Twin(vgg, drawn, "cpu")
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    made.step()
    made.step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before


def load(weights: str) -> Vgg:
    """The VGG-16 of a file, or of the name "lpips"."""
    return load_lpips(weights, field="weights")


def main(argv: list[str] | None = None) -> None:
    """Runs the comparison; see `--help`."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--weights", default="lpips", help="of VGG-16, with LPIPS")
    parser.add_argument("--sizes", default="256,512,1024", help="of images, by commas")
    parser.add_argument("--batches", default="1", help="images at once of ours, by commas")
    parser.add_argument("--steps", type=int, default=1, help="in a block")
    parser.add_argument("--rounds", type=int, default=5, help="blocks of each")
    parser.add_argument("--clock", default="wall", choices=CLOCKS, help="what counts as time")
    parser.add_argument("--memory", action="store_true", help="measure it, too (on CPU, Linux)")
    parser.add_argument("--json", type=Path, help="file for the results")
    args = parser.parse_args(argv)
    compilation.set_flags()
    device = _device()
    threads = min(torch.get_num_threads(), len(os.sched_getaffinity(0)))
    torch.set_num_threads(threads)
    vgg, reports = load(args.weights), {}
    for size in map(int, args.sizes.split(",")):
        made = {int(b): Ours(vgg, draw(size, int(b))) for b in args.batches.split(",")}
        first, twin = next(iter(made.values())), Twin(vgg, draw(size, 1), device)
        apart = differences(first, twin)
        described = ", ".join(f"{key} {value:.1e}" for key, value in apart.items())
        if not all(value <= TOLERANCE for value in apart.values()):
            raise SystemExit(
                f"ours and PyTorch compute different things: {described}; expected at most {TOLERANCE:.0e}"
            )
        print(f"{size} pixels: the same work, relative differences are {described}")
        report: dict[str, Any] = {
            "differences": apart, "threads": threads, "clock": args.clock, "load": os.getloadavg()[0],
            "jax": jax.__version__, "torch": torch.__version__,
            "compile_s": {str(batch): x.compile_s for batch, x in made.items()},
            "temporary": {str(batch): x.temporary for batch, x in made.items()},
        }  # fmt: skip
        report |= compare(measure(made, twin, args.steps, args.rounds, CLOCKS[args.clock]))
        for batch, x in made.items():
            print(
                f"  {batch} at once: compiled in {x.compile_s:.1f} s, {x.temporary / 2**30:.2f} GiB"
            )
        if args.memory:
            report["resident"] = {}
            for side in ("ours", "pytorch"):
                spawn = multiprocessing.get_context("spawn")
                with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as alone:
                    found = alone.submit(resident, side, args.weights, size).result()
                report["resident"][side] = found
                print(f"  a step of {side}, one image: {found / 2**30:.2f} GiB of memory")
        reports[str(size)] = report
    if args.json:
        args.json.write_text(json.dumps(reports, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
