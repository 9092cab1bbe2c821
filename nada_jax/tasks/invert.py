"""Inverts images: finds the latents from which a generator draws them."""

import functools
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from nada_jax import images
from nada_jax.latents import codes
from nada_jax.latents.inversion import Inverted
from nada_jax.photos.align import Aligned
from nada_jax.portraits import inversions
from nada_jax.portraits.settings import InversionSettings
from nada_jax.runs.items import Item, listing
from nada_jax.runs.per_image import ImageRun
from nada_jax.weights import native

MEMORY = inversions.MEMORY  # the remedy for a lack of it
LOOK = 256  # pixels of an image in a strip at least


class Settings(InversionSettings):
    """All of `configs/invert.py`."""


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
    with ImageRun(config, workdir, items, results=inversions.RESULTS) as run:
        todo = run.todo()
        if todo:
            networks = inversions.load(settings)
            for item, aligned, inverted in inversions.find(run, settings, networks, todo):
                write(run, settings, item, aligned, inverted)
        report(run)
        return run.exit_code()


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
    names = [name for name in inversions.FIGURES if name in rows[0]]
    means = ", ".join(f"{name} {np.mean([row[name] for row in rows]):.4g}" for name in names)
    print(f"{len(rows)} inverted, on average: {means}")
    strip = f"{run.finished[0]}.png" if len(rows) == 1 else ""
    print(f"image and reconstruction: {run.path('strips') / strip}")
