"""The parts of the training step, each compiled as a function of its own; work that they share is not shared here."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax

from nada_jax.adaptation.freezing.strategy import FROZEN
from nada_jax.adaptation.selection import select
from nada_jax.adaptation.settings import NOISES
from nada_jax.adaptation.state import Frozen, TrainState
from nada_jax.adaptation.step import guidance, synthesize, update
from nada_jax.models.stylegan2 import draw_latents
from nada_jax.performance.workloads import Workload

PARTS = ("mapping", "frozen forward", "selection", "trainable", "clip", "optimizer")


class Part(NamedTuple):
    """A compiled part; `call` and `carry` are for `timing.milliseconds`."""

    name: str
    call: Callable[[Any], Any]
    carry: Any = None


def parts(workload: Workload, state: TrainState, frozen: Frozen, key: jax.Array) -> Iterator[Part]:
    """Compiles the functions that the step is made of, those out of `PARTS` that it uses.

    Args:
      workload: the step.
      state, frozen, key: its arguments; nothing is donated but what this function makes.
    """
    settings, trained = workload.settings, state.trained
    batch, mixing = settings.batch_size, settings.generator.mixing
    noise_keys = jax.random.split(key)

    def compiled(name, function, *args):
        executable = jax.jit(function).lower(*args).compile()
        return Part(name, lambda _: executable(*args))

    def mapping(generator, key):
        return draw_latents(generator, key, batch, mixing)

    ws = jax.jit(mapping)(frozen.generator, key)
    yield compiled("mapping", mapping, frozen.generator, key)

    def forward(generator, ws, keys):
        return generator.synthesize(ws, NOISES[settings.generator.noise](*keys)[0])

    yield compiled("frozen forward", forward, frozen.generator, ws, noise_keys)

    if settings.freeze.chooses:

        def selection(trained, frozen, key):
            return select(trained, frozen, key, settings)

        yield compiled("selection", selection, trained, frozen, key)

    def trainable(trained, frozen, ws, keys, cotangent):
        images, pull = jax.vjp(lambda x: synthesize(x, frozen, ws, keys, settings)[1], trained)
        # Gradients of what never trains are not computed: the step drops them, too.
        (gradients,) = pull(cotangent)
        pairs = zip(jax.tree.leaves(workload.labels), jax.tree.leaves(gradients), strict=True)
        return images, [gradient for label, gradient in pairs if label != FROZEN]

    size = frozen.generator.size
    images = jax.random.uniform(key, (2, batch, size, size, 3), minval=-1.0)
    yield compiled("trainable", trainable, trained, frozen, ws, noise_keys, images[0])

    def clip(adapted, source, frozen, key):
        def total(adapted):
            return guidance((source, adapted), frozen, state.log_weights, key, settings)

        return jax.value_and_grad(total, has_aux=True)(adapted)

    yield compiled("clip", clip, images[1], images[0], frozen, key)

    def optimize(state, gradients, chosen):
        return update(state, gradients, chosen, workload.optimizer, settings)

    # The call takes over the memory of the state, as the step does; the original is still needed. Parameters stand for
    # their gradients: they have the same shapes, and are not all zero.
    carry = jax.tree.map(lambda x: x.copy(), state)
    rest = (trained, state.log_weights), state.chosen
    executable = jax.jit(optimize, donate_argnums=0).lower(carry, *rest).compile()
    yield Part("optimizer", lambda state: executable(state, *rest), carry)
