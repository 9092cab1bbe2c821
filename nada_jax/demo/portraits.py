"""Images of visitors, as arrays: the face is cut out, its latents are found, and they are drawn in adapted domains."""

import collections
import dataclasses
import hashlib
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from nada_jax import images
from nada_jax.demo.drawing import Report
from nada_jax.errors import UserError
from nada_jax.latents.inversion import METHODS, Invert, Networks, invert
from nada_jax.models.stylegan2 import Generator
from nada_jax.photos import align, landmarks
from nada_jax.portraits.domains import draw
from nada_jax.portraits.settings import InversionSettings
from nada_jax.portraits.subjects import Subject
from nada_jax.runs.items import Item
from nada_jax.weights import loading

FACE, MIDDLE, BOX = "find the face", "the middle", "a box that I set"
PLACES = (FACE, MIDDLE, BOX)  # where in an image the face is
NO_FACE = (
    f"no face is found in this image; choose “{BOX}” and lay it around the face, or “{MIDDLE}”"
)
VEIL = 160  # grey around the box of a cut: darker would look like a frame around an image on white
EVERY = 5  # steps between reports, and so between the moments at which a job can be cancelled
HELD = (
    12  # found latents that are held at once: with tuned generators each is as large as a generator
)
# What each method of inversion is for people, fastest first.
LABELS = {
    "encoder": "Instant (encoder)",
    "w": "Smooth (W)",
    "w+": "Closer (W+)",
    "style": "Closer still (StyleSpace)",
    "pti": "Closest (a generator tuned to the image)",
}


class Cut(NamedTuple):
    """Which part of an image is the face.

    Attributes:
      place: one of `PLACES`.
      x, y: centre of the box, in 0..100 % of the width and of the height.
      side: of the box, in 0..100 % of the shorter side.
    """

    place: str
    x: float = 50.0
    y: float = 50.0
    side: float = 100.0

    def box(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Left, top, right and bottom in pixels, moved into the image where it reaches beyond."""
        side = max(1, round(min(width, height) * self.side / 100))
        left = round(width * self.x / 100 - side / 2)
        top = round(height * self.y / 100 - side / 2)
        left, top = min(max(left, 0), width - side), min(max(top, 0), height - side)
        return left, top, left + side, top + side


def place_of(settings: InversionSettings) -> str:
    """The place that the config says."""
    return FACE if settings.align.mode == "face" else MIDDLE


def aligned(path: Path, cut: Cut, size: int) -> np.ndarray:
    """Cuts out the face of an image.

    Args:
      path: the image.
      cut: where it is.
      size: side of the result.

    Returns:
      float32 [size, size, 3] in [-1, 1].

    Raises:
      UserError: `NO_FACE`, or the image cannot be read.
    """
    photo = images.upright(path, align.PIXELS)
    if cut.place == MIDDLE:
        return images.square(photo.image, size)
    if cut.place == BOX:
        part = photo.image.crop(cut.box(*photo.image.size))
        return images.square(part, size)
    if cut.place != FACE:
        raise UserError(f"{cut.place!r} is no place of a face; expected one of {', '.join(PLACES)}")
    faces = landmarks.find(photo.image)
    if not faces:
        raise UserError(NO_FACE)
    return align.align(photo.image, size, faces[0].landmarks).image


def load(settings: InversionSettings, source: Generator) -> Networks:
    """The networks of inversions, as far as the config names them."""
    lpips, encoder = settings.lpips.weights, settings.encoder.weights
    return Networks(
        generator=source,
        lpips=loading.load_lpips(lpips, field="lpips.weights") if lpips else None,
        encoder=loading.load_encoder(encoder, field="encoder.weights") if encoder else None,
        refinements=settings.encoder.steps,
    )


def methods(settings: InversionSettings) -> dict[str, str]:
    """The methods that the config has networks for: text for people -> name."""
    names = [x for x in LABELS if x in METHODS and (x != "encoder" or settings.encoder.weights)]
    return {LABELS[name]: name for name in names}


def choose(settings: InversionSettings, method: str, steps: int) -> Invert:
    """The settings of an inversion by another method with other numbers of steps."""
    given = settings.invert
    # Where nothing is to compare images by but pixels, their weight cannot be 0.
    l2 = given.l2 or (0.0 if settings.lpips.weights else 1.0)
    start = given.start if settings.encoder.weights else "mean"
    numbers = {"steps": steps, "pivot_steps": steps, "tuning_steps": steps}
    return dataclasses.replace(given, method=method, l2=l2, start=start, **numbers)


def find(
    networks: Networks, image: np.ndarray, settings: Invert, seed: int, report: Report
) -> Subject:
    """Finds the latents of an image.

    Args:
      networks: of `load`.
      image: [size, size, 3] in [-1, 1], aligned.
      settings: of the inversion.
      seed: of its noise.
      report: is called at the start and every `EVERY` steps.

    Raises:
      UserError: the optimisation diverged, or the networks do not fit.
    """
    total, done = settings.total_steps, 0
    report(0.0, "looks at the image")

    def advance(steps: int, loss: float, _: float) -> None:
        nonlocal done
        done += steps
        report(done / max(total, 1), f"finds the latents: step {done} of {total}")

    keys = jax.random.split(jax.random.key(seed), 1)
    found = invert(networks, image[None], settings, keys, advance, EVERY)
    if not np.isfinite(found.best).all():
        raise UserError("no latents were found that draw this image; try another method")
    return Subject(Item("image"), found.codes, image, found.tuned and found.tuned[0])


class Memory:
    """The last `HELD` things that were found, by key; others go on while one is being found, unlike with `Models`."""

    def __init__(self):
        self._found: collections.OrderedDict[tuple, Any] = collections.OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple, make: Callable[[], Any]) -> Any:
        """What `make` finds, once for each key."""
        with self._lock:
            if key in self._found:
                self._found.move_to_end(key)
                return self._found[key]
        found = make()
        with self._lock:
            self._found[key] = found
            while len(self._found) > HELD:
                self._found.popitem(last=False)
        return found


def digest(path: Path) -> str:
    """Of an upload's content; UserError where it was deleted while its job waited."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError("the image is gone from the server; upload it again") from error


def stylise(
    subject: Subject,
    source: Generator,
    domains: Mapping[str, Generator],
    strength: float,
    report: Report,
) -> dict[str, np.ndarray]:
    """Draws a portrait by the source and in adapted domains.

    Args:
      subject: of `find`.
      source: what all were adapted from.
      domains: adapted generators by name.
      strength: 0 is the reconstruction, 1 the adapted generator.
      report: is called before each image.

    Returns:
      Images uint8 [size, size, 3]: "reconstruction" and each domain.

    Raises:
      UserError: an image is not finite.
    """
    tuned, found = subject.tuned or source, {}
    rows = {"reconstruction": (source, 0.0)} | {k: (x, strength) for k, x in domains.items()}
    for number, (name, (adapted, much)) in enumerate(rows.items()):
        report(number / len(rows), f"draws {name}")
        drawn = np.asarray(draw(subject.codes, source, tuned, adapted, np.float32(much))[0])
        if not np.isfinite(drawn).all():
            raise UserError(f"the image of {name} is not finite; choose a strength nearer to 1")
        found[name] = images.to_uint8(drawn)
    return found


def outline(path: Path, cut: Cut, side: int) -> np.ndarray:
    """An image that is veiled in grey but for the box of a cut, uint8, its longer side about `side` pixels."""
    photo = images.upright(path, (2 * side) ** 2).image
    photo.thumbnail((side, side))
    left, top, right, bottom = cut.box(*photo.size)
    pixels = np.array(photo)
    dimmed = (pixels * 0.35 + VEIL * 0.65).astype(np.uint8)
    dimmed[top:bottom, left:right] = pixels[top:bottom, left:right]
    return dimmed
