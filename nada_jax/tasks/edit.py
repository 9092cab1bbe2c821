"""Edits images, latents or seeds, each with results of its own."""

import functools
import itertools
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from nada_jax import images
from nada_jax.errors import UserError
from nada_jax.latents import codes as latent_files
from nada_jax.latents import directions
from nada_jax.latents.codes import Codes
from nada_jax.latents.inversion import METHODS as METHODS_OF_INVERSION
from nada_jax.latents.projection import Networks
from nada_jax.models.blending import transfer
from nada_jax.portraits import inversions, measures
from nada_jax.portraits.methods import METHODS, EditSettings
from nada_jax.portraits.subjects import (
    MEAN,
    Subject,
    batched,
    draw,
    gather,
    join,
    listing,
    tuned_file,
)
from nada_jax.runs.items import Item
from nada_jax.runs.per_image import ImageRun
from nada_jax.runs.progress import Progress
from nada_jax.weights import domains

MEMORY = inversions.MEMORY  # the remedy for a lack of it
SIDE = 256  # pixels, at least, of an image in a strip
RESULTS = "edited/*.png", "latents/*.npz", "strips/*.png"
FREE = "images", "latents", "seeds", "overwrite"  # that another command in the workdir may change


class Settings(EditSettings):
    """All of `configs/edit.py`."""

    generators: tuple[str, ...]


def run(config: ConfigDict, workdir: Path) -> int:
    """Edits what is not done yet; see `configs/edit.py`.

    Writes config.json, metrics.jsonl and, for each subject, edited/NAME_EDIT.png, latents/NAME_EDIT.npz and
    strips/NAME_EDIT.png: before and after (behind the image itself, where there is one), and below these the same by
    each further generator, whose edited image is edited/NAME_EDIT_GENERATOR.png.

    Args:
      config: all of `configs/edit.py`.
      workdir: where the results go; an earlier run is continued.

    Returns:
      The exit code: 0, or 2 where some subjects could not be edited.

    Raises:
      UserError: wrong input; nothing is written then.
    """
    settings = Settings.read(config)
    networks = inversions.load(settings, inverts=settings.inverts)
    items = [MEAN] if settings.edit.mode == "free" else listing(settings, networks.generator)
    with ImageRun(config, workdir, items, results=RESULTS, free=FREE) as run:
        if todo := run.todo():
            edit(run, settings, networks, todo)
        return run.exit_code()


def edit(run: ImageRun, settings: Settings, networks: Networks, todo: Sequence[Item]) -> None:
    """Edits within the workdir that the run holds; see `run`."""
    generator, label = networks.generator, settings.label
    others = domains.load(settings.generators, generator, settings.generator.weights)
    names = [item.name for item in run.items] + [row["image"] for row in run.earlier_rows]
    check_names(dict.fromkeys(names), label, others)
    method = METHODS[settings.edit.method]
    change = method.load(settings, generator)
    measure = measures.load_measures(networks, settings.judge, settings.text)
    # An image with a generator of its own is a batch of its own.
    tunes = settings.inverts and METHODS_OF_INVERSION[settings.invert.method].tunes
    tunes = tunes or (settings.latents and any(map(tuned_file, todo)))
    size = 1 if tunes else min(settings.batch_size, len(todo))
    steps = method.steps(settings) * -(-len(todo) // size)
    with Progress(steps, 0, every=50, silent=not steps) as progress:
        say = progress.say if steps else functools.partial(print, flush=True)
        for batch in batched(gather(run, settings, networks, todo), size):
            began = time.perf_counter()
            own = batch[0].tuned or generator
            start = join([subject.codes for subject in batch])
            # Every batch has one shape, so that a smaller last one is not compiled anew.
            rows = np.minimum(np.arange(size), len(batch) - 1)
            edited, figures = change(own, start[rows], progress.advance)
            drawn = {"": (draw(own, start[rows]), draw(own, edited))}
            for other, (adapted, _) in others.items():
                if own is not generator:
                    adapted = transfer(adapted, generator, own)
                moved = directions.carry(edited, start[rows], own, adapted)
                drawn[other] = draw(adapted, start[rows]), draw(adapted, moved)
            figures = figures | measure(*drawn[""])
            seconds = (time.perf_counter() - began) / len(batch)
            for i, subject in enumerate(batch):
                pairs = {other: (before[i], after[i]) for other, (before, after) in drawn.items()}
                numbers = {figure: float(x[i]) for figure, x in figures.items()}
                if not np.isfinite(list(numbers.values())).all():
                    run.skip(subject.item, UserError(_diverged(settings)))
                    continue
                written = write(run, label, subject, edited[i : i + 1], pairs)
                facts = {"edit": label, "text": settings.text, "seconds": seconds}
                run.finish(subject.item, written, numbers | facts)
                say(_described(subject.item.name, numbers))
    if run.finished:
        print(f"before and after: {run.path('strips')}")


def check_names(names: Collection[str], label: str, others: Collection[str]) -> None:
    """Makes sure that no two results have one name, as "a_sketch" of the generator "" and "a" of "sketch"; UserError."""
    held: dict[str, str] = {}
    for name, other in itertools.product(names, ("", *others)):
        file = f"{name}_{label}_{other}" if other else f"{name}_{label}"
        # As file systems compare that ignore case.
        if (first := held.setdefault(file.casefold(), name)) != name:
            raise UserError(
                f"{first!r} and {name!r} would both become edited/{file}.png; expected another edit.label, or other names "
                "of files"
            )


def _diverged(settings: Settings) -> str:
    field = METHODS[settings.edit.method].strength
    value = getattr(settings.edit, field)
    return f"its edit is not finite with edit.{field}={value!r}; expected less"


def _described(name: str, numbers: Mapping[str, float]) -> str:
    """What became of a subject, in a line."""
    gained = ""
    if "clip_after" in numbers:
        gained = f", cosine to the text {numbers['clip_before']:.3f} -> {numbers['clip_after']:.3f}"
    return f"{name}: changed by {numbers['mse']:.4f} (mse){gained}"


def write(
    run: ImageRun,
    edit: str,
    subject: Subject,
    edited: Codes,
    pairs: Mapping[str, tuple[np.ndarray, np.ndarray]],
) -> list[Path]:
    """Writes the results of one subject.

    Args:
      edit: name of the edit.
      edited: latents, b = 1.
      pairs: further generator, or "" for the own one -> images before and after.

    Returns:
      The files.
    """
    name = f"{subject.item.name}_{edit}"
    written = [
        run.write(f"latents/{name}.npz", functools.partial(latent_files.write, codes=edited))
    ]
    strip = []
    for other, (before, after) in pairs.items():
        file = f"edited/{name}_{other}.png" if other else f"edited/{name}.png"
        written.append(run.write(file, functools.partial(images.save, images.to_uint8(after))))
        if subject.image is not None:
            strip.append(np.ones_like(before) if other else subject.image)
        strip += [before, after]
    columns = 2 if subject.image is None else 3
    sheet = images.grid(np.stack(strip), columns)
    large = functools.partial(images.save, sheet, enlarge=max(1, SIDE // len(strip[0])))
    return [*written, run.write(f"strips/{name}.png", large)]
