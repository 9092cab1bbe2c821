"""Edits the same subjects by every combination of settings, and shows what each did on one page."""

import itertools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from nada_jax import batches
from nada_jax.errors import UserError
from nada_jax.latents import editing
from nada_jax.latents.projection import Networks
from nada_jax.latents.spaces import SPACES
from nada_jax.portraits import inversions, measures, methods, subjects
from nada_jax.portraits.subjects import Subject, Subjects
from nada_jax.runs import plots
from nada_jax.runs.items import Item
from nada_jax.runs.per_image import ImageRun
from nada_jax.runs.progress import Progress
from nada_jax.settings import LARGEST, Section, one_of
from nada_jax.web import comparison
from nada_jax.web.comparison import Cell
from nada_jax.weights import loading, registry

MEMORY = inversions.MEMORY  # the remedy for a lack of it
RESULTS = "cells/*.png", "edit_sweep.html", "edit_sweep.md", "edit_sweep.png"
FREE = "sweep", "batch_size", "overwrite"  # further cells stand beside earlier ones
FIGURES = {  # of a cell: which direction is good, what it is
    "gained": ("higher", "change of the cosine to the text, by a judge that took no part"),
    "moved": (
        "lower",
        "squared distance of the latent from its start, the L2 term without its weight",
    ),
    "mse": ("lower", "mean squared change of the pixels, on [-1, 1]"),
    "face": ("lower", "1 - cosine of the features of the face, before and after"),
    "clip": ("lower", "distance to the text by the CLIPs that were optimised"),
}


class Sweep(Section, name="sweep"):
    """The grid; `config.sweep`."""

    texts: tuple[str, ...]
    l2: tuple[float, ...]
    identity: tuple[float, ...]
    lr: tuple[float, ...]
    steps: tuple[int, ...]
    space: Annotated[str, one_of(SPACES)]
    view: Annotated[str, one_of(editing.VIEWS)]

    def check(self) -> None:
        """Each field has values in its range, and names of cells tell them apart."""
        for field in ("texts", "l2", "identity", "lr", "steps"):
            self.need(bool(getattr(self, field)), field, "at least one value")
        self.need(all(map(str.strip, self.texts)), "texts", "words, as 'a smiling person', in each")
        for field in ("l2", "identity"):
            good = all(0 <= x < np.inf for x in getattr(self, field))
            self.need(good, field, "numbers from 0")
        self.need(all(0 < x < np.inf for x in self.lr), "lr", "numbers above 0")
        self.need(all(0 < x <= LARGEST for x in self.steps), "steps", "whole numbers from 1")
        labels = [point.label for point in self.points]
        if twice := [x for x in labels if labels.count(x) > 1]:
            raise UserError(
                f"sweep has two cells of the name {twice[0]!r}; expected values that differ in six digits, and texts that "
                "differ in letters"
            )

    @property
    def points(self) -> list["Point"]:
        """All combinations; those of one number of steps stand together, as a batch takes as long as its longest row."""
        grid = itertools.product(self.steps, self.texts, self.identity, self.lr, self.l2)
        return [
            Point(text, l2, identity, lr, n) for n, text, identity, lr, l2 in dict.fromkeys(grid)
        ]


class Point(NamedTuple):
    """Settings of a cell."""

    text: str
    l2: float
    identity: float
    lr: float
    steps: int

    @property
    def label(self) -> str:
        """Its name, in files too."""
        words = methods.words(self.text)
        return f"{words}-steps{self.steps}-lr{self.lr:g}-id{self.identity:g}-l2_{self.l2:g}"

    @property
    def line(self) -> str:
        """What cells that differ in l2 alone have in common, beside the text."""
        face = f", identity {self.identity:g}" if self.identity else ""
        return f"lr {self.lr:g}, {self.steps} steps{face}"


class Settings(Subjects):
    """All of `configs/edit_sweep.py`."""

    sweep: Sweep

    def check(self) -> None:
        """What has a weight has a network; there is a judge."""
        super().check()
        self.need(bool(self.judge), "judge", "a CLIP, by which the cells are judged")
        if any(self.sweep.identity) and not self.identity.weights:
            raise UserError(
                f"sweep.identity is {self.sweep.identity} and identity.weights is ''; expected the file of a face identity "
                "network, the name of an embedded CLIP as a stand-in, or sweep.identity=(0.0,)"
            )


def run(config: ConfigDict, workdir: Path) -> int:
    """Runs the cells that are missing; see `configs/edit_sweep.py`.

    Writes config.json, metrics.jsonl (an object a cell, whose `image` is the cell's name), cells/CELL.png (subjects
    before and after), and after every batch edit_sweep.html, edit_sweep.md and edit_sweep.png.

    Args:
      config: all of `configs/edit_sweep.py`.
      workdir: where the results go; an earlier sweep of the same subjects is continued.

    Returns:
      The exit code, 0.

    Raises:
      UserError: wrong input; nothing is written then.
    """
    config = config.copy_and_resolve_references()
    if config.images or config.latents:
        config.seeds = ()  # whose default is no choice of the user
    settings = Settings.read(config)
    points = {point.label: point for point in settings.sweep.points}
    with ImageRun(config, workdir, [Item(x) for x in points], results=RESULTS, free=FREE) as run:
        networks = inversions.load(settings, inverts=settings.inverts)
        items = subjects.listing(settings, networks.generator)
        # The names alone would mix the cells of images that have been replaced since.
        facts = {"subjects": {item.name: item.digest for item in items}}
        if todo := run.todo(facts):
            sweep(run, settings, networks, items, facts, [points[item.name] for item in todo])
        write_page(run, settings, facts)
        print(f"page: {run.path('edit_sweep.html')}")
        return run.exit_code()


def sweep(
    run: ImageRun,
    settings: Settings,
    networks: Networks,
    items: Sequence[Item],
    facts: Mapping[str, Any],
    points: Sequence[Point],
) -> None:
    """Edits all subjects in the cells, as many at once as the batch size allows; `facts` are noted with each cell."""
    generator = networks.generator
    start = subjects.join([x.codes for x in found_subjects(run, settings, networks, items)])
    clips = methods.load_clips(settings)
    judge = loading.load_clip(settings.judge, field="judge")
    editing.check_view(settings.sweep.view, clips, generator.size)
    texts = {
        text: (editing.embed_text(clips, text), judge.embed_texts([text])[0])
        for text in {point.text for point in points}
    }
    guides = methods.load_guides(settings, clips, faces=bool(settings.identity.weights))
    before = subjects.draw(generator, start)
    count = len(start)
    size = max(1, min(settings.batch_size // count, len(points)))  # cells at once
    chunks = list(batches.split(len(points), size))
    total = sum(max(points[i].steps for i in chunk) for chunk in chunks)
    with Progress(total, 0, every=50) as progress:
        for chunk in chunks:
            began = time.perf_counter()
            cells = [points[i] for i in chunk]  # the last of all may repeat
            rows = np.tile(np.arange(count), len(cells))

            def each(field: str, cells: Sequence[Point] = cells) -> np.ndarray:
                return np.repeat([getattr(cell, field) for cell in cells], count)

            of_clips = zip(*(texts[cell.text][0] for cell in cells), strict=True)
            edited, figures, _ = editing.edit(
                generator,
                guides,
                start[rows],
                [np.repeat(np.concatenate(x), count, axis=0) for x in of_clips],
                space=settings.sweep.space,
                view=settings.sweep.view,
                lr=each("lr"),
                steps=each("steps"),
                l2=each("l2"),
                identity=each("identity"),
                report=progress.advance,
            )
            after = subjects.draw(generator, edited)
            wanted = np.repeat([texts[cell.text][1] for cell in cells], count, axis=0)
            found = measures.gain(judge.without_texts(), before[rows], after, wanted)
            found |= {"moved": figures["l2"], "clip": figures["clip"]}
            if guides.identity is not None:
                found["face"] = figures["identity"]
            seconds = (time.perf_counter() - began) / size
            for number, cell in enumerate(dict.fromkeys(cells)):
                own = slice(number * count, (number + 1) * count)
                values = {figure: [float(v) for v in x[own]] for figure, x in found.items()}
                sheet = np.concatenate([before, after[own]])
                file = run.write_images(f"cells/{cell.label}.png", sheet, count)
                figures = cell._asdict() | values | {"seconds": seconds}
                run.finish(Item(cell.label), [file], figures | facts)
            write_page(run, settings, facts)


def found_subjects(
    run: ImageRun, settings: Settings, networks: Networks, items: Sequence[Item]
) -> list[Subject]:
    """All subjects; here one that cannot be read ends the run, as every cell would lack it."""
    names = [item.name for item in items]
    found = list(subjects.gather(run, settings, networks, items))
    if missing := [name for name in names if name not in [x.item.name for x in found]]:
        raise UserError(
            f"{missing[0]} cannot be edited; expected subjects that can be read, all of them"
        )
    if any(x.tuned is not None for x in found):
        raise UserError(
            "a sweep draws all subjects by one generator, and these have generators that were tuned for them; expected "
            "another invert.method than 'pti', or latents of a run by another one"
        )
    if len({jax.tree.structure(x.codes) for x in found}) > 1:
        raise UserError("latents holds latents of several kinds; expected one kind for a sweep")
    return found


def write_page(run: ImageRun, settings: Settings, facts: Mapping[str, Any]) -> None:
    """Writes the page of all cells of the grid, those of `facts` with figures, and the table and plot beside it."""
    rows = {row["image"]: row for row in run.earlier_rows if facts.items() <= row.items()}
    if not rows:
        return
    groups: dict[str, list[Cell]] = {}
    curves: dict[str, dict[str, list[tuple[float, float]]]] = {}
    points = settings.sweep.points
    for number, point in enumerate(points, 1):
        row = rows.get(point.label)
        heading = f"{point.text}: {point.line}"
        groups.setdefault(heading, []).append(read(run, number, point, row))
        if row:
            curve = curves.setdefault(point.text, {}).setdefault(point.line, [])
            # What did not move at all, as after a single step, has no place on a logarithmic axis.
            curve.append((max(float(np.mean(row["moved"])), 1e-6), float(np.mean(row["gained"]))))
    plot = run.draw(
        "edit_sweep.png",
        lambda path: plots.plot_curves(
            curves, "moved: squared distance of the latent", "gained: cosine to the text", path
        ),
    )
    models = ", ".join(settings.clip.models)
    done = sum(point.label in rows for point in points)
    part = "which took part in the optimisation" if settings.judge in settings.clip.models else ""
    stand_in = settings.identity.weights in registry.embedded_clips()
    notes = [
        f"Optimised with {models}; judged by {settings.judge}, {part or 'which took no part'}. Subjects from left to "
        "right are the same in all rows.",
        f"{done} of {len(points)} cells are finished."
        + " Small numbers: the smallest and the largest of the subjects."
        * (len(facts["subjects"]) > 1),
        "Within a group, only l2 differs. A point of the plot is a cell; along a line l2 grows towards the left.",
    ]
    if stand_in:
        notes.append(
            f"Faces are compared by {settings.identity.weights}, a CLIP: a stand-in for a face network."
        )
    run.write_text("edit_sweep.html", comparison.page("Edit sweep", groups, FIGURES, notes, plot))
    run.write_text("edit_sweep.md", comparison.markdown(groups, FIGURES))


def read(run: ImageRun, number: int, point: Point, row: Mapping[str, object] | None) -> Cell:
    """A cell of the page."""
    name = f"{number}: l2 {point.l2:g}"  # numbered, as a page tells its cells apart by name
    known = {"name": name, "texts": (point.text,), "changes": point.line}
    if row is None:
        return Cell(**known, state="not run yet")
    return Cell(
        **known,
        metrics={
            figure: {
                "value": np.mean(row[figure]),
                "low": min(row[figure]),
                "high": max(row[figure]),
            }
            for figure in FIGURES
            if figure in row
        },
        minutes=row["seconds"] / 60,
        sheet=run.path(f"cells/{point.label}.png"),
        source="subjects",
    )
