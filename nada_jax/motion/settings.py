"""What moves, how long, and how it is kept: sections of `configs/interpolate.py`."""

from collections.abc import Callable
from typing import Annotated

import numpy as np

from nada_jax import videos
from nada_jax.settings import Positive, Rule, Section, Whole, one_of

# Share of the time of a leg in 0..1 -> share of the way [n]. Both are exact at the ends.
EASINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "smooth": lambda t: t * t * (3 - 2 * t),  # comes to rest at every stop
    "linear": lambda t: t,  # never rests, and turns at stops
}
KINDS = ("walk", "domains", "grid", "edit")
SPACES = ("w", "z")
LONGEST = 1_000_000  # seconds of one way
FINITE = Rule(
    lambda x: len(x) > 1 and bool(np.isfinite(x).all()),
    "at least two finite numbers, as (0.0, 4.0)",
)


class Timing(Section, name="motion"):
    """How stops follow each other: fields of `config.motion`."""

    seconds: Positive
    easing: Annotated[str, one_of(EASINGS)]
    loop: bool

    def check(self) -> None:
        """Longer ways would have more frames than can be counted."""
        self.need(self.seconds <= LONGEST, "seconds", f"at most {LONGEST:,} seconds")


class Motion(Timing, name="motion"):
    """What moves, and how; `config.motion`."""

    kind: Annotated[str, one_of(KINDS)]
    space: Annotated[str, one_of(SPACES)]
    source: bool


class Video(Section, name="video"):
    """How frames become a moving image; `config.video`."""

    format: Annotated[str, one_of(videos.FORMATS)]
    fps: Positive
    side: Whole
    columns: Whole
    labels: bool

    def check(self) -> None:
        """Larger frames than those that are played would not fit the memory either."""
        self.need(
            self.side <= videos.LARGEST_SIDE, "side", f"at most {videos.LARGEST_SIDE:,} pixels"
        )


def shares(legs: int, timing: Timing, fps: float) -> list[np.ndarray]:
    """When the frames of each leg are, as shares of its way.

    Each begins at 0, its first stop. Without a loop the last one ends at 1; with a loop it ends one frame before, as
    the next frame is the first of all.

    Args:
      legs: ways between two stops; with a loop, the way back is one of them.
      timing: says how long a leg takes, and where it is slow.
      fps: frames per second.

    Returns:
      Shares [n] in 0..1 of each leg, float32.
    """
    # Python's own numbers: those of a config may be NumPy's, which overflow.
    count = max(1, round(float(fps) * float(timing.seconds)))
    leg = EASINGS[timing.easing](np.arange(count) / count).astype(np.float32)
    found = [leg] * legs
    if not timing.loop:
        found[-1] = np.append(leg, np.float32(1))
    return found


def count_frames(legs: int, timing: Timing, fps: float) -> int:
    """How many frames `shares` gives, without making them."""
    return legs * max(1, round(float(fps) * float(timing.seconds))) + (not timing.loop)
