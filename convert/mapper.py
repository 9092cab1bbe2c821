"""Latent mappers of StyleCLIP."""

from pathlib import Path

from convert import encoder, rules
from convert.rules import DENSE, Match, Rule
from nada_jax.models.mapper import Mapper, MapperArchitecture
from nada_jax.weights import loading as weights

# Official names; the official spelling is "course", and a SingleMapper has one network for all.
LEVELS = {
    "course_mapping": "coarse",
    "medium_mapping": "medium",
    "fine_mapping": "fine",
    "mapping": "all",
}
RULES = [
    rule
    for official, level in LEVELS.items()
    for rule in (
        Rule(f"mapper.{official}.mapping.{{n}}.weight", f"{level}.dense_{{n-1}}.weight", DENSE),
        Rule(f"mapper.{official}.mapping.{{n}}.bias", f"{level}.dense_{{n-1}}.bias"),
    )
]


def to_native(official: rules.Arrays, what: str) -> tuple[Mapper, list[Match]]:
    """Converts the state dict of a mapper.

    Args:
      official: "mapper.…" -> array in PyTorch layout; levels that were not trained are absent.
      what: how messages call it.

    Returns:
      The mapper, and each key's way.

    Raises:
      UserError: what does not fit, all in one message.
    """
    native, matches = rules.apply(
        RULES, official, what=what, expected=lambda x: MapperArchitecture.from_shapes(x).shapes()
    )
    return weights.model_from_arrays(Mapper, native), matches


def read(path: Path) -> tuple[Mapper, list[Match]]:
    """Reads an official file: {"state_dict", "opts"}.

    Keys that start with "decoder." are left out: `convert.stylegan2` reads that generator.

    Args:
      path: the file.

    Returns:
      The mapper, and each key's way.

    Raises:
      UserError: the file is damaged, holds no mapper, or one that does not fit.
    """
    official, _ = encoder.part(path, "mapper")
    return to_native(official, str(path))
