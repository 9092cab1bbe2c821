"""The optimisation behind inversion and editing: Adam on any loss of latents, for many images in one program."""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax

Tree = Any  # of arrays [b, ...], a row for each image
Figures = dict[str, jax.Array]  # each [b]
# (variables, context, share of the steps that is done [b], keys [b]) -> loss [b], figures.
Loss = Callable[[Tree, Any, jax.Array, jax.Array], tuple[jax.Array, Figures]]
EVERY = 50  # steps between reports: few, as each waits for the device
RAMP_UP, RAMP_DOWN = 0.05, 0.25  # shares of the steps over which the rate rises and falls


def ramp(share: jax.Array, up: float = RAMP_UP, down: float = RAMP_DOWN) -> jax.Array:
    """The learning rate over its peak, as in the projector of StyleGAN2 and in StyleCLIP.

    Karras et al. 2020 (arXiv 1912.04958), appendix D: it rises linearly, and falls as a cosine.

    Args:
      share: of the steps that is done, any shape, in [0, 1]; at 0 the rate is 0.
      up, down: shares of the steps over which it rises and falls; 0 leaves that part out.

    Returns:
      The same shape, in [0, 1].
    """
    falling = jnp.minimum(1.0, (1 - share) / down) if down else jnp.ones_like(share)
    rising = jnp.minimum(1.0, share / up) if up else 1.0
    return (0.5 - 0.5 * jnp.cos(falling * jnp.pi)) * rising


@flax.struct.dataclass
class State:
    """An optimisation between two steps.

    Attributes:
      variables: what is optimised, arrays [b, ...].
      moments: of Adam.
      done: images that move no more, [b].
      step: number of steps taken.
    """

    variables: Tree
    moments: Any
    done: jax.Array
    step: jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class Descent:
    """An optimiser of one loss; compiled once for each shape, so keep it for all batches.

    Rows are independent: a row moves as it would alone, whatever its neighbours, rate and number of steps.

    Attributes:
      loss: see `Loss`; a pure function, which gets all arrays as arguments.
      project: is applied to the variables after each step.
      reached: figures -> rows [b] that are good enough, and stay from then on as they are.
      betas, up, down: of Adam, and of its rate; see `ramp`.
    """

    loss: Loss
    project: Callable[[Tree], Tree] = lambda variables: variables
    reached: Callable[[Figures], jax.Array] | None = None
    betas: tuple[float, float] = (0.9, 0.999)
    up: float = RAMP_UP
    down: float = RAMP_DOWN

    def run(
        self,
        variables: Tree,
        context: Any,
        *,
        peaks: float | np.ndarray,
        steps: int | np.ndarray,
        keys: jax.Array,
        every: int = EVERY,
        report: Callable[[int, float, float], None] | None = None,
    ) -> tuple[Tree, dict[str, np.ndarray], list[dict[str, Any]]]:
        """Optimises a batch.

        Args:
          variables: where it starts, arrays [b, ...].
          context: whatever else the loss reads: models, targets, weights of terms [b].
          peaks: largest learning rate, of all rows or of each [b].
          steps: number of steps, of all rows or of each [b].
          keys: PRNG keys [b]; step t draws with fold_in(key, t).
          every: steps between reports.
          report: is called with the number of steps since the last report, the mean loss, and the
            milliseconds of a step, as `runs.progress.Progress.advance` is.

        Returns:
          The variables after the last step; `loss` and the figures before it, [b] each; and the same after
          each report, as rows with their `step`.
        """
        rows = len(jax.tree.leaves(variables)[0])
        peaks = jnp.broadcast_to(jnp.asarray(peaks, jnp.float32), rows)
        totals = np.broadcast_to(np.asarray(steps, np.int32), rows)
        state = State(
            variables, self._adam.init(variables), jnp.zeros(rows, bool), jnp.zeros((), jnp.int32)
        )
        last, history, step = int(totals.max()), [], 0
        figures: dict[str, np.ndarray] = {}
        ended = np.zeros(rows, bool)
        while step < last:
            began, stop = time.perf_counter(), min(step + every, last)
            state, found = _advance(self, state, context, peaks, totals, keys, np.int32(stop))
            found = jax.device_get(found)
            figures = {name: np.where(ended, figures.get(name, x), x) for name, x in found.items()}
            ended = np.asarray(state.done) | (stop >= totals)
            history.append({"step": stop} | figures)
            if report is not None:
                ms = (time.perf_counter() - began) * 1000 / (stop - step)
                report(stop - step, float(np.mean(figures["loss"])), ms)
            step = stop
            if ended.all():
                break
        return state.variables, figures, history

    @property
    def _adam(self) -> optax.GradientTransformation:
        return optax.scale_by_adam(*self.betas, eps=1e-8)

    def _step(
        self, state: State, context: Any, peaks: jax.Array, totals: jax.Array, keys: jax.Array
    ) -> tuple[State, Figures]:
        """One step of Adam on all rows that are not done."""
        share = jnp.minimum(state.step / totals, 1.0)
        drawn = jax.vmap(jax.random.fold_in, (0, None))(keys, state.step)

        def total(variables):
            losses, figures = self.loss(variables, context, share, drawn)
            # The sum: rows do not touch each other, so that each gets its own gradient.
            return jnp.sum(losses), {"loss": losses} | figures

        grads, figures = jax.grad(total, has_aux=True)(state.variables)
        done = state.done | (state.step >= totals)
        if self.reached is not None:
            done |= self.reached(figures)
        rates = peaks * ramp(share, self.up, self.down)
        updates, moments = self._adam.update(grads, state.moments)
        moved = jax.tree.map(lambda x, u: x - _rows(rates, x) * u, state.variables, updates)
        variables = jax.tree.map(
            lambda old, new: jnp.where(_rows(done, old), old, new),
            state.variables,
            self.project(moved),
        )
        return State(variables, moments, done, state.step + 1), figures


def _rows(values: jax.Array, x: jax.Array) -> jax.Array:
    """A number for each row [b], in a shape that goes with x [b, ...]."""
    return values.reshape(-1, *[1] * (x.ndim - 1))


@functools.partial(jax.jit, static_argnums=0)
def _advance(
    descent: Descent,
    state: State,
    context: Any,
    peaks: jax.Array,
    totals: jax.Array,
    keys: jax.Array,
    stop: jax.Array,
) -> tuple[State, Figures]:
    """Steps until `stop`, which is traced, so that parts of any length are one program.

    A loop of XLA rather than of Python: on two CPU cores a step of eight embedded portraits takes half as long in it.
    """
    inputs = context, peaks, totals, keys
    _, shapes = jax.eval_shape(descent._step, state, *inputs)

    def body(carried: tuple[State, Figures]) -> tuple[State, Figures]:
        state, before = carried
        new, figures = descent._step(state, *inputs)
        # Of a row that was done already, the figures are those with which it ended.
        still = state.done | (state.step >= totals)
        return new, jax.tree.map(lambda old, x: jnp.where(still, old, x), before, figures)

    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return jax.lax.while_loop(
        lambda carried: (carried[0].step < stop) & ~jnp.all(carried[0].done), body, (state, zeros)
    )
