"""Inverts images: finds the latents from which a generator draws them."""

import dataclasses
import functools
import itertools
import time
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from nada_jax import images
from nada_jax.errors import UserError
from nada_jax.latents import codes
from nada_jax.latents.inversion import Invert, Inverted, Networks, invert
from nada_jax.photos.align import Align, Aligned, align_photo
from nada_jax.runs.per_image import ImageRun, Item, listing
from nada_jax.runs.progress import Progress
from nada_jax.settings import Count, Precision, Section, Seed
from nada_jax.weights import loading, native

MEMORY = "lower batch_size, or set precision=bfloat16"  # the remedy for a lack of it
RESULTS = (
    "aligned/*.png", "latents/*.npz", "reconstructions/*.png", "strips/*.png", "tuned/*.safetensors",
)  # fmt: skip
FIGURES = (
    "mse",
    "lpips",
    "identity",
    "clip",
    "seconds",
)  # of the last line, as far as there are any
LOOK = 256  # pixels of an image in a strip at least


class Source(Section, name="generator"):
    """The generator; `config.generator`."""

    weights: str


class Encoding(Section, name="encoder"):
    """The encoder, and its passes where it is iterative; `config.encoder`. "" leaves it out."""

    weights: str
    steps: Count


class Perception(Section, name="lpips"):
    """The perceptual distance; `config.lpips`. "" leaves it out."""

    weights: str


class Identity(Section, name="identity"):
    """The network of the figure `identity`; `config.identity`. "" leaves it out."""

    weights: str


class Settings(Section):
    """All of `configs/invert.py`."""

    task: str
    images: str
    overwrite: bool
    seed: Seed
    precision: Precision
    batch_size: Count
    generator: Source
    encoder: Encoding
    lpips: Perception
    identity: Identity
    judge: str
    align: Align
    invert: Invert


def run(config: ConfigDict, workdir: Path) -> int:
    """Inverts images as configured; see `configs/invert.py`.

    Writes config.json, metrics.jsonl, and for each image NAME aligned/NAME.png, latents/NAME.npz,
    reconstructions/NAME.png, strips/NAME.png (image, reconstruction, and that of the tuned generator), and by the
    method "pti" tuned/NAME.safetensors.

    Args:
      config: all of `configs/invert.py`.
      workdir: where the results go.

    Returns:
      The exit code: 0, or 2 where an image could not be done.

    Raises:
      UserError: wrong input; nothing is written then.
    """
    settings = Settings.read(config)
    items = listing(settings.images)
    with ImageRun(config, workdir, items, results=RESULTS) as run:
        todo = run.todo()
        if todo:
            networks = load(settings)
            for item, aligned, inverted in find(run, settings, networks, todo):
                write(run, settings, item, aligned, inverted)
        report(run)
        return run.exit_code()


def load(settings: Settings) -> Networks:
    """Loads the networks that an inversion needs; UserError where they cannot do it."""

    def given(load: Callable[..., Any], weights: str, field: str) -> Any:
        return load(weights, field=field) if weights else None

    judge = given(loading.load_clip, settings.judge, "judge")
    # One that the method does not need may be missing, as there is none for most generators.
    encoder = settings.encoder.weights if settings.invert.needs_encoder else ""
    networks = Networks(
        generator=loading.load_generator(settings.generator.weights, precision=settings.precision),
        lpips=given(loading.load_lpips, settings.lpips.weights, "lpips.weights"),
        encoder=given(loading.load_encoder, encoder, "encoder.weights"),
        identity=given(loading.load_identity, settings.identity.weights, "identity.weights"),
        judge=judge and judge.without_texts(),
        refinements=settings.encoder.steps,
    )
    settings.invert.check_networks(networks)
    return networks


def find(
    run: ImageRun, settings: Settings, networks: Networks, items: Sequence[Item]
) -> Iterator[tuple[Item, Aligned, Inverted]]:
    """Aligns and inverts images, a batch at a time, and shows progress; those that cannot be done are skipped.

    Args:
      run: counts what is skipped.
      settings: of `configs/invert.py`, or others with all of its fields.
      networks: of `load`.
      items: at least one.

    Yields:
      An item, its aligned image, and what it was found to be, with b = 1 and a figure `seconds`. Of several faces of
      one image, the second is the item NAME_2, and so on; NAME itself comes last, so that it stands for all when a
      run is resumed.
    """
    side, taken = networks.generator.size, {item.name.casefold() for item in run.items}
    read = functools.partial(_faces, settings=settings.align, side=side, taken=taken)
    faces = itertools.chain.from_iterable(found for _, found in run.read_all(items, read))
    count = -(-len(items) // settings.batch_size)
    size = -(-len(items) // count)  # of equal batches, so that few rows fill up the last
    steps, done = settings.invert.total_steps, 0
    with Progress(count * steps, done=0, every=50, silent=not steps) as progress:
        while batch := list(itertools.islice(faces, size)):
            names = ", ".join(item.name for item, _ in batch)
            progress.say(f"images {done + 1}-{done + len(batch)}: {names}")
            # Tuning may end before its last step, and there may be more faces than images.
            progress.expect(progress.step + max(count - done // size, 1) * steps)
            began = time.perf_counter()
            found = _invert(settings, networks, batch, size, progress)
            seconds = (time.perf_counter() - began) / len(batch)
            done += len(batch)
            for i, (item, image) in enumerate(batch):
                one = found.one(i)
                if wrong := [name for name, x in one.figures.items() if not np.isfinite(x).all()]:
                    run.skip(item, UserError(_diverged(wrong[0], settings.invert.lr)))
                    continue
                yield item, image, one.measured(seconds=seconds)


def _faces(
    item: Item, settings: Align, side: int, taken: Collection[str]
) -> list[tuple[Item, Aligned]]:
    """The faces of an image, with names of their own, the first one last."""
    named = []
    for i, face in enumerate(align_photo(item.path, settings, side), 1):
        name = item.name if i == 1 else f"{item.name}_{i}"
        if i > 1 and name.casefold() in taken:
            raise UserError(
                f"{item.path}: one of its faces would be {name}, which is another image; rename one of the two"
            )
        named.append((dataclasses.replace(item, name=name), face))
    return named[::-1]


def _invert(
    settings: Settings,
    networks: Networks,
    batch: Sequence[tuple[Item, Aligned]],
    size: int,
    progress: Progress,
) -> Inverted:
    """Inverts a batch, which is filled up with its last image to the size that is compiled."""
    filled = [batch[min(i, len(batch) - 1)] for i in range(size)]
    # By the name, so that neither the other images nor resuming change what an image draws.
    numbers = np.asarray([zlib.crc32(item.name.encode()) for item, _ in filled], np.uint32)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(settings.seed), numbers)
    pixels = np.stack([aligned.image for _, aligned in filled])
    return invert(networks, pixels, settings.invert, keys, progress.advance)


def _diverged(figure: str, lr: float) -> str:
    return f"{figure} is not finite: the optimisation diverged with invert.lr={lr:g}; expected a smaller rate"


def write(run: ImageRun, settings: Settings, item: Item, aligned: Aligned, found: Inverted) -> None:
    """Writes the results of one image."""
    pixels = {"aligned": aligned.image, "reconstructions": found.best[0]}
    written = [
        run.write(f"{kind}/{item.name}.png", functools.partial(images.save, images.to_uint8(x)))
        for kind, x in pixels.items()
    ]
    save = functools.partial(codes.write, codes=found.codes)
    written.append(run.write(f"latents/{item.name}.npz", save))
    row = [aligned.image, found.drawn[0]]
    if found.tuned is not None:
        row.append(found.drawn_tuned[0])
        facts = {"source": settings.generator.weights, "image": item.name}
        save = functools.partial(native.save_model, found.tuned[0], **facts)
        written.append(run.write(f"tuned/{item.name}.safetensors", save))
    strip = images.grid(np.stack(row), len(row))
    save = functools.partial(images.save, strip, enlarge=max(1, LOOK // len(aligned.image)))
    written.append(run.write(f"strips/{item.name}.png", save))
    figures = {name: float(x[0]) for name, x in found.figures.items()}
    run.finish(item, written, figures | {"quad": aligned.quad.round(2).tolist()})


def report(run: ImageRun) -> None:
    """Says how good the reconstructions of this process are, and where to look at them."""
    rows = [row for row in run.earlier_rows if row["image"] in run.finished]
    if not rows:
        return
    names = [name for name in FIGURES if name in rows[0]]
    means = ", ".join(f"{name} {np.mean([row[name] for row in rows]):.4g}" for name in names)
    print(f"{len(rows)} inverted, on average: {means}")
    strip = f"{run.finished[0]}.png" if len(rows) == 1 else ""
    print(f"image and reconstruction: {run.path('strips') / strip}")
