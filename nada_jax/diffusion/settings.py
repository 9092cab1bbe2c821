"""Settings of drawing by a diffusion model."""

from typing import Annotated

import numpy as np

from nada_jax.diffusion.guidance import SCALINGS, THROUGH, How
from nada_jax.diffusion.objectives import Goals, Side
from nada_jax.diffusion.samplers import SAMPLERS, Times
from nada_jax.errors import UserError
from nada_jax.models.diffusion import Diffusion
from nada_jax.settings import Count, Positive, Rule, Section, Share, Whole, need, one_of
from nada_jax.weights import loading

# Beyond it, latents leave the range of float32 within a few steps.
HEAVIEST = 1e6
Weight = Annotated[float, Rule(lambda x: 0 <= x <= HEAVIEST, f"a number in 0..{HEAVIEST:,.0f}")]
# Published values are 1 to 20. Far beyond, the two estimates cancel each other.
Scale = Annotated[float, Rule(lambda x: 0 <= x <= 1000, "a number in 0..1000, such as 7.5")]
MOST = 1000  # repetitions of a step; more would be a slip
Repeats = Annotated[int, Rule(lambda x: 1 <= x <= MOST, f"a whole number in 1..{MOST}")]


class Model(Section, name="diffusion"):
    """The model that draws; `config.diffusion`."""

    weights: str

    def load(self, precision: str = "float32") -> Diffusion:
        """Loads the model; see `loading.load_diffusion`."""
        return loading.load_diffusion(self.weights, precision=precision, field=self.path("weights"))


class Sampling(Section, name="sampler"):
    """How noise becomes images; `config.sampler`.

    Fields: `method`, a key of `SAMPLERS`; `steps`; `scale` of classifier-free guidance, 1 for none of it; `eta`, the
    share of new noise in each step of DDIM; `size`, side of the images in pixels, 0 for that of the model.
    """

    method: Annotated[str, one_of(SAMPLERS)]
    steps: Count
    scale: Scale
    eta: Share
    size: Side

    def check(self) -> None:
        """Only some samplers can draw new noise."""
        noisy = [name for name, sampler in SAMPLERS.items() if sampler.noisy]
        good = self.eta == 0 or self.method in noisy
        self.need(good, "eta", f"0: {self.method} draws no noise, as {' and '.join(noisy)} can")

    def side(self, model: Diffusion) -> int:
        """Side of the images in pixels.

        Raises:
          UserError: the model cannot draw images of that size.
        """
        side, multiple = self.size or model.size, model.factor * model.multiple
        need(
            side % multiple == 0,
            self.path("size"),
            side,
            f"a multiple of {multiple} for this model, or 0 for its own {model.size}",
        )
        return side

    def times(self, model: Diffusion) -> Times:
        """The steps; UserError where the model was not trained on so many."""
        return SAMPLERS[self.method].times(model.schedule, self.steps, self.eta)


class Guidance(Goals, name="guidance"):
    """What guides the drawing, and how; `config.guidance`.

    Fields beside those of `Goals`:
      weight: of the gradient, 0 for no guidance; see `guidance.SCALINGS` for its unit.
      boost, boost_from: factor of the weight from this share of the steps on.
      free, until: shares of the steps before and from which nothing guides.
      through: whether the gradient goes through denoiser and decoder, or stops at the estimate.
      scaling: a key of `guidance.SCALINGS`.
      repeats, repeat_from, repeat_until: how often each step in this range is taken, with new noise in between.
      backward, backward_rate: further steps on the clean latents themselves, and their length.
      remat: compute the networks again for the gradient instead of keeping what is within them.
    """

    weight: Weight
    boost: Weight
    boost_from: Share
    free: Share
    until: Share
    through: Annotated[str, one_of(THROUGH)]
    scaling: Annotated[str, one_of(SCALINGS)]
    repeats: Repeats
    repeat_from: Share
    repeat_until: Share
    backward: Whole
    backward_rate: Positive
    remat: bool

    @property
    def on(self) -> bool:
        """Whether anything guides."""
        return self.weight > 0

    def check(self) -> None:
        """Ranges are not empty; and what guides is given, where something does."""
        if not self.on:
            return
        super().check()
        self.need(self.backward <= MOST, "backward", f"a whole number in 0..{MOST}")
        self.need(self.free < self.until, "free", f"a share below guidance.until, {self.until:g}")
        good = self.repeats == 1 or self.repeat_from < self.repeat_until
        expected = f"a share below guidance.repeat_until, {self.repeat_until:g}"
        self.need(good, "repeat_from", expected)

    def check_against(self, sampling: Sampling, total: int) -> None:
        """Refuses what does not go with a sampler of `total` steps; UserError."""
        good = self.scaling != "freedom" or sampling.scale not in (0, 1)
        expected = "another one, or another sampler.scale than 0 and 1: it measures what that adds"
        self.need(good, "scaling", expected)
        if not self.weights(total).any():
            raise UserError(
                f"guidance.free={self.free:g}, guidance.until={self.until:g} and guidance.boost={self.boost:g} leave none "
                f"of {total} steps to guide; expected at least one, or guidance.weight=0"
            )

    def how(self, total: int) -> How:
        """What `guidance.guided` takes, for `total` steps."""
        weights, counts = self.weights(total), self.counts(total)
        return How(
            weights=weights,
            counts=counts,
            backward_rate=np.float32(self.backward_rate),
            through=self.through,
            scaling=self.scaling,
            backward=self.backward,
            remat=self.remat,
            always=bool((weights > 0).all()),
            once=bool((counts == 1).all()),
        )

    def weights(self, total: int) -> np.ndarray:
        """The weight at each of `total` steps, float32 [total]."""
        found = self.weight * np.where(_reached(self.boost_from, total), self.boost, 1.0)
        return np.float32(found * _within(self.free, self.until, total))

    def counts(self, total: int) -> np.ndarray:
        """How often each of `total` steps is taken, int32 [total]; once where nothing guides."""
        repeated = _within(self.repeat_from, self.repeat_until, total)
        repeated = repeated & (self.weights(total) > 0)
        return np.where(repeated, self.repeats, 1).astype(np.int32)


def _reached(share: float, total: int) -> np.ndarray:
    """Which of `total` steps begin at this share of them or later; decimals are not exact."""
    return np.arange(total) >= share * total - 1e-6


def _within(start: float, stop: float, total: int) -> np.ndarray:
    """Which of `total` steps begin in a range of shares."""
    return _reached(start, total) & ~_reached(stop, total)
