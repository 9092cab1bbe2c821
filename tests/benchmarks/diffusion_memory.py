"""The memory that guided steps of Stable Diffusion 1.5 need, by the compiler alone: nothing is loaded but a VGG, and nothing run.

    python -m tests.benchmarks.diffusion_memory --size 512 --batch 1

Prints for each way to guide the arguments (the weights), and what a step needs besides, in GiB. A CPU's compiler decides on
other fusions than that of a GPU; its figures are those of docs/performance.md unless said otherwise.
"""

import argparse
import itertools
import os
import time

import jax
import numpy as np

from configs import guided_diffusion as configs
from nada_jax.diffusion import sampling
from nada_jax.diffusion.objectives import Guide
from nada_jax.diffusion.sampling import Drawing
from nada_jax.models import diffusion
from nada_jax.models.diffusion import Diffusion
from nada_jax.tasks.guided_diffusion import Settings

# As published: runwayml/stable-diffusion-v1-5.
CONFIGS = {
    "unet": {"sample_size": 64, "cross_attention_dim": 768},
    "vae": {
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "layers_per_block": 2,
        "sample_size": 512,
    },
    "text_encoder": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
        "max_position_embeddings": 77,
        "vocab_size": 49408,
    },
    "scheduler": {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "steps_offset": 1,
    },
}


def abstract(precision: str) -> Diffusion:
    """Stable Diffusion 1.5 with shapes in place of weights."""
    config = diffusion.canonical(CONFIGS)
    params = jax.eval_shape(lambda key: diffusion.init(config, key), jax.random.key(0))
    return Diffusion(params, config, tokenizer=None, name="abstract", precision=precision)


def drawing(model: Diffusion, settings: Settings, plain: bool, batch: int) -> Drawing:
    """What `sampling.prepare` would make, without texts."""
    side = settings.sampler.side(model)
    words = jax.ShapeDtypeStruct((batch, model.context, model.text_dim), np.float32)
    nothing = jax.ShapeDtypeStruct((1, *words.shape[1:]), np.float32)
    reference = np.zeros((1, side, side, 3), np.float32)
    guide = None if plain else Guide.load(settings.guidance, side, reference=reference)
    return Drawing(model, words, nothing, guide, settings.sampler, settings.guidance, chunk=1)


def measure(model: Diffusion, settings: Settings, plain: bool, batch: int) -> tuple[float, float]:
    """GiB of the arguments of a step, as far as it uses them, and of what it needs besides."""
    made = drawing(model, settings, plain, batch)
    state = jax.eval_shape(lambda: made.start(range(batch)))
    arguments = *made._arguments(0), state, settings.sampler.method
    used = sampling._advance.lower(*arguments).compile().memory_analysis()
    more = used.temp_size_in_bytes + used.output_size_in_bytes
    return used.argument_size_in_bytes / 2**30, more / 2**30


def main(arguments: list[str] | None = None) -> None:
    """Measures each way to guide."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--ways", default="plain,estimate,denoiser")
    parser.add_argument("--vgg", default="lpips")
    options = parser.parse_args(arguments)
    model = abstract(options.precision)
    for way, remat in itertools.product(options.ways.split(","), (False, True)):
        if way == "plain" and remat:
            continue
        config = configs.get_config("sd")
        config.update_from_flattened_dict({
            "sampler.size": options.size, "sampler.steps": 2, "guidance.remat": remat, "guidance.vgg": options.vgg,
            "guidance.through": "estimate" if way == "plain" else way,
        })  # fmt: skip
        began = time.perf_counter()
        held, more = measure(model, Settings.read(config), way == "plain", options.batch)
        seconds = time.perf_counter() - began
        print(
            f"{way}{', computed again' if remat else ''}: {held:.2f} GiB of weights and {more:.2f} GiB; compiled in "
            f"{seconds:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    # Buffers are assigned before machine code is made, which need not be good.
    os.environ["XLA_FLAGS"] = (
        os.environ.get("XLA_FLAGS", "") + " --xla_backend_optimization_level=0"
    )
    main()
