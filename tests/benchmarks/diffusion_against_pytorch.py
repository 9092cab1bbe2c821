"""A step of diffusion beside the same work in PyTorch's classes of diffusers: same weights, one process.

    python -m tests.benchmarks.diffusion_against_pytorch                           # both models
    OMP_NUM_THREADS=1 taskset -c 0 python -m tests.benchmarks.diffusion_against_pytorch --clock cpu

"plain" is one image's noise by classifier-free guidance, which is most of a step of any sampler. "guided" is the same
with the gradient of a style loss through denoiser and decoder: Gram matrices at five layers of VGG-16. The models are
the embedded one, and a part-sized Stable Diffusion with random weights. First it is shown that both compute the same,
then blocks of steps are timed in turns: ours, PyTorch's, ours, ...
"""

import argparse
import functools
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers as theirs
import jax
import jax.numpy as jnp
import numpy as np
import torch

from nada_jax import load_diffusion, trees
from nada_jax.devices import compilation
from nada_jax.models import diffusion
from nada_jax.models.diffusion import Diffusion
from nada_jax.models.noise import clean_of, noise_of
from nada_jax.models.tokenizer import load_tokenizer
from nada_jax.models.vgg import Vgg
from nada_jax.weights import diffusers
from nada_jax.weights.registry import ASSETS
from tests.benchmarks.against_pytorch import _device, _error
from tests.benchmarks.inversion_against_pytorch import CLOCKS, compare, in_turns
from tests.benchmarks.pytorch_inversion import relus, vgg_weights
from tests.benchmarks.style_against_pytorch import GRAM, STYLE, load

TOKENIZER = ASSETS / "clip-avatar-p16"
PART = {  # Stable Diffusion 1 with 0.4 of its widths, for images of 256 pixels
    "unet": {
        "sample_size": 32, "block_out_channels": [128, 256, 512, 512], "cross_attention_dim": 128,
    },
    "vae": {
        "block_out_channels": [64, 128, 256, 256], "layers_per_block": 2,
        "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4,
    },
    "scheduler": {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"},
}  # fmt: skip
TIME, SCALE = 500, 7.5
# A gradient that has gone through a maximum of VGG, which may fall to the other side, is further apart.
TOLERANCES = {"plain": 1e-4, "guided": 1e-2}


def part_sized(directory: Path) -> Path:
    """Writes the part-sized model, with random weights."""
    text = json.loads((TOKENIZER / "config.json").read_text(encoding="utf-8"))["text_config"]
    config = diffusion.canonical(PART | {"text_encoder": text})
    tokenizer = load_tokenizer(TOKENIZER, text["vocab_size"])
    model = Diffusion(diffusion.init(config, jax.random.key(0)), config, tokenizer, tokenizer.end)
    diffusers.write(model, directory, TOKENIZER, half=False)
    return directory


def draw(model: Diffusion) -> dict[str, np.ndarray]:
    """Noisy latents [1, h, h, c], features of a prompt and of none [2, t, d], and the image whose style it is."""
    random, side = np.random.default_rng(0), model.size // model.factor
    return {
        "x": random.standard_normal((1, side, side, model.channels), np.float32),
        "context": np.array(model.embed_texts(["a man with red hair", ""])),
        "style": random.uniform(-1, 1, (1, model.size, model.size, 3)).astype(np.float32),
    }


class Ours:
    """Steps in nada_jax, compiled.

    Args:
      model, vgg: the networks.
      drawn: see `draw`.
    """

    def __init__(self, model: Diffusion, vgg: Vgg, drawn: dict[str, np.ndarray]):
        alpha, prediction = np.float32(model.schedule.alphas[TIME]), model.schedule.prediction

        def plain(model, x, context):
            output = model.predict(jnp.concatenate([x, x]), TIME, context)
            wanted, unwanted = jnp.split(noise_of(output, x, alpha, prediction), 2)
            return unwanted + SCALE * (wanted - unwanted)

        def grams(vgg, image):
            found = vgg.features(image, STYLE)
            sums = {layer: GRAM.sums(x, jnp.ones((1, *x.shape[1:3]))) for layer, x in found.items()}
            return {layer: GRAM.statistics(x) for layer, x in sums.items()}

        def guided(model, x, context, vgg, style):
            def loss(x):
                eps = plain(model, x, context)
                image = model.decode(clean_of(eps, x, alpha))
                distances = [
                    GRAM.distance(y, style[layer]) for layer, y in grams(vgg, image).items()
                ]
                return jnp.sum(sum(distances)), eps

            gradient, eps = jax.grad(loss, has_aux=True)(x)
            return eps, gradient

        arguments = model, jnp.array(drawn["x"]), jnp.array(drawn["context"])
        more = *arguments, vgg, jax.jit(grams)(vgg, drawn["style"])
        self.steps = {"plain": (jax.jit(plain), arguments), "guided": (jax.jit(guided), more)}

    def step(self, kind: str) -> Any:
        """Noise [1, h, h, c]; for "guided", that and the gradient."""
        run, arguments = self.steps[kind]
        return jax.block_until_ready(run(*arguments))


class Twin:
    """The same in PyTorch; the arguments are those of `Ours`, the model's directory, and where to compute."""

    def __init__(
        self, model: Diffusion, vgg: Vgg, drawn: dict[str, np.ndarray], directory: Path, device: str
    ):
        self.alpha = float(model.schedule.alphas[TIME])
        self.velocity = model.schedule.prediction == "v_prediction"
        classes = {"unet": theirs.UNet2DConditionModel, "vae": theirs.AutoencoderKL}
        for name, kind in classes.items():
            network = kind.from_pretrained(directory / name, torch_dtype=torch.float32).to(device)
            setattr(self, name, network.eval().requires_grad_(False))
        params = trees.flatten(jax.device_get(vgg.params))
        self.vgg = {name: x.to(device) for name, x in vgg_weights(params).items()}
        self.x, style = (
            torch.tensor(drawn[name].transpose(0, 3, 1, 2).copy(), device=device)
            for name in ("x", "style")
        )
        self.context = torch.tensor(drawn["context"], device=device)
        with torch.no_grad():
            self.style = self.grams(style)

    def grams(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """Gram matrices by layer."""
        found = {}
        for name, x in relus(self.vgg, image):
            if name in STYLE:
                flat = x.flatten(2)[0]
                found[name] = flat @ flat.T / flat.numel()
            if name == STYLE[-1]:
                return found
        raise AssertionError(name)

    def plain(self, x: torch.Tensor) -> torch.Tensor:
        """The noise."""
        twice = torch.cat([x, x])
        output = self.unet(twice, TIME, self.context).sample
        if self.velocity:
            output = self.alpha**0.5 * output + (1 - self.alpha) ** 0.5 * twice
        wanted, unwanted = output.chunk(2)
        return unwanted + SCALE * (wanted - unwanted)

    def step(self, kind: str) -> Any:
        """See `Ours.step`; channels come first."""
        if kind == "plain":
            with torch.no_grad():
                return self.plain(self.x)
        x = self.x.clone().requires_grad_()
        eps = self.plain(x)
        clean = (x - (1 - self.alpha) ** 0.5 * eps) / self.alpha**0.5
        image = self.vae.decode(clean / self.vae.config.scaling_factor).sample
        loss = sum(
            (gram - self.style[name]).square().mean() for name, gram in self.grams(image).items()
        )
        return eps.detach(), torch.autograd.grad(loss, x)[0]


def differences(ours: Ours, twin: Twin, kind: str) -> float:
    """How far a step's results are apart, |ours - twin| / |twin|; the larger one."""
    results = [x if isinstance(x, tuple) else (x,) for x in (ours.step(kind), twin.step(kind))]
    pairs = zip(*results, strict=True)
    return max(_error(np.moveaxis(np.asarray(one), -1, 1), other) for one, other in pairs)


def measure(
    ours: Ours, twin: Twin, kind: str, steps: int, rounds: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Times blocks of steps in turns; see `in_turns`."""

    def block(side: Ours | Twin) -> None:
        for _ in range(steps):
            side.step(kind)
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    blocks = {
        "1": (functools.partial(block, ours), 1),
        "pytorch": (functools.partial(block, twin), 1),
    }
    return in_turns(blocks, steps, rounds, clock)


def main(argv: list[str] | None = None) -> None:
    """Runs the comparison; see `--help`."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--models", default="avatar-diffusion,part", help="names or directories, by commas"
    )
    parser.add_argument("--kinds", default="plain,guided", help="of steps, by commas")
    parser.add_argument("--weights", default="lpips", help="of VGG-16")
    parser.add_argument("--steps", type=int, default=1, help="in a block")
    parser.add_argument("--rounds", type=int, default=5, help="blocks of each")
    parser.add_argument("--clock", default="wall", choices=CLOCKS, help="what counts as time")
    parser.add_argument("--json", type=Path, help="file for the results")
    args = parser.parse_args(argv)
    compilation.set_flags()
    device = _device()
    threads = min(torch.get_num_threads(), len(os.sched_getaffinity(0)))
    torch.set_num_threads(threads)
    vgg, reports = load(args.weights), {}
    for name in args.models.split(","):
        with tempfile.TemporaryDirectory() as temporary:
            found = ASSETS / name if (ASSETS / name).is_dir() else Path(name)
            directory = part_sized(Path(temporary)) if name == "part" else found
            model = load_diffusion(directory)
            drawn = draw(model)
            ours, twin = Ours(model, vgg, drawn), Twin(model, vgg, drawn, directory, device)
        reports[name] = {}
        for kind in args.kinds.split(","):
            began = time.perf_counter()
            apart = differences(ours, twin, kind)
            if not apart <= TOLERANCES[kind]:
                raise SystemExit(
                    f"ours and PyTorch compute different things: {apart:.1e}; expected at most {TOLERANCES[kind]:.0e}"
                )
            ready = time.perf_counter() - began
            print(f"{name}, {kind}: the same within {apart:.1e}; compiled in about {ready:.0f} s")
            reports[name][kind] = {
                "difference": apart, "threads": threads, "clock": args.clock, "load": os.getloadavg()[0],
                "jax": jax.__version__, "torch": torch.__version__, "diffusers": theirs.__version__,
                **compare(measure(ours, twin, kind, args.steps, args.rounds, CLOCKS[args.clock])),
            }  # fmt: skip
    if args.json:
        args.json.write_text(json.dumps(reports, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
