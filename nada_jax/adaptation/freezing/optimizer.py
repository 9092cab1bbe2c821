"""Adam on what a strategy trains: one optimiser a label, by `optax.multi_transform`."""

import functools
from collections.abc import Callable
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import optax

from nada_jax.adaptation.freezing.strategy import FROZEN
from nada_jax.settings import NonNegative, Positive, Rule, Section, Whole

BETA = Rule(
    lambda betas: len(betas) == 2 and all(0 <= b < 1 for b in betas), "two numbers from 0, below 1"
)


class Optimizer(Section, name="optimizer"):
    """Adam and its schedule; `config.optimizer`."""

    lr: Positive
    betas: Annotated[tuple[float, ...], BETA]
    warmup: Whole
    decay: Whole
    clip: NonNegative

    def make(self, labels: Any) -> optax.GradientTransformationExtraArgs:
        """Adam for a tree of labels; see `masked`."""
        adam = functools.partial(optax.adam, self.lr, *self.betas)
        return masked(adam, labels, self.clip, schedule(self.warmup, self.decay))


def schedule(warmup: int, decay: int) -> optax.Schedule | None:
    """What updates are multiplied by, step by step: a linear rise to 1, then a cosine down to 0.

    Args:
      warmup: steps of the rise; 0 starts at 1.
      decay: steps of the cosine; 0 stays at 1.

    Returns:
      step -> factor, or None for 1 throughout.
    """
    if not (warmup or decay):
        return None
    rise = optax.linear_schedule(1 / (warmup + 1), 1, warmup) if warmup else lambda step: 1.0
    fall = optax.cosine_decay_schedule(1, decay) if decay else lambda step: 1.0
    return optax.join_schedules([rise, fall], [warmup])


def masked(
    inner: Callable[[], optax.GradientTransformation],
    labels: Any,
    clip: float = 0.0,
    schedule: optax.Schedule | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Gives each label its own optimiser; frozen arrays get zero updates and hold no state.

    Args:
      inner: makes the optimiser of one label.
      labels: a tree like what trains, see `strategy.FROZEN`.
      clip: largest norm of the gradient of all that trains in a step; 0 leaves it as it is.
      schedule: step -> what updates are multiplied by. It counts all steps, whatever they train.

    Returns:
      A transformation whose `update` takes `chosen`, bool [n], where n candidates are chosen from.
    """
    transforms = {FROZEN: optax.set_to_zero()}
    # Sorted, so that the state has one structure whatever the order of a set.
    for label in sorted(set(jax.tree.leaves(labels)) - {FROZEN}):
        transforms[label] = inner() if label < 0 else when_chosen(inner(), label)
    result = optax.multi_transform(transforms, labels)
    if clip:
        # Before the optimiser: Adam's updates have about the same length whatever the gradient.
        result = optax.chain(_only_trained(labels), optax.clip_by_global_norm(clip), result)
    return result if schedule is None else optax.chain(result, optax.scale_by_schedule(schedule))


def when_chosen(
    inner: optax.GradientTransformation, index: int
) -> optax.GradientTransformationExtraArgs:
    """Runs `inner` in the steps that choose `index`; else updates are zero and its state rests.

    Neither moments nor the step count of a layer move while it is frozen, as in PyTorch >= 2. The choice is
    traced, so it changes from step to step without a new compilation.
    """

    def update(updates, state, params=None, *, chosen, **_):
        new_updates, new_state = inner.update(updates, state, params)
        keep = chosen[index]
        new_updates = jax.tree.map(lambda u: jnp.where(keep, u, 0), new_updates)
        return new_updates, jax.tree.map(lambda n, o: jnp.where(keep, n, o), new_state, state)

    return optax.GradientTransformationExtraArgs(inner.init, update)


def _only_trained(labels: Any) -> optax.GradientTransformationExtraArgs:
    """Gradients of what does not train in a step become 0, so that they do not count in the norm."""

    def update(updates, state, params=None, *, chosen, **_):
        def keep(label, x):
            if label == FROZEN:
                return jnp.zeros_like(x)
            return x if label < 0 else jnp.where(chosen[label], x, 0)

        return jax.tree.map(keep, labels, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
