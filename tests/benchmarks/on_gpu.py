"""What a GPU computes, and how long XLA takes for it; each call is a process of its own, as XLA_FLAGS may differ.

    python -m tests.benchmarks.on_gpu step 1024/2/none/b32+b16      # compile times, the step, its memory
    python -m tests.benchmarks.on_gpu precision                     # TF32 beside full float32

on_gpu.sh calls both, and everything else that is to be measured on one.
"""

import argparse
import functools
import json
import os
import time

import jax
import jax.numpy as jnp
import numpy as np

from configs import benchmark, nada_sketch
from nada_jax.adaptation import models
from nada_jax.adaptation.settings import Settings
from nada_jax.adaptation.state import init_state
from nada_jax.adaptation.step import make_train_step
from nada_jax.devices import compilation
from nada_jax.models.stylegan2 import draw_latents
from nada_jax.performance import timing
from nada_jax.tasks import benchmark as task

TRAJECTORY = 4  # steps


def step(cell: str, precision: str = "bfloat16", steps: int = 20) -> dict[str, object]:
    """Compiles and times a cell of configs/benchmark.py.

    Args:
      cell: SIZE/BATCH/STRATEGY/CLIPS.
      precision: "float32" or "bfloat16".
      steps: timed steps.

    Returns:
      Seconds of making the models, tracing, lowering and compiling, milliseconds of the step, and bytes.
    """
    config = benchmark.get_config()
    config.sizes, config.cells, config.k, config.precisions = (), (cell,), 0, (precision,)
    (workload,) = task.grid(task.Settings.read(config))
    clock = time.perf_counter()
    state, frozen, key = jax.block_until_ready(workload.build())
    figures = {"cell": str(workload), "flags": os.environ.get("XLA_FLAGS", "")}
    figures["build_s"] = time.perf_counter() - clock
    make = functools.partial(make_train_step, workload.settings, workload.optimizer)
    lowered, compiled, seconds = timing.compile_twice(make, state, frozen, key, donate_argnums=0)
    program = compiled.as_text()
    figures |= seconds | {"hlo_mb": len(program) / 1e6, "hlo_instructions": program.count(" = ")}
    figures["program_gib"] = timing.costs(lowered, compiled)["memory_bytes"] / 2**30
    times = timing.milliseconds(lambda state: compiled(state, frozen, key)[0], state, steps=steps)
    return figures | timing.summary(times)


def precision() -> dict[str, float]:
    """The largest differences between TF32, the default of GPUs, and full float32, on the embedded models.

    Returns:
      Of images in -1..1, of unit features, of the losses of the first steps, and of the images after them.
    """
    settings = Settings.read(nada_sketch.get_config())
    frozen, _, _ = models.load(settings)
    source, clip = frozen.generator, frozen.clips[0]
    key = jax.random.key(0)
    optimizer = settings.optimizer.make(settings.freeze.row.labels(source.params, settings.freeze))
    found = {}
    for name in ("highest", "default"):
        with jax.default_matmul_precision(name):
            ws = draw_latents(source, key, 16)
            state = init_state(source, optimizer, settings, 0)
            draw = jax.jit(lambda params, ws: source.replace(params=params).synthesize(ws))
            images = draw(state.trained, ws)
            features = jax.jit(clip.embed_images)(images)
            train_step, losses = jax.jit(make_train_step(settings, optimizer)), []
            for _ in range(TRAJECTORY):
                state, metrics = train_step(state, frozen, key)
                losses.append(metrics["loss"])
            found[name] = images, features, jnp.stack(losses), draw(state.trained, ws)
    names = ("images", "features", "losses", "images_after")
    pairs = zip(names, *found.values(), strict=True)
    return {name: float(np.abs(a - b).max()) for name, a, b in pairs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(required=True)
    measured = commands.add_parser("step")
    measured.add_argument("cell")
    measured.add_argument("--precision", default="bfloat16")
    measured.add_argument("--steps", type=int, default=20)
    measured.set_defaults(run=step)
    commands.add_parser("precision").set_defaults(run=precision)
    options = vars(parser.parse_args())
    compilation.set_flags()  # as main.py does; what $XLA_FLAGS has stays
    print(json.dumps(options.pop("run")(**options)), flush=True)


if __name__ == "__main__":
    main()
