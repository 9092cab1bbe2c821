"""Where an adaptation goes: texts, example images, and what CLIP reads off images of the source."""

import functools
import math
from collections.abc import Sequence
from typing import Annotated

import jax
import numpy as np

from nada_jax import files, images
from nada_jax.adaptation import prompts, vocabulary
from nada_jax.adaptation.prompts import Targets
from nada_jax.errors import UserError
from nada_jax.models.clip import Clip
from nada_jax.models.stylegan2 import Generator, draw_latents
from nada_jax.settings import Rule, Section, Whole

SAMPLES = 64  # images of the source generator that stand for all that it draws
TEXTS = Rule(lambda texts: all(text.strip() for text in texts), "texts, such as ('robot',)")
WEIGHTS = Rule(lambda weights: all(map(math.isfinite, weights)), "finite numbers")


class Text(Section, name="text"):
    """Source and target of an adaptation; `config.text`."""

    source: str
    target: str
    others: Annotated[tuple[str, ...], TEXTS]
    weights: Annotated[tuple[float, ...], WEIGHTS]
    source_images: str
    target_images: str
    read_every: Whole
    vocabulary: str

    def check(self) -> None:
        """Refuses texts and images that do not go together."""
        prompts.check(**{self.path(field): getattr(self, field) for field in ("source", "target")})
        self.need(
            len(self.weights) == len(self.others),
            "weights",
            f"a number for each of the {len(self.others)} text.others",
        )
        if self.source in self.others:
            raise UserError(f"text.others holds text.source, {self.source!r}; expected other texts")
        if self.source_images and not self.target_images:
            raise UserError(
                f"text.source_images is {self.source_images!r}, but text.target_images is empty; expected both, "
                "because CLIP's features of images and of texts cannot be subtracted from each other"
            )
        if self.read_every and self.target_images:
            raise UserError(
                f"text.read_every is {self.read_every}; expected 0 with text.target_images, which uses no "
                "source text"
            )

    def described(self) -> tuple[str, str]:
        """From what to what, for people."""
        source = repr(self.source)
        if self.target_images:
            source = f"images in {self.source_images}" if self.source_images else "source images"
        if self.read_every:
            source = "texts read off the source"
        target = f"images in {self.target_images}" if self.target_images else repr(self.target)
        others = zip(self.others, self.weights, strict=True)
        return source, target + "".join(f" {w:+g} * {other!r}" for other, w in others)


class Steering:
    """The targets of an adaptation in the space of each CLIP.

    Args:
      text: what is wanted.
      generator: the source, on this process's own device.
      clips: with their text towers.
      weights: of the clips.
      parts: whether directions of parts are needed, for the patch loss.
      seed: of the images of the source that are read.

    Raises:
      UserError: a text or folder cannot be used.
    """

    def __init__(
        self,
        text: Text,
        generator: Generator,
        clips: Sequence[Clip],
        weights: Sequence[float],
        *,
        parts: bool,
        seed: int,
    ):
        self.text, self.seed, self.generator, self.parts = text, seed, generator, parts
        self.clips, self.clip_weights = tuple(clips), tuple(weights)
        # By field, for messages.
        self.wanted = [("text.others", other) for other in text.others]
        if not text.target_images:
            self.wanted.insert(0, ("text.target", text.target))
        self.examples = self._examples()
        self._known: dict[str, tuple[Targets, ...]] = {}  # the same text is often chosen again
        if text.read_every:
            files.check_local(text.vocabulary, f"text.vocabulary={text.vocabulary!r}")
            self.words = self._descriptions()

    def targets(self, source: str) -> tuple[Targets, ...]:
        """The targets for each CLIP, where `source` describes what images show now."""
        if source not in self._known:
            own = "text.source" if source == self.text.source else "text.vocabulary"
            self._known[source] = tuple(
                prompts.blend(
                    [
                        *example,
                        *(
                            prompts.targets(clip, source, text, (own, field), parts=self.parts)
                            for field, text in self.wanted
                        ),
                    ],
                    (1.0, *self.text.weights),
                )
                for clip, example in zip(self.clips, self.examples, strict=True)
            )
        return self._known[source]

    def read(self, epoch: int) -> str:
        """The description that fits fresh images of the source generator best."""
        means = prompts.mean_features(self.clips, self._source_images(1 + epoch))
        scores = vocabulary.scores(means, self._features, self.clip_weights)
        return self.words[int(np.argmax(scores))]

    def _descriptions(self) -> list[str]:
        """The descriptions of the vocabulary that differ from every target in every clip."""
        # A source that a clip reads as the target has no direction.
        targets = [text for _, text in self.wanted]
        words = [
            word
            for word in vocabulary.read(self.text.vocabulary)
            if not any(prompts.reads_as_one(c, word, t) for c in self.clips for t in targets)
        ]
        if not words:
            raise UserError(
                f"text.vocabulary={self.text.vocabulary!r} holds nothing but what CLIP reads as a target "
                f"({', '.join(map(repr, targets))}); expected descriptions of the source"
            )
        return words

    @functools.cached_property
    def _features(self) -> list[jax.Array]:
        """Features of the vocabulary in each clip; only where it is read."""
        return [clip.embed_texts(self.words) for clip in self.clips]

    def _source_images(self, number: int) -> list[np.ndarray]:
        """Images of the source generator, other ones for each number."""
        # Beyond the numbers of steps, which training folds into the same key.
        key = jax.random.fold_in(jax.random.key(self.seed), 2**31 + number)
        keys = [jax.random.fold_in(key, i) for i in range(SAMPLES // images.BATCH)]
        return [np.asarray(_draw(self.generator, key)) for key in keys]

    def _examples(self) -> list[list[Targets]]:
        """The targets that example images give, for each CLIP; empty where there are none."""
        source, target = self.text.source_images, self.text.target_images
        if not target:
            return [[] for _ in self.clips]
        # Read once, as large as the CLIP with the largest input; the others shrink it.
        size = max(clip.image_size for clip in self.clips)
        before = (
            images.stream(source, size, field="text.source_images")
            if source
            else self._source_images(0)
        )
        after = images.stream(target, size, field="text.target_images")
        means = zip(*(prompts.mean_features(self.clips, x) for x in (before, after)), strict=True)
        of_source = f"text.source_images={source!r}" if source else "the source generator"
        names = f"images of {of_source}", f"those of text.target_images={target!r}"
        return [
            [prompts.image_targets(clip, *pair, parts=self.parts, names=names)]
            for clip, pair in zip(self.clips, means, strict=True)
        ]


@jax.jit
def _draw(generator: Generator, key: jax.Array) -> jax.Array:
    return generator.synthesize(draw_latents(generator, key, images.BATCH))
