"""The domains of one source: generators adapted from it, by file, by the name of a recipe, or as style deltas."""

import re
import warnings
from collections.abc import Sequence
from pathlib import Path

from nada_jax import files
from nada_jax.errors import UserError
from nada_jax.models.style_delta import StyleDelta, shift
from nada_jax.models.stylegan2 import Generator
from nada_jax.weights import lineage, loading, native, presets, registry
from nada_jax.weights.presets import GENERATOR, PREFIX, RUNS

RECIPES = (  # those that ship
    "sketch", "joker", "zombie", "golden_statue", "robot", "stained_glass",
)  # fmt: skip
OFFICIAL = "_ffhq"  # after the name of a recipe: its variant for the official generator
# Files that every run calls the same, so that its folder tells more.
OF_RUNS = ("generator", "style_delta")
SAFE = re.compile(r"[^\w.-]+")  # what names of files had better not have


def load(
    given: Sequence[str],
    source: Generator,
    weights: str,
    *,
    field: str = "generators",
) -> dict[str, tuple[Generator, Path]]:
    """Loads domains.

    Args:
      given: each "preset:NAME" or "run:NAME" (see `presets`), the name of a recipe that has been run ("sketch"), a
        workdir of `adapt`, the file of an adapted generator or its published name, or the file of a style delta,
        which is added to the source.
      source: what they were adapted from; they get its precision.
      weights: its name or file.
      field: how messages call `given`.

    Returns:
      A name, unique, that files can have -> the generator and its file. The name is that of the file, or that of its
      folder without "nada_" where every run calls its file so.

    Raises:
      UserError: there is no such file or recipe, or it is not of the source's architecture.
    """
    domains: dict[str, tuple[Generator, Path]] = {}
    for one in given:
        path = find(one, field)
        name = plain = _name(path)
        taken = {x.casefold() for x in domains}  # as file systems compare that ignore case
        for number in range(2, len(given) + 1):
            if name.casefold() not in taken:
                break
            name = f"{plain}_{number}"
        domains[name] = _load(path, source, weights, f"{field} has {one!r}"), path
    return domains


def find(given: str, field: str = "generators") -> Path:
    """The file behind a domain; UserError where there is none."""
    said = f"{field} has {given!r}"
    if not given:
        raise UserError(
            f"{said}; expected files of adapted generators, or recipes: {', '.join(RECIPES)}"
        )
    if file := presets.find_file(given, field):
        return file
    files.check_local(given, said)
    path = files.expand(given)
    recipe = re.fullmatch(r"\w+", given) is not None
    for file in (
        path,
        path / GENERATOR,
        *([RUNS / f"{PREFIX}{given}" / GENERATOR] if recipe else []),
    ):
        try:
            if file.is_file():
                return file
        except OSError as error:
            raise UserError(f"{said}, which cannot be read: {error.strerror}") from error
    if (
        given in registry.EMBEDDED or given in registry.GENERATORS
    ):  # metfaces, adapted from ffhq1024
        return loading.find_generator(given, field)
    if given.removesuffix(OFFICIAL) in RECIPES:
        name, variant = given.removesuffix(OFFICIAL), ":ffhq" if given.endswith(OFFICIAL) else ""
        ships = f", and preset:{given} ships" if given in presets.names() else ""
        raise UserError(
            f"{said}, a recipe that has not been run here ({RUNS / (PREFIX + given)} has no generator.safetensors); "
            f"`python main.py --config=configs/{PREFIX}{name}.py{variant}` makes it{ships}"
        )
    if path.is_dir():
        raise UserError(
            f"{said}, a folder without generator.safetensors; expected a workdir of an adaptation"
        )
    raise UserError(
        f"{said}, which is neither a file nor one of the recipes {', '.join(RECIPES)}; expected the file of an "
        "adapted generator"
    )


def _name(path: Path) -> str:
    name = path.stem
    if name in OF_RUNS and (folder := path.absolute().parent.name):
        name = folder.removeprefix(PREFIX) or folder
    return SAFE.sub("_", name).strip("_.") or "domain"


def _load(path: Path, source: Generator, weights: str, said: str) -> Generator:
    """The generator of a domain, of the source's precision."""
    kind = native.kind_of(path)
    if kind == StyleDelta.KIND:
        try:
            adapted = shift(source, loading.load_model(StyleDelta, path))
        except UserError as error:
            raise UserError(f"{said}: {error}") from error
    else:
        adapted = loading.load_model(Generator, path, field="generators")
        adapted = adapted.replace(precision=source.precision)
    if adapted.architecture != source.architecture:
        raise UserError(
            f"{said}, whose architecture ({_described(adapted)}) is not that of generator.weights={weights!r} "
            f"({_described(source)}); expected generators adapted from it"
        )
    origin = lineage.read(path).source if kind else ""
    if origin and not _same(origin, weights):
        warnings.warn(
            f"{said}, which was adapted from {origin!r} and not from generator.weights={weights!r}; its images will "
            "look right only where these two are the same generator",
            stacklevel=2,
        )
    return adapted


def _described(generator: Generator) -> str:
    it = generator.architecture
    return f"{it.size} pixels, widths {it.channels}, w of {it.w_dim}, {it.mapping_layers} mapping layers"


def _same(one: str, other: str) -> bool:
    """Whether two names or files are one generator, as far as can be told without fetching any."""
    if one == other:
        return True
    try:
        return files.expand(one).samefile(files.expand(other))
    except OSError:
        return False
