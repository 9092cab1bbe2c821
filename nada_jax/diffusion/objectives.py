"""What guides a drawing: losses of the image that is about to be drawn, one row of a table each."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Self

import flax
import jax
import jax.numpy as jnp
import numpy as np

from nada_jax.errors import UserError
from nada_jax.losses import clip as clip_losses
from nada_jax.losses import pixel
from nada_jax.losses import style as styles
from nada_jax.models.clip import Clip, unit
from nada_jax.models.vgg import Vgg
from nada_jax.settings import NonNegative, Rule, Section
from nada_jax.weights import loading

LARGEST = 4096  # pixels of a side; more would be a slip, and fill the memory
Side = Annotated[int, Rule(lambda x: 0 <= x <= LARGEST, f"pixels of a side, 0 to {LARGEST}")]
# A shorter difference of two unit features is rounding; texts that a CLIP tells apart are 0.1 to 1.3 apart.
LEAST = 1e-3


@flax.struct.dataclass
class Sources:
    """What targets are made from, and losses look with.

    Attributes:
      vgg, clip: networks, as far as they are needed.
      reference: style images [1 or b, h, w, 3].
      content: images [1 or b, h, w, 3], as large as those that are drawn.
      texts: unit features [d] of `text_source` and `text_target`.
    All but the networks may be left out where losses look.
    """

    vgg: Vgg | None
    clip: Clip | None
    reference: jax.Array | None = None
    content: jax.Array | None = None
    texts: dict[str, jax.Array] | None = None


@dataclasses.dataclass(frozen=True)
class View:
    """How a VGG looks at images: the layers that describe a style, and its side in pixels; 0 for that of the images."""

    layers: tuple[str, ...]
    size: int

    def of(self, images: jax.Array) -> jax.Array:
        """Images [b, h, w, 3] at that size."""
        b, side = len(images), self.size
        return jax.image.resize(images, (b, side, side, 3), "cubic") if side else images


@dataclasses.dataclass(frozen=True)
class Objective:
    """A row of the table.

    Attributes:
      needs: fields of the section that may not be empty while its factor is above 0.
      target: (view, sources) -> what images are compared with; arrays have a row for all images or for each.
      loss: (view, networks, target, images [b, h, w, 3]) -> [b].
    """

    needs: tuple[str, ...]
    target: Callable[[View, Sources], Any]
    loss: Callable[[View, Sources, Any, jax.Array], jax.Array]


# What fields have to name where they are needed.
NEEDS = {
    "reference": "a style image",
    "content": "an image",
    "text_source": "words for what the content shows, such as 'photo'",
    "text_target": "words such as 'pencil sketch'",
    "vgg": "a VGG, such as 'lpips'",
    "clip": "a CLIP, such as 'avatar-p8'",
    "layers": "names of layers",
}


def describe(
    vgg: Vgg, kind: str, layers: tuple[str, ...], images: jax.Array
) -> dict[str, styles.Statistics]:
    """The style of images [b, h, w, 3]: layer -> statistics of its features, in units of pixel values in 0..255."""
    found = vgg.features(images, layers)
    ones = jnp.ones((1, 1, 1))
    rule = styles.KINDS[kind]
    return {x: rule.statistics(rule.sums(found[x] * vgg.architecture.unit, ones)) for x in layers}


def _style(kind: str) -> Objective:
    """Distance from the style of the reference, as a share of its length, over layers."""

    def target(view: View, sources: Sources) -> Any:
        seen = view.of(sources.reference)
        found = describe(sources.vgg, kind, view.layers, seen)
        return styles.with_length(kind, found)

    def loss(view: View, sources: Sources, target: Any, images: jax.Array) -> jax.Array:
        found = describe(sources.vgg, kind, view.layers, view.of(images))
        return styles.relative(kind, found, *target)

    return Objective(("reference", "vgg", "layers"), target, loss)


def _direction_target(view: View, sources: Sources) -> dict[str, jax.Array]:
    return {
        "content": sources.clip.embed_images(sources.content),
        "direction": unit(sources.texts["text_target"] - sources.texts["text_source"]),
    }


def _direction(
    view: View, sources: Sources, target: dict[str, jax.Array], images: jax.Array
) -> jax.Array:
    features = sources.clip.embed_images(images)
    return clip_losses.directional(target["content"], features, target["direction"])


OBJECTIVES = {
    **{kind: _style(kind) for kind in styles.KINDS},
    "direction": Objective(
        ("content", "clip", "text_source", "text_target"), _direction_target, _direction
    ),
    "similarity": Objective(
        ("clip", "text_target"),
        lambda view, sources: sources.texts["text_target"],
        lambda view, sources, text, images: clip_losses.global_(
            sources.clip.embed_images(images), text
        ),
    ),
    "l2": Objective(
        ("content",),
        lambda view, sources: sources.content,
        lambda view, sources, content, images: pixel.l2(content, images),
    ),
    "lpips": Objective(
        ("content", "vgg"),
        lambda view, sources: sources.vgg.lpips_target(view.of(sources.content)),
        lambda view, sources, target, images: sources.vgg.lpips_from(target, view.of(images)),
    ),
}


class Loss(Section, name="guidance.loss"):
    """The factor of each objective, a field for each row of the table; 0 leaves it out."""

    @property
    def factors(self) -> dict[str, float]:
        """The factors above 0, by objective."""
        factors = {name: getattr(self, name) for name in OBJECTIVES}
        return {name: factor for name, factor in factors.items() if factor}


Loss = Loss.extended(dict.fromkeys(OBJECTIVES, NonNegative))


class Goals(Section, name="guidance"):
    """What guides a drawing; part of `config.guidance`.

    Fields:
      loss: factors.
      reference: an image whose style counts; content: one that images are held to, or edited from.
      text_source, text_target: what the content shows, and what is to be seen.
      vgg, clip: networks that look.
      layers: of the VGG, for styles.
      size: side in pixels at which the VGG looks; 0 for that of the images.
    """

    loss: Loss
    reference: str
    content: str
    text_source: str
    text_target: str
    vgg: str
    clip: str
    layers: tuple[str, ...]
    size: Side

    @property
    def needed(self) -> frozenset[str]:
        """Fields that the objectives need, such as "reference"."""
        return frozenset(x for name in self.loss.factors for x in OBJECTIVES[name].needs)

    def check(self) -> None:
        """Something guides, and what it needs is given."""
        if not self.loss.factors:
            raise UserError(
                f"all of guidance.loss ({', '.join(OBJECTIVES)}) are 0; expected one above 0, or guidance.weight=0"
            )
        for name in self.loss.factors:
            for field in OBJECTIVES[name].needs:
                value = getattr(self, field)
                good = bool(value.strip() if isinstance(value, str) else value)
                self.need(good, field, f"{NEEDS[field]}, which guidance.loss.{name} needs")
        self.need(len(set(self.layers)) == len(self.layers), "layers", "names of layers, each once")


@flax.struct.dataclass
class Guide:
    """The networks and targets of a guidance; make one with `Guide.load`.

    Attributes:
      sources: the networks.
      targets: objective -> what images are compared with.
      factors: objective -> its factor, [].
      view: how the VGG looks.
    """

    sources: Sources
    targets: dict[str, Any]
    factors: dict[str, jax.Array]
    view: View = flax.struct.field(pytree_node=False)

    @classmethod
    def load(
        cls,
        section: Goals,
        side: int,
        *,
        reference: np.ndarray | None = None,
        content: np.ndarray | None = None,
    ) -> Self:
        """Loads the networks, and describes images and texts.

        Args:
          section: the settings.
          side: of the images that are drawn, in pixels.
          reference, content: images [1 or b, h, w, 3] in [-1, 1], as far as they are needed; `content` of `side` pixels.

        Raises:
          UserError: a network cannot be loaded, or cannot see images of this size; or the CLIP sees no difference
            between the two texts.
        """
        needed, factors = section.needed, section.loss.factors
        vgg = clip = None
        if "vgg" in needed:
            load = loading.load_lpips if "lpips" in factors else loading.load_vgg
            vgg = load(section.vgg, field=section.path("vgg"))
            known = vgg.architecture.layers()
            good = "layers" not in needed or set(section.layers) <= set(known)
            section.need(good, "layers", f"some of {', '.join(known)}, those of {section.vgg}")
        texts = {}
        if "clip" in needed:
            clip = loading.load_clip(section.clip, field=section.path("clip"))
            for field in ("text_source", "text_target"):
                if field in needed:
                    texts[field] = clip.embed_texts([getattr(section, field)])[0]
            if len(texts) == 2:
                _check_apart(section, texts)
            clip = clip.without_texts()
        if "content" in needed and content.shape[1:3] != (side, side):
            raise UserError(
                f"guidance.content has {content.shape[1]} x {content.shape[2]} pixels; expected {side} x {side}, as "
                "the images that are drawn"
            )
        sources = Sources(vgg, clip, reference, content, texts)
        targets, view = {}, View(section.layers, section.size)
        try:
            for name in factors:
                # Compiled: one by one, operations take longer.
                make = jax.jit(functools.partial(OBJECTIVES[name].target, view))
                targets[name] = make(sources)
            found = cls(Sources(vgg, clip), targets, jax.tree.map(jnp.float32, factors), view)
            jax.eval_shape(found.losses, jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32))
        except UserError as error:
            looked = section.size or f"0, and images have {side} pixels"
            raise UserError(f"guidance.size is {looked}: {error}") from error
        return found

    @property
    def names(self) -> tuple[str, ...]:
        """The objectives."""
        return tuple(self.factors)

    def losses(self, images: jax.Array) -> dict[str, jax.Array]:
        """Objective -> loss of images [b, h, w, 3], without its factor, [b]."""
        return {
            name: OBJECTIVES[name].loss(self.view, self.sources, self.targets[name], images)
            for name in self.factors
        }

    def total(self, losses: dict[str, jax.Array]) -> jax.Array:
        """The sum of `losses` by their factors, [b]."""
        return sum(factor * losses[name] for name, factor in self.factors.items())


def _check_apart(section: Goals, texts: Mapping[str, jax.Array]) -> None:
    """Refuses two texts that are the same to the CLIP."""
    if not jnp.linalg.norm(texts["text_target"] - texts["text_source"]) >= LEAST:
        raise UserError(
            f"clip {section.clip!r} sees no difference between guidance.text_source={section.text_source!r} and "
            f"guidance.text_target={section.text_target!r}; expected texts that differ more"
        )
