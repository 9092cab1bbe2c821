"""Latent mappers of StyleCLIP."""

import re
from pathlib import Path

from convert import encoder, rules
from convert.rules import DENSE, Match
from nada_jax.errors import UserError
from nada_jax.models.mapper import Mapper

# Official names; the official spelling is "course", and a SingleMapper has one network for all.
LEVELS = {
    "course_mapping": "coarse",
    "medium_mapping": "medium",
    "fine_mapping": "fine",
    "mapping": "all",
}
# Official numbers start at 1: layer 0 is the normalisation, which has no weights.
RULES = [
    rule
    for official, level in LEVELS.items()
    for rule in rules.layer(
        f"mapper.{official}.mapping.{{n}}", f"{level}.dense_{{n-1}}", DENSE, "weight"
    )
]


def to_native(official: rules.Arrays, what: str) -> tuple[Mapper, list[Match]]:
    """Converts the state dict of a mapper, "mapper.…" -> array; see `rules.build`.

    Levels that were not trained are absent. UserError for the mappers of StyleSpace, by name.
    """
    # They have a network for each layer of the generator: mapper_0, mapper_1, ...
    if official and all(re.match(r"mapper\.mapper_\d+\.", key) for key in official):
        raise UserError(
            f"{what} holds a mapper of StyleSpace (FullStyleSpaceMapper or WithoutToRGBStyleSpaceMapper), which is "
            "not supported; expected a mapper of latents: LevelsMapper or SingleMapper"
        )
    return rules.build(Mapper, RULES, official, what)


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
    return to_native(encoder.part(path, "mapper").arrays, str(path))
