"""Where an adaptation goes: texts, example pictures, and what CLIP reads off the source's own pictures."""

import functools
from collections.abc import Sequence

import jax
import numpy as np
from ml_collections import ConfigDict

from nada_jax import images
from nada_jax.adaptation import prompts
from nada_jax.adaptation import vocabulary as source_text
from nada_jax.adaptation.prompts import Targets
from nada_jax.models.clip import Clip
from nada_jax.models.stylegan2 import Generator, draw_latents

PICTURES = 64  # of the source generator that stand for all that it draws


class Steering:
    """What a config asks for, in the space of each CLIP.

    Args:
      config: all of `configs/default.py`.
      generator: the source, on this process's own device.
      clips: with their texts.

    Raises:
      UserError: a text or folder cannot be used.
    """

    def __init__(self, config: ConfigDict, generator: Generator, clips: Sequence[Clip]):
        text = config.text
        self.seed, self.generator, self.clips = config.seed, generator, tuple(clips)
        self.clip_weights, self.parts = tuple(config.clip.weights), config.loss.patch > 0
        self.texts = [*([] if text.target_images else [text.target]), *text.others]
        self.factors = (1.0, *text.weights)
        self.examples = self._examples(text.source_images, text.target_images)
        self._known: dict[str, tuple[Targets, ...]] = {}
        if text.read_every:
            words = source_text.vocabulary(text.vocabulary)
            self.words = [word for word in words if word not in self.texts]

    def targets(self, source: str) -> tuple[Targets, ...]:
        """What is asked of pictures where `source` says what they show now, for each CLIP."""
        if source not in self._known:
            self._known[source] = tuple(
                prompts.blend(
                    [
                        *example,
                        *(prompts.targets(clip, source, t, parts=self.parts) for t in self.texts),
                    ],
                    self.factors,
                )
                for clip, example in zip(self.clips, self.examples, strict=True)
            )
        return self._known[source]

    def read(self, epoch: int) -> str:
        """The description that fits fresh pictures of the source generator best."""
        means = prompts.mean_features(self.clips, self._pictures(1 + epoch))
        scores = source_text.scores(means, self._features, self.clip_weights)
        return self.words[int(np.argmax(scores))]

    @functools.cached_property
    def _features(self) -> list[jax.Array]:
        """What each clip makes of the vocabulary; for those who read alone."""
        return source_text.embed(self.clips, self.words)

    def _pictures(self, number: int) -> list[np.ndarray]:
        """Pictures of the source generator, other ones for each number."""
        key = jax.random.fold_in(jax.random.key(self.seed), 2**31 + number)
        batches = [jax.random.fold_in(key, i) for i in range(PICTURES // images.BATCH)]
        return [np.asarray(_draw(self.generator, key)) for key in batches]

    def _examples(self, source: str, target: str) -> list[list[Targets]]:
        """What example pictures ask, for each CLIP; nothing where there are none."""
        if not target:
            return [[] for _ in self.clips]
        size = max(clip.image_size for clip in self.clips)
        before = (
            images.stream(source, size, field="text.source_images") if source else self._pictures(0)
        )
        after = images.stream(target, size, field="text.target_images")
        means = zip(*(prompts.mean_features(self.clips, x) for x in (before, after)), strict=True)
        return [[prompts.picture_targets(*pair, parts=self.parts)] for pair in means]


def aims(config: ConfigDict) -> tuple[str, str]:
    """From what to what, for people."""
    text = config.text
    source = "pictures of the source" if text.target_images else repr(text.source)
    source = f"pictures in {text.source_images}" if text.source_images else source
    source = "what is read off the source" if text.read_every else source
    target = f"pictures in {text.target_images}" if text.target_images else repr(text.target)
    others = (f" {w:+g} * {other!r}" for other, w in zip(text.others, text.weights, strict=True))
    return source, "".join([target, *others])


@jax.jit
def _draw(generator: Generator, key: jax.Array) -> jax.Array:
    return generator.synthesize(draw_latents(generator, key, images.BATCH))
