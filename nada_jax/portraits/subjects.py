"""What is edited or redrawn: images, files of latents or seeds, each as latents with a name."""

import collections
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nada_jax.errors import UserError
from nada_jax.latents import codes as latent_files
from nada_jax.latents import seeds
from nada_jax.latents.codes import Codes
from nada_jax.latents.projection import Networks
from nada_jax.models.stylegan2 import Generator
from nada_jax.portraits import inversions
from nada_jax.portraits.settings import Clips, InversionSettings
from nada_jax.runs import items
from nada_jax.runs.items import Item
from nada_jax.runs.per_image import ImageRun
from nada_jax.settings import SEEDS, Truncation
from nada_jax.weights import native

MEAN = Item("mean")  # where the mode "free" starts


class Subjects(InversionSettings):
    """What is edited, and what every edit needs: fields of `configs/edit.py` beside those of `configs/invert.py`."""

    latents: str
    seeds: tuple[int, ...]
    truncation: Truncation
    clip: Clips

    def check(self) -> None:
        """There is one kind of subjects."""
        if len(given := self.given) > 1:
            raise UserError(f"{' and '.join(given)} are set; expected one of them")
        good = all(seed in SEEDS for seed in map(int, self.seeds))
        self.need(good, "seeds", "whole numbers in 0..2^32 - 1")

    @property
    def inverts(self) -> bool:
        """Whether the subjects are images, whose latents have to be found."""
        return not self.latents and not self.seeds

    @property
    def given(self) -> list[str]:
        """The fields that name subjects."""
        return [name for name in ("images", "latents", "seeds") if getattr(self, name)]


class Subject(NamedTuple):
    """An image by its latents, and what is known beside them.

    Attributes:
      item: its name and file.
      codes: its latents, b = 1.
      image: as it was given, aligned [size, size, 3]; None where only latents are known.
      tuned: the generator that was tuned for this image alone, or None.
      quad: the corners of the aligned image within the photograph [4, 2], or None.
      figures: of its inversion.
    """

    item: Item
    codes: Codes
    image: np.ndarray | None = None
    tuned: Generator | None = None
    quad: np.ndarray | None = None
    figures: Mapping[str, Any] = MappingProxyType({})


def listing(settings: Subjects, generator: Generator) -> list[Item]:
    """The subjects of the config, most of them not yet read.

    Raises:
      UserError: there are none, or a field that names them is wrong.
    """
    if settings.seeds:
        return [Item(f"seed_{int(seed):04d}") for seed in dict.fromkeys(settings.seeds)]
    if not settings.latents:
        return items.listing(settings.images or "avatars")
    found = []
    for item in items.listing(settings.latents, "latents", latent_files.ENDINGS):
        try:
            count = len(latent_files.read(item.path, generator, "latents"))
        except UserError:  # it is named when its turn comes
            count = 1
        names = [item.name] if count == 1 else [f"{item.name}_{i}" for i in range(count)]
        found += [Item(name, item.path) for name in names]
    counts = collections.Counter(item.name for item in found)
    if twice := [name for name, n in counts.items() if n > 1]:
        raise UserError(
            f"latents={settings.latents!r} holds two of the name {twice[0]!r}; expected names of their own"
        )
    return found


def gather(
    run: ImageRun, settings: Subjects, networks: Networks, todo: Sequence[Item]
) -> Iterator[Subject]:
    """Reads, draws or inverts what is to be edited, of `listing`; what cannot be read is skipped."""
    generator = networks.generator
    if settings.seeds:
        for item in todo:
            seed = np.array([item.name.removeprefix("seed_")]).astype(np.uint32)
            w = seeds.latents(generator, seed, settings.truncation)
            yield Subject(item, Codes(ws=generator.broadcast(w)))
    elif settings.latents:
        read = functools.partial(_read, generator=generator)
        yield from (subject for _, subject in run.read_all(todo, read))
    elif todo == [MEAN]:
        yield Subject(MEAN, Codes(ws=generator.broadcast(generator.latent_avg[None])))
    else:
        yield from inverted(run, settings, networks, todo)


def _read(item: Item, generator: Generator) -> Subject:
    """An item of a file of latents, with the generator that an inversion has tuned for it."""
    found = latent_files.read(item.path, generator, "latents")
    if len(found) > 1:  # `listing` has numbered them
        row = int(item.name.rpartition("_")[2])
        return Subject(item, found[row : row + 1])
    file = tuned_file(item)
    return Subject(item, found, tuned=file and read_tuned(file, generator))


def tuned_file(item: Item) -> Path | None:
    """The generator that `invert` has tuned for latents in its workdir's latents/; None where there is none."""
    folder = item.path.absolute().parent
    file = folder.parent / "tuned" / f"{item.path.stem}.safetensors"
    return file if folder.name == "latents" and file.is_file() else None


def read_tuned(path: Path, source: Generator) -> Generator:
    """The generator that was tuned for an image, of the source's precision.

    Raises:
      UserError: it cannot be read, or is of another architecture than the source.
    """
    tuned = native.read(Generator, path).replace(precision=source.precision)
    if tuned.architecture != source.architecture:
        raise UserError(
            f"{path} was not tuned from generator.weights: its architecture is another; expected the generator of that "
            "inversion"
        )
    return tuned


def inverted(
    run: ImageRun, settings: InversionSettings, networks: Networks, todo: Sequence[Item]
) -> Iterator[Subject]:
    """Inverts images; see `inversions.find`."""
    for item, aligned, found in inversions.find(run, settings, networks, todo):
        tuned = None if found.tuned is None else found.tuned[0]
        figures = {name: float(x[0]) for name, x in found.figures.items()}
        yield Subject(item, found.codes, aligned.image, tuned, aligned.quad, figures)


def batched(stream: Iterator[Subject], size: int) -> Iterator[list[Subject]]:
    """Up to `size` subjects at once whose latents are of one kind and which one generator draws."""
    batch: list[Subject] = []
    for subject in stream:
        fits = not batch or (
            jax.tree.structure(subject.codes) == jax.tree.structure(batch[0].codes)
            and subject.tuned is batch[0].tuned
        )
        if len(batch) == size or not fits:
            yield batch
            batch = []
        batch.append(subject)
    if batch:
        yield batch


def join(parts: Sequence[Codes]) -> Codes:
    """Latents of several images as one batch."""
    return jax.tree.map(lambda *x: jnp.concatenate(x), *parts)


@jax.jit
def _draw(generator: Generator, latents: Codes) -> jax.Array:
    return latents.draw(generator)


def draw(generator: Generator, latents: Codes) -> np.ndarray:
    """Images [b, size, size, 3]."""
    return np.asarray(_draw(generator, latents))
