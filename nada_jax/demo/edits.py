"""Edits of latents, as arrays: towards a sentence, or along directions that are found once."""

from collections.abc import Mapping, Sequence

import numpy as np

from nada_jax import images
from nada_jax.adaptation import prompts
from nada_jax.demo.drawing import Report
from nada_jax.demo.portraits import EVERY
from nada_jax.errors import UserError
from nada_jax.latents import directions, editing
from nada_jax.latents.directions import Direction
from nada_jax.models.clip import Clip
from nada_jax.models.stylegan2 import Generator
from nada_jax.portraits.subjects import Subject, draw

SAMPLES = 1000  # latents drawn and scored, from which directions are found
# Name -> texts of images without and with what the direction changes; of words that the embedded CLIPs know.
DIRECTIONS = {
    "smile": ("sad person", "smiling person"),
    "glasses": ("person", "person with glasses"),
    "beard": ("woman", "man with a beard"),
    "long hair": ("person with short hair", "person with long hair"),
    "red hair": ("person with black hair", "person with red hair"),
    "age": ("photo of a young man", "photo of an old man"),
}


def find_directions(
    generator: Generator, clip: Clip, *, batch: int, report: Report
) -> dict[str, Direction]:
    """All of `DIRECTIONS` from one set of samples; a CLIP sees each of them once.

    Args:
      generator: whose latents they move.
      clip: scores the samples.
      batch: images at once.
      report: is called after each batch.
    """
    aims = np.stack([prompts.text_direction(clip, *texts) for texts in DIRECTIONS.values()], 1)

    def advance(done: int, total: int) -> None:
        report(done / total, f"looks for directions, once: {done} of {total} images")

    ws, scores = directions.score(
        generator, clip, aims, seed=0, samples=SAMPLES, batch_size=batch, report=advance
    )
    return {name: directions.fit(ws, scores[:, i])[0] for i, name in enumerate(DIRECTIONS)}


def by_sliders(
    subject: Subject, source: Generator, found: Mapping[str, Direction], strengths: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Images before and after a move along directions, uint8 [size, size, 3]."""
    own = subject.tuned or source
    moved = directions.move(subject.codes, own, list(found.values()), strengths)
    return _pair(own, subject, moved, "strengths nearer to 0")


def by_words(
    subject: Subject,
    source: Generator,
    guides: editing.Guides,
    clips: Sequence[Clip],
    text: str,
    *,
    settings: editing.Edit,
    report: Report,
) -> tuple[np.ndarray, np.ndarray]:
    """Images before and after StyleCLIP's optimisation towards a sentence, uint8 [size, size, 3].

    Args:
      subject: latents, b = 1.
      source: draws them where they have no generator of their own.
      guides: the networks of the loss.
      clips: the same CLIPs with their text towers.
      text: what the image should show.
      settings: numbers of the optimisation.
      report: is called every few steps.

    Raises:
      UserError: the text is blank, or the edit is not finite.
    """
    report(0.0, "reads the sentence")
    texts, done, own = editing.embed_text(clips, text), 0, subject.tuned or source

    def advance(steps: int, loss: float, _: float) -> None:
        nonlocal done
        done += steps
        report(done / settings.steps, f"edits: step {done} of {settings.steps}")

    edited, _, _ = editing.edit(
        own,
        guides,
        subject.codes,
        texts,
        space=settings.space,
        view=settings.view,
        lr=settings.lr,
        steps=settings.steps,
        l2=settings.l2,
        identity=settings.identity,
        every=EVERY,
        report=advance,
    )
    return _pair(own, subject, edited, "more weight on staying close")


def _pair(own: Generator, subject: Subject, edited, remedy: str) -> tuple[np.ndarray, np.ndarray]:
    drawn = np.concatenate([draw(own, subject.codes), draw(own, edited)])
    if not np.isfinite(drawn).all():
        raise UserError(f"the edited image is not finite; expected {remedy}")
    before, after = images.to_uint8(drawn)
    return before, after
