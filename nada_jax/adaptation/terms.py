"""The terms of the loss: one table, which the step, the config, the plots and the metrics read.

A term is added by its function in `nada_jax.losses`, a row here and its factor in `configs/default.py`; a term with a
network of its own also has a section of the config, which says where its weights are.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import jax

from nada_jax.adaptation.distillation import Distillation, Sds
from nada_jax.adaptation.style import Style, StyleTarget
from nada_jax.losses import clip as clip_losses
from nada_jax.losses import identity, pixel
from nada_jax.models.irse import Irse50
from nada_jax.models.vgg import Vgg
from nada_jax.settings import Rule, Section
from nada_jax.weights import loading

# The official crops of 510 pixels are a fraction of 1024; generators of other sizes need the fraction.
FRACTION = Rule(lambda x: 0 < x <= 1, "a share above 0, up to 1")


class Patch(Section, name="patch"):
    """The crops of the term "patch"; `config.patch`."""

    fraction: Annotated[float, FRACTION]


@dataclasses.dataclass(frozen=True)
class Network:
    """A network that a term needs, and what it compares images with.

    Attributes:
      needs: fields of the term's section that may not be empty while the term is on, and what each has to name.
      load: the section, and by name what else it reads -> what the loss gets: a tree of arrays that jit takes as an
        argument.
      reads: fields and sections of the whole config that `load` gets beside the section.
    """

    needs: Mapping[str, str]
    load: Callable[..., Any]
    reads: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Term:
    """A row of the table.

    Attributes:
      loss: gives a loss for each image, [b], from what the term sees:
      sees: "images": loss(source, adapted) of images [b, h, w, 3];
        "network": loss(network, source, adapted) of the same;
        "features": loss(source, adapted, targets) of unit CLIP features [b, d], summed over the CLIPs by weight;
        "crops": the same of crops from equal places.
      leads: whether it draws images towards the target; the others hold them back.
      draws: whether the loss draws random numbers: it gets a key of the step as its last argument; for "network".
      section: its own section of the config, which bears its name, if any.
      network: the network that it needs, if any.
    """

    loss: Callable[..., jax.Array]
    sees: str
    leads: bool = False
    draws: bool = False
    section: type[Section] | None = None
    network: Network | None = None


class Weights(Section):
    """The section of a term whose network is a file; `config.TERM`."""

    weights: str


def _with_file(
    name: str, loss: Callable[..., jax.Array], what: str, load: Callable[..., Any]
) -> Term:
    """A term whose network is a file: `load` reads it, given its name in messages as `field`."""
    network = Network(
        {"weights": what}, lambda section: load(section.weights, field=section.path("weights"))
    )
    return Term(loss, "network", section=Weights.extended({}, name), network=network)


def _identity(network: Irse50, source: jax.Array, adapted: jax.Array) -> jax.Array:
    return identity.identity(network.embed_images(source), network.embed_images(adapted))


# The order is that of the sum, which decides the last bits of the loss. The functions of `losses` take features and
# directions alone; which of the targets each needs is said here.
TERMS = {
    "l2": Term(pixel.l2, "images"),
    "lpips": _with_file(
        "lpips", Vgg.lpips, "a VGG-16 with the layers of LPIPS", loading.load_lpips
    ),
    "identity": _with_file(
        "identity", _identity, "an irse50", functools.partial(loading.load_model, Irse50)
    ),
    "directional": Term(
        lambda s, a, targets: clip_losses.directional(s, a, targets.direction),
        "features",
        leads=True,
    ),
    "global_": Term(
        lambda s, a, targets: clip_losses.global_(a, targets.target), "features", leads=True
    ),
    "manifold": Term(
        lambda s, a, targets: clip_losses.manifold(s, a, targets.cosine), "features", leads=True
    ),
    "angle": Term(lambda s, a, targets: clip_losses.angle(s, a), "features"),
    "patch": Term(
        lambda s, a, targets: clip_losses.patch(s, a, targets.parts),
        "crops",
        leads=True,
        section=Patch,
    ),
    "style": Term(
        StyleTarget.loss,
        "network",
        leads=True,
        section=Style,
        network=Network(
            {"weights": "a VGG", "images": "a file or a folder of style images"}, StyleTarget.load
        ),
    ),
    "sds": Term(
        Distillation.loss,
        "network",
        leads=True,
        draws=True,
        section=Sds,
        network=Network(
            {"weights": "a diffusion model"}, Distillation.load, reads=("text", "precision")
        ),
    ),
}
OF_CLIPS = ("features", "crops")  # what terms see through the CLIPs
LEADING = [name for name, term in TERMS.items() if term.leads]
