"""Edits of latents by a text: StyleCLIP's latent optimisation (Patashnik et al. 2021, arXiv 2103.17249)."""

import functools
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import flax
import jax
import jax.numpy as jnp
import numpy as np

from nada_jax.errors import UserError
from nada_jax.latents.codes import Codes
from nada_jax.latents.descent import EVERY, Descent, Figures
from nada_jax.latents.spaces import SPACES, Variables, distance
from nada_jax.losses.identity import identity
from nada_jax.models.clip import Clip
from nada_jax.models.irse import Irse50
from nada_jax.models.stylegan2 import Generator
from nada_jax.models.stylegan2_networks import Styles
from nada_jax.settings import Count, NonNegative, Positive, Section, one_of

VIEWS = "proper", "official"  # of images, for CLIP
GRID = 32  # the official view cuts an image into as many cells a side, and makes pixels of them


class Edit(Section, name="edit"):
    """How latents are optimised towards a text; `config.edit`."""

    text: str
    mode: Annotated[str, one_of(("edit", "free"))]
    space: Annotated[str, one_of(SPACES)]
    steps: Count
    lr: Positive
    l2: NonNegative
    identity: NonNegative
    view: Annotated[str, one_of(VIEWS)]


@flax.struct.dataclass
class Guides:
    """The networks that an edit listens to.

    Attributes:
      clips: n of them; their text towers are not needed.
      weights: of their distances to the text, n numbers.
      identity: whose features of faces shall stay, an `Irse50` or anything else with `embed_images`; or None.
    """

    clips: tuple[Clip, ...]
    weights: tuple[float, ...]
    identity: Irse50 | Clip | None = None


def official_pixels(clip: Clip, images: jax.Array) -> jax.Array:
    """What StyleCLIP shows to CLIP: nearest upsampling by r / 32, means over size / 32 pixels, values in -1..1.

    The official factor is 7, for a CLIP that reads r = 224 pixels.

    Args:
      clip: which reads a multiple of 32 pixels.
      images: [b, size, size, 3] in [-1, 1], of a multiple of 32 pixels.

    Returns:
      [b, r, r, 3].
    """
    matrix = _areas(images.shape[1], clip.image_size)
    return jnp.einsum("rh,bhwc,sw->brsc", matrix, images, matrix, precision="highest")


@functools.cache
def _areas(size: int, side: int) -> np.ndarray:
    """Upsampling and means along one axis as a matrix [side, size], which needs no image of 7 * size pixels."""
    enlarged = np.repeat(np.eye(size, dtype=np.float32), side // GRID, axis=0)
    return enlarged.reshape(side, size // GRID, size).mean(axis=1)


def check_view(view: str, clips: Sequence[Clip], size: int) -> None:
    """Refuses the official view where images or a CLIP do not divide as it needs; UserError."""
    sides = {f"clip {clip.name!r}": clip.image_size for clip in clips} | {"the generator": size}
    for what, side in sides.items():
        if view == "official" and side % GRID:
            raise UserError(
                f"edit.view is 'official', which needs images in multiples of {GRID} pixels, and those of {what} have "
                f"{side}; expected edit.view=proper"
            )


def embed_text(guides: Sequence[Clip], text: str) -> tuple[jax.Array, ...]:
    """Unit features [1, d] of a bare text, as StyleCLIP has it, in each clip.

    Raises:
      UserError: the text is blank.
    """
    if not text.strip():
        raise UserError(
            f"edit.text is blank ({text!r}); expected words such as 'a person with red hair'"
        )
    return tuple(clip.embed_texts([text]) for clip in guides)


@flax.struct.dataclass
class Context:
    """What the loss reads beside its variables, which start at `variables`; `faces` are features of their faces."""

    generator: Generator
    guides: Guides
    start: Codes
    variables: Variables
    texts: tuple[jax.Array, ...]
    l2: jax.Array
    identity: jax.Array
    faces: jax.Array | None


def edit(
    generator: Generator,
    guides: Guides,
    start: Codes,
    texts: Sequence[jax.Array],
    *,
    space: str = "w+",
    view: str = "proper",
    lr: float | np.ndarray,
    steps: int | np.ndarray,
    l2: float | np.ndarray,
    identity: float | np.ndarray = 0.0,
    every: int = EVERY,
    report: Callable[[int, float, float], None] | None = None,
) -> tuple[Codes, dict[str, np.ndarray], list[dict[str, Any]]]:
    """Moves latents until CLIP sees a text in their images, Patashnik et al. 2021, eq. 1.

    The loss of a row is sum_i weight_i (1 - cos_i(image, text)) + l2 |w - w_0|^2 + identity (1 - <f, f_0>). All
    numbers may be given for each row, so that a whole grid of settings is one program.

    Args:
      generator: draws.
      guides: see `Guides`.
      start: latents of b images.
      texts: unit features in each clip, [b, d] or [1, d].
      space: a key of `SPACES`; latents that are styles can be edited in those of styles alone.
      view: "proper", which shows images to CLIP as it was trained, or "official", see `official_pixels`.
      lr: peak of the learning rate, [b] or one number.
      steps: [b] or one number.
      l2: weight of the squared distance in the space, [b] or one number.
      identity: weight of the change of the face, [b] or one number; without effect where `guides` have no network.
      every, report: see `Descent.run`.

    Returns:
      The latents; `loss`, `clip` (the weighted distances to the text), `l2` (|w - w_0|^2) and `identity` (1 - <f, f_0>)
      before the last step, [b] each; and the same after each report.

    Raises:
      UserError: the latents are styles and the space has none, or the view does not fit.
    """
    check_view(view, guides.clips, generator.size)
    rows = len(start)
    if start.styles is not None and "style" not in space:
        raise UserError(
            f"edit.space is {space!r}, but the latents are styles; expected style or conv_style"
        )
    context = prepare(generator, guides, start, texts, space, l2=l2, identity=identity)
    keys = jax.random.split(jax.random.key(0), rows)  # nothing is random here
    variables, figures, history = descent_of(space, view).run(
        context.variables, context, peaks=lr, steps=steps, keys=keys, every=every, report=report
    )
    styles = _styles(space, generator, variables, start)
    if "style" in space:
        return Codes(styles=styles, noise=start.noise), figures, history
    return Codes(ws=generator.broadcast(variables), noise=start.noise), figures, history


def prepare(
    generator: Generator,
    guides: Guides,
    start: Codes,
    texts: Sequence[jax.Array],
    space: str,
    *,
    l2: float | np.ndarray,
    identity: float | np.ndarray,
) -> Context:
    """All that the loss reads; see `edit` for the arguments."""
    rows = len(start)
    variables, faces = _begin(generator, guides.identity, start, space)
    return Context(
        generator=generator,
        guides=guides,
        start=start,
        variables=variables,
        texts=tuple(jnp.broadcast_to(x, (rows, x.shape[-1])) for x in texts),
        l2=jnp.broadcast_to(jnp.asarray(l2, jnp.float32), rows),
        identity=jnp.broadcast_to(jnp.asarray(identity, jnp.float32), rows),
        faces=faces,
    )


@functools.partial(jax.jit, static_argnums=3)
def _begin(
    generator: Generator, network: Irse50 | Clip | None, start: Codes, space: str
) -> tuple[Variables, jax.Array | None]:
    """The variables at the start, and the features of their faces."""
    if start.styles is None:
        variables = SPACES[space].start(generator, start.ws)
    else:
        whole = space == "style"
        variables = {k: s for k, s in start.styles.items() if whole or k.startswith("conv")}
    if network is None:
        return variables, None
    return variables, network.embed_images(draw(space, generator, variables, start))


def draw(space: str, generator: Generator, variables: Variables, start: Codes) -> jax.Array:
    """Images [b, size, size, 3] of variables that started at latents."""
    styles = _styles(space, generator, variables, start)
    return generator.synthesize_styles(styles, start.noise or "const")


def _styles(space: str, generator: Generator, variables: Variables, start: Codes) -> Styles:
    if start.styles is not None:
        return start.styles | variables
    return SPACES[space].styles(generator, variables, start.ws)


@functools.cache  # compiled once for all batches
def descent_of(space: str, view: str) -> Descent:
    def loss(
        variables: Variables, context: Context, share: jax.Array, keys: jax.Array
    ) -> tuple[jax.Array, Figures]:
        guides, start = context.guides, context.start
        images = draw(space, context.generator, variables, start)
        towards = 0.0
        for clip, weight, text in zip(guides.clips, guides.weights, context.texts, strict=True):
            pixels = official_pixels(clip, images) if view == "official" else clip.pixels(images)
            features = clip.embed_pixels(pixels)
            towards += weight * (1 - jnp.sum(features * text, axis=1))
        figures = {"clip": towards, "l2": distance(variables, context.variables)}
        total = towards + context.l2 * figures["l2"]
        if guides.identity is not None:
            figures["identity"] = identity(context.faces, guides.identity.embed_images(images))
            total += context.identity * figures["identity"]
        return total, figures

    return Descent(loss)
