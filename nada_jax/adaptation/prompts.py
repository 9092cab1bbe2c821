"""Prompt templates, and the directions in CLIP's space that they give (Gal et al. 2022, eq. 3)."""

import functools
from collections.abc import Iterable, Sequence

import flax
import jax
import jax.numpy as jnp
import numpy as np

from nada_jax import batches
from nada_jax.errors import UserError
from nada_jax.evaluation import features
from nada_jax.models.clip import Clip, unit

LEAST = 1e-3  # shorter sums of unit features are rounding noise, no direction

_PHOTOS = (
    "bad", "low resolution", "cropped", "bright", "dark", "close-up", "black and white",
    "pixelated", "jpeg corrupted", "blurry", "good",
)  # fmt: skip
_LOOKS = ("hard to see", "clean", "dirty", "cool", "large", "nice", "weird", "small")
_WORKS = (
    "a sculpture", "a rendering", "a tattoo", "a drawing", "a painting", "a doodle", "a sketch",
    "a rendition", "a photo", "graffiti", "art", "itap",
)  # fmt: skip
_MATERIALS = ("embroidered", "plastic", "origami", "toy", "cartoon", "plushie")

# The 79 templates of the official code, those that CLIP's authors wrote for ImageNet.
TEMPLATES = (
    *(
        frame
        for article in ("a", "the")
        for frame in (
            *(f"a {photo} photo of {article} {{}}." for photo in _PHOTOS),
            *(f"a photo of {article} {look} {{}}." for look in _LOOKS),
            *(f"{work} of {article} {{}}." for work in _WORKS),
            *(f"{article} {material} {{}}." for material in _MATERIALS),
            f"{article} {{}} in a video game.",
        )
    ),
    "a photo of my {}.",
    "itap of my {}.",
    "a photo of one {}.",
)

# What a crop may show, for the patch loss.
PART_TEMPLATES = (
    "the paw of a {}.",
    "the nose of a {}.",
    "the eye of the {}.",
    "the ears of a {}.",
    "an eye of a {}.",
    "the tongue of a {}.",
    "the fur of the {}.",
    "colorful {} fur.",
    "a snout of a {}.",
    "the teeth of the {}.",
    "the {}s fangs.",
    "a claw of the {}.",
    "the face of the {}",
    "a neck of a {}",
    "the head of the {}",
)


def text_features(clip: Clip, text: str, templates: Sequence[str] = TEMPLATES) -> jax.Array:
    """Unit features of a text in t templates, [t, d].

    Raises:
      UserError: the text is blank.
    """
    check(text=text)
    return clip.embed_texts([template.format(text) for template in templates])


def mean_feature(clip: Clip, text: str, templates: Sequence[str] = TEMPLATES) -> jax.Array:
    """Unit mean of `text_features`, [d]; two of them give the cosine of the manifold loss."""
    return unit(jnp.mean(text_features(clip, text, templates), axis=0))


def text_direction(
    clip: Clip, source: str, target: str, templates: Sequence[str] = TEMPLATES
) -> jax.Array:
    """Unit mean over the templates of feature(target) - feature(source), Gal et al. 2022, eq. 3.

    Args:
      clip: whose space the direction is in.
      source, target: two class texts, such as "photo" and "sketch".
      templates: frames with one `{}`.

    Returns:
      [d].

    Raises:
      UserError: a text is blank, or both are the same, between which there is no direction.
    """
    return _directions(clip, source, target, [list(templates)])[0]


def part_directions(clip: Clip, source: str, target: str) -> jax.Array:
    """`text_direction` of each part of the source and the target, [15, d], for the patch loss.

    Raises:
      UserError: as `text_direction`.
    """
    frames = [[template.format(part) for template in TEMPLATES] for part in PART_TEMPLATES]
    return _directions(clip, source, target, frames)


@flax.struct.dataclass
class Targets:
    """Where texts or example images point, in one clip's space; all of unit length.

    Attributes:
      direction: from source to target [d], for the directional loss.
      target: feature of "a {target}", or of the examples [d], for the global loss.
      bare: feature of the target as it stands [d], for the adaptive layer choice.
      cosine: between the mean features of source and target, [], for the manifold loss.
      parts: directions [p, d] for the patch loss, or None: of 15 parts, or that of whole images.
    """

    direction: jax.Array
    target: jax.Array
    bare: jax.Array
    cosine: jax.Array
    parts: jax.Array | None = None


def targets(clip: Clip, source: str, target: str, *, parts: bool = False) -> Targets:
    """Computes `Targets` once, before training; `parts` (2,370 texts) only on demand.

    Raises:
      UserError: as `text_direction`.
    """
    _check_pair(source, target)
    framed = [template.format(text) for text in (source, target) for template in TEMPLATES]
    found = clip.embed_texts([*framed, f"a {target}", target])
    # Directions of single templates are averaged, and normalised last, as in the official code.
    of_source, of_target = found[:-2].reshape(2, len(TEMPLATES), -1)
    return Targets(
        direction=unit(jnp.mean(of_target - of_source, axis=0)),
        target=found[-2],
        bare=found[-1],
        cosine=unit(jnp.mean(of_source, axis=0)) @ unit(jnp.mean(of_target, axis=0)),
        parts=part_directions(clip, source, target) if parts else None,
    )


def image_targets(source: jax.Array, target: jax.Array, *, parts: bool = False) -> Targets:
    """Targets given by example images, as the official code's `--target_img_list`.

    Args:
      source, target: mean features of images [d]; see `mean_features`.
      parts: as for `targets`; crops get the direction of whole images.
    """
    direction, target = unit(target - source), unit(target)
    return Targets(
        direction=direction,
        target=target,
        bare=target,
        cosine=unit(source) @ target,
        parts=direction[None] if parts else None,
    )


def blend(wanted: Sequence[Targets], factors: Sequence[float]) -> Targets:
    """Several targets at once: the unit sum of their vectors, each times its factor.

    For the directional and the global loss this equals the weighted sum of their losses up to a constant and a
    scale. A factor below 0 moves away from its target. The cosine is the mean by factor of those that are moved towards.

    Args:
      wanted: at least one, all with as many parts.
      factors: one for each, at least one of them above 0.

    Raises:
      UserError: they cancel each other out.
    """
    if len(wanted) == 1:
        return wanted[0]

    def sum_up(*parts: jax.Array) -> jax.Array:
        total = sum(factor * x for factor, x in zip(factors, parts, strict=True))
        if float(jnp.min(jnp.linalg.norm(total, axis=-1))) < LEAST:
            raise UserError(
                f"text.target and text.others cancel each other out by their weights {tuple(factors)}"
            )
        return unit(total)

    # A cosine says how far to go; targets that are avoided set no distance.
    towards = [max(factor, 0) for factor in factors]
    cosine = sum(f * t.cosine for f, t in zip(towards, wanted, strict=True)) / sum(towards)
    whole = jax.tree.map(sum_up, *(t.replace(cosine=None) for t in wanted))
    return whole.replace(cosine=cosine)


def mean_features(clips: Sequence[Clip], stream: Iterable[np.ndarray]) -> list[jax.Array]:
    """Mean unit feature of a stream of images in each clip, [d]; no more than a batch is held.

    Args:
      clips: n of them.
      stream: batches [b, h, w, 3] in [-1, 1], at least one; those after the first may be smaller.
    """
    sums, count, size = [0.0] * len(clips), 0, 0
    for batch in stream:
        size = size or len(batch)  # one shape to compile
        for i, clip in enumerate(clips):
            found = batches.apply(functools.partial(features.embed, clip), size, batch)
            sums[i] += jnp.sum(jnp.asarray(found), axis=0)
        count += len(batch)
    return [total / count for total in sums]


def _directions(clip: Clip, source: str, target: str, frames: Sequence[Sequence[str]]) -> jax.Array:
    """One unit direction [p, d] for each of p lists of equally many frames."""
    _check_pair(source, target)
    texts = [frame.format(text) for text in (source, target) for part in frames for frame in part]
    of_source, of_target = clip.embed_texts(texts).reshape(2, len(frames), -1, clip.dim)
    return unit(jnp.mean(of_target - of_source, axis=1))


def check(**texts: str) -> None:
    """Refuses blank texts, given by the name of their field.

    Raises:
      UserError: names the field.
    """
    for field, text in texts.items():
        if not text.strip():
            raise UserError(f"{field} is blank ({text!r}); expected words such as 'pencil sketch'")


def _check_pair(source: str, target: str) -> None:
    check(**{"text.source": source, "text.target": target})
    if source.strip() == target.strip():
        raise UserError(f"text.source and text.target are both {source!r}; expected two texts")
