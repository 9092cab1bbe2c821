"""Images that minimise a loss: Adam or L-BFGS over pixels, for several images in one program."""

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

# (images [b, h, w, 3], shared context, context of the rows [b, ...]) -> losses [b], figures [b] each.
Loss = Callable[[jax.Array, Any, Any], tuple[jax.Array, dict[str, jax.Array]]]
METHODS = ("adam", "lbfgs")
# Of L-BFGS: pairs of steps and changes of the gradient that it keeps, each as large as the image. neural-style keeps 100,
# which at 1024 pixels would be 2.5 GB.
MEMORY = 10
# Looks at the loss along one direction of L-BFGS; most steps need one or two.
LOOKS = 12


@flax.struct.dataclass
class State:
    """An optimisation between two steps.

    Attributes:
      images: [b, h, w, 3], about [-1, 1].
      average: exponential average of the images, which begins at 0; see `Minimizer.result`.
      moments: of the optimiser.
      step: number of steps taken.
    """

    images: jax.Array
    average: jax.Array
    moments: Any
    step: jax.Array


@dataclasses.dataclass(frozen=True)
class Minimizer:
    """An optimiser of one loss; compiled once for each shape. Rows are independent: each moves as it would alone.

    Attributes:
      loss: see `Loss`; a pure function, which gets all arrays as arguments.
      method: "adam", whose images stay in [-1, 1]; or "lbfgs", which seeks along each direction how far to go.
      lr: of Adam, constant; images span 2.
      averaging: of iterates in [0, 1), after each step; 0 gives the last iterate, 0.99 the mean of about a hundred.
    """

    loss: Loss
    method: str
    lr: float
    averaging: float

    @property
    def _optimizer(self) -> optax.GradientTransformationExtraArgs:
        if self.method == "adam":
            return optax.adam(self.lr)
        search = optax.scale_by_zoom_linesearch(LOOKS, initial_guess_strategy="one")
        return optax.lbfgs(memory_size=MEMORY, linesearch=search)

    def begin(self, images: jax.Array) -> State:
        """The state before the first step from images [b, h, w, 3]."""
        adam = self.method == "adam"
        moments = self._optimizer.init(images) if adam else jax.vmap(self._optimizer.init)(images)
        return State(images, jnp.zeros_like(images), moments, jnp.zeros((), jnp.int32))

    def result(self, state: State) -> jax.Array:
        """The average of the iterates so far, in [-1, 1]; the start before the first step."""
        # As Adam corrects its moments for their start at 0.
        share = 1 - self.averaging ** state.step.astype(jnp.float32)
        average = jnp.where(share > 0, state.average / jnp.where(share > 0, share, 1), state.images)
        return jnp.clip(average, -1, 1)

    def advance(
        self, state: State, shared: Any, rows: Any, stop: int
    ) -> tuple[State, jax.Array, dict[str, np.ndarray], float]:
        """Takes the steps up to `stop`.

        Args:
          state: is given away; the new one takes its memory.
          shared, rows: context of the loss.
          stop: number of the last step.

        Returns:
          The new state; its `result`; the `loss` and figures of that, [b] each; milliseconds of a step.
        """
        began, first = time.perf_counter(), int(state.step)
        state, result, figures = _advance(self, state, shared, rows, np.int32(stop))
        figures = jax.device_get(figures)
        ms = (time.perf_counter() - began) * 1000 / max(1, stop - first)
        return state, result, figures, ms

    def _step(self, state: State, shared: Any, rows: Any) -> State:
        if self.method == "adam":
            # The sum: rows do not touch each other, so that each gets its own gradient.
            gradient = jax.grad(lambda x: jnp.sum(self.loss(x, shared, rows)[0]))(state.images)
            updates, moments = self._optimizer.update(gradient, state.moments)
            images = jnp.clip(optax.apply_updates(state.images, updates), -1, 1)
        else:
            # One after the other, as each looks along its direction for as long as it needs.
            images, moments = jax.lax.map(
                lambda row: self._search(*row[:2], shared, row[2]),
                (state.images, state.moments, rows),
            )
        average = self.averaging * state.average + (1 - self.averaging) * images
        return State(images, average, moments, state.step + 1)

    def _search(
        self, image: jax.Array, moments: Any, shared: Any, row: Any
    ) -> tuple[jax.Array, Any]:
        """A step of L-BFGS of one image [h, w, 3]."""
        row = jax.tree.map(lambda x: x[None], row)

        def loss(image: jax.Array) -> jax.Array:
            return self.loss(image[None], shared, row)[0][0]

        value, gradient = optax.value_and_grad_from_state(loss)(image, state=moments)
        updates, moments = self._optimizer.update(
            gradient, moments, image, value=value, grad=gradient, value_fn=loss
        )
        return optax.apply_updates(image, updates), moments


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def _advance(
    minimizer: Minimizer, state: State, shared: Any, rows: Any, stop: jax.Array
) -> tuple[State, jax.Array, dict[str, jax.Array]]:
    """Steps until `stop`, which is traced, so that parts of any length are one program."""
    state = jax.lax.while_loop(
        lambda state: state.step < stop,
        lambda state: minimizer._step(state, shared, rows),
        state,
    )
    result = minimizer.result(state)
    losses, figures = minimizer.loss(result, shared, rows)
    return state, result, {"loss": losses} | figures
