"""The two generators of an evaluation: which they are, by which texts, and both of them loaded."""

from nada_jax.errors import UserError
from nada_jax.models.stylegan2 import Generator
from nada_jax.settings import Section
from nada_jax.weights import lineage, loading, registry
from nada_jax.weights.lineage import Lineage

# The target text for a generator by name, which nobody adapted: a control with a change of zero.
CONTROL_TARGET = "pencil sketch"


class Adapted(Section, name="generator"):
    """The adapted generator; `config.generator`."""

    weights: str


class Source(Section, name="source"):
    """What it was adapted from; `config.source`. "" leaves it to the header of the adapted file."""

    weights: str


class Text(Section, name="text"):
    """The texts of the adaptation; `config.text`. "" leaves one to the header of the adapted file."""

    source: str
    target: str


def trace(adapted: Adapted, source: Source, text: Text) -> Lineage:
    """Finds out what was adapted to what, and which CLIPs took part in it.

    The config comes first, then the header of the adapted generator's file.

    Returns:
      The lineage; its source and both texts are known.

    Raises:
      UserError: neither the config nor the header names the source or a text, or the header is garbled.
    """
    known = _known(adapted.weights)
    given = text.source, text.target
    texts = tuple(own or header for own, header in zip(given, known.texts, strict=True))
    found = Lineage(source.weights or known.source, texts, known.clips)
    _refuse_unknown(found.source, "source.weights", adapted, "a generator")
    for field, value in zip(("text.source", "text.target"), texts, strict=True):
        _refuse_unknown(value, field, adapted, "a text")
    return found


def load_pair(adapted: str, source: str, precision: str) -> tuple[Generator, Generator]:
    """Loads the source and the adapted generator.

    Args:
      adapted, source: names or files; see `loading.load_generator`.
      precision: in which both compute.

    Returns:
      (source, adapted).

    Raises:
      UserError: one cannot be loaded, or the two cannot share latents.
    """
    names = {"source.weights": source, "generator.weights": adapted}
    pair = [
        loading.load_generator(name, precision=precision, field=field)
        for field, name in names.items()
    ]
    # Widths of channels may differ; the latents of both have to be the same points of one space.
    shapes = [(g.num_layers, g.architecture.w_dim) for g in pair]
    if shapes[0] != shapes[1]:
        raise UserError(
            " and ".join(
                f"{field}={name!r} (latents of {layers} x {w_dim})"
                for (field, name), (layers, w_dim) in zip(names.items(), shapes, strict=True)
            )
            + " cannot draw the same latents; expected a generator and its source"
        )
    return pair[0], pair[1]


def _known(name: str) -> Lineage:
    """What the name or the file of a generator says about its origin."""
    path = loading.find_generator(name)
    if entry := registry.GENERATORS.get(name):
        return Lineage(name, (entry.source_text, CONTROL_TARGET), ())
    if name in registry.EMBEDDED:
        return Lineage(name, (registry.EMBEDDED[name][2], CONTROL_TARGET), ())
    # Official files have no header to read.
    return lineage.read(path) if path.suffix.lower() == ".safetensors" else Lineage()


def _refuse_unknown(value: str, field: str, adapted: Adapted, expected: str) -> None:
    if not value:
        raise UserError(
            f"{field} is empty, and the file of generator.weights={adapted.weights!r} does not name it; "
            f"expected {expected}"
        )
