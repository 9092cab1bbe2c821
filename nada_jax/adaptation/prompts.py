"""The directions in CLIP's space that texts and example images give (Gal et al. 2022, eq. 3)."""

import functools
import math
from collections.abc import Iterable, Sequence

import flax
import jax
import jax.numpy as jnp
import numpy as np

from nada_jax import batches
from nada_jax.adaptation.templates import PART_TEMPLATES, TEMPLATES
from nada_jax.errors import UserError
from nada_jax.evaluation import features
from nada_jax.evaluation.features import LEAST
from nada_jax.models.clip import Clip, unit
from nada_jax.settings import need

FIELDS = "text.source", "text.target"  # how messages call two texts


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
    clip: Clip,
    source: str,
    target: str,
    templates: Sequence[str] = TEMPLATES,
    *,
    fields: tuple[str, str] = FIELDS,
) -> jax.Array:
    """Unit mean over the templates of feature(target) - feature(source), Gal et al. 2022, eq. 3.

    Args:
      clip: whose space the direction is in.
      source, target: two class texts, such as "photo" and "sketch".
      templates: frames with one `{}`.
      fields: how messages call the two texts.

    Returns:
      [d].

    Raises:
      UserError: a text is blank, or the clip sees no difference between the two.
    """
    return _directions(clip, source, target, [list(templates)], fields)[0]


def part_directions(
    clip: Clip, source: str, target: str, fields: tuple[str, str] = FIELDS
) -> jax.Array:
    """`text_direction` of each part of the source and the target, [15, d], for the patch loss.

    Raises:
      UserError: as `text_direction`.
    """
    frames = [[template.format(part) for template in TEMPLATES] for part in PART_TEMPLATES]
    return _directions(clip, source, target, frames, fields)


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


def targets(
    clip: Clip,
    source: str,
    target: str,
    fields: tuple[str, str] = FIELDS,
    *,
    parts: bool = False,
) -> Targets:
    """Computes `Targets` once, before training; `parts` (2,370 texts) only on demand.

    Args:
      fields: how messages call the two texts.

    Raises:
      UserError: as `text_direction`.
    """
    _check_pair(clip, source, target, fields)
    framed = [template.format(text) for text in (source, target) for template in TEMPLATES]
    found = clip.embed_texts([*framed, f"a {target}", target])
    # Directions of single templates are averaged, and normalised last, as in the official code.
    of_source, of_target = found[:-2].reshape(2, len(TEMPLATES), -1)
    return Targets(
        direction=_pointing(jnp.mean(of_target - of_source, axis=0), clip, fields),
        target=found[-2],
        bare=found[-1],
        cosine=unit(jnp.mean(of_source, axis=0)) @ unit(jnp.mean(of_target, axis=0)),
        parts=part_directions(clip, source, target, fields) if parts else None,
    )


def image_targets(
    clip: Clip,
    source: jax.Array,
    target: jax.Array,
    *,
    parts: bool = False,
    names: tuple[str, str] = ("the images of the source", "those of the target"),
) -> Targets:
    """Targets given by example images, as the official code's `--target_img_list`.

    Args:
      clip: whose features they are.
      source, target: mean features of images [d]; see `mean_features`.
      parts: as for `targets`; crops get the direction of whole images.
      names: how messages call the two sets of images.

    Raises:
      UserError: the clip sees no difference between them.
    """
    direction, target = _pointing(target - source, clip, names), unit(target)
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
      UserError: they cancel each other out, or a factor is so large that their sum is not finite.
    """
    if len(wanted) == 1:
        return wanted[0]
    # What is left of large vectors that cancel each other is their rounding.
    least = LEAST * max(map(abs, factors))

    def sum_up(*parts: jax.Array) -> jax.Array:
        total = sum(factor * x for factor, x in zip(factors, parts, strict=True))
        if not least <= _shortest(total) < math.inf:
            raise UserError(
                f"text.target and text.others have no direction in common by their weights {tuple(factors)}: "
                "they cancel each other out, or are too large"
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


def reads_as_one(clip: Clip, one: str, other: str) -> bool:
    """Whether a clip reads the same tokens in two texts, whatever the template."""

    def read(frame: str, text: str) -> list[int]:
        return clip.tokenizer.encode(frame.format(text))[: clip.context - 2]

    return all(read(frame, one) == read(frame, other) for frame in TEMPLATES)


def _directions(
    clip: Clip,
    source: str,
    target: str,
    frames: Sequence[Sequence[str]],
    fields: tuple[str, str] = FIELDS,
) -> jax.Array:
    """One unit direction [p, d] for each of p lists of equally many frames."""
    _check_pair(clip, source, target, fields)
    texts = [frame.format(text) for text in (source, target) for part in frames for frame in part]
    of_source, of_target = clip.embed_texts(texts).reshape(2, len(frames), -1, clip.dim)
    return _pointing(jnp.mean(of_target - of_source, axis=1), clip, fields)


def _pointing(difference: jax.Array, clip: Clip, names: tuple[str, str]) -> jax.Array:
    """Differences [..., d] of features of a clip as unit directions; UserError where there is none."""
    if not LEAST <= (length := _shortest(difference)) < math.inf:
        raise UserError(
            f"clip {clip.name!r} sees no difference between {' and '.join(names)}: their features are "
            f"{length:.1g} apart, where rounding alone is up to {LEAST:g}; expected what differs more"
        )
    return unit(difference)


def _shortest(vectors: jax.Array) -> float:
    """The smallest length of vectors [..., d]; NaN where one is not a number."""
    return float(jnp.min(jnp.linalg.norm(vectors, axis=-1)))


def check(**texts: str) -> None:
    """Refuses blank texts, and what is no text, given by the name of their field.

    Raises:
      UserError: names the field.
    """
    for field, text in texts.items():
        need(isinstance(text, str), field, text, "a text such as 'pencil sketch'")
        if not text.strip():
            raise UserError(f"{field} is blank ({text!r}); expected words such as 'pencil sketch'")


def _check_pair(clip: Clip, source: str, target: str, fields: tuple[str, str]) -> None:
    """Refuses two texts that are the same to a clip, and says why they are."""
    check(**dict(zip(fields, (source, target), strict=True)))
    both = " and ".join(fields)
    if source.strip() == target.strip():
        raise UserError(f"{both} are both {source!r}; expected two texts")
    if not reads_as_one(clip, source, target):
        return
    tokens = [clip.tokenizer.encode(text) for text in (source, target)]
    if tokens[0] == tokens[1]:
        raise UserError(
            f"{both} are {source!r} and {target!r}, which clip {clip.name!r} reads as one text, "
            f"{clip.tokenizer.decode(tokens[0]).strip()!r}: capitals and blanks do not count; expected two texts"
        )
    raise UserError(
        f"{both} differ only behind the {clip.context} tokens that clip {clip.name!r} reads, where "
        f"they are cut: they have {len(tokens[0])} and {len(tokens[1])} tokens; expected shorter texts"
    )
