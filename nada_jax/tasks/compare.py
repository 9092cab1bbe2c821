"""Runs a grid of adaptations, measures each, and shows all of them side by side."""

import json
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from nada_jax import files, trees
from nada_jax.adaptation import checks
from nada_jax.errors import UserError
from nada_jax.runs import reporting
from nada_jax.runs import workdir as runs
from nada_jax.tasks import adapt, evaluate
from nada_jax.web import comparison as pages

Groups = dict[str, tuple[str, ...]]
# Fields that say how a cell is run, and nothing of what comes out.
MANNER = {"adapt.resume", "adapt.overwrite", "adapt.log_every", "adapt.checkpoint_every"}
WAITING = "not run yet"


def run(config: ConfigDict, workdir: Path) -> int:
    """Runs what is missing of a grid; see `configs/compare.py`.

    Writes config.json and, after every cell, compare.html, compare.png (its plot of quality and diversity),
    compare.md and metrics.jsonl (one object a finished cell). What belongs to a cell stands in cells/NAME: adapt/
    and evaluate/ as these tasks leave them, and cell.json with the settings, written last. A cell whose cell.json
    tells the configured settings is not run again; one that was interrupted is continued.

    Args:
      config: all of `configs/compare.py`.
      workdir: where the results go; a comparison that stands there is continued.

    Returns:
      The exit code: 0 when all cells are finished, 130 or 143 when a signal ended the run.

    Raises:
      UserError: wrong input, then nothing was run; or cells failed, and all others are finished.
    """
    chosen = choose(config)
    for name in chosen:
        check(name, config.cells[name], cell_directory(workdir, name))
    runs.refuse_other(config, workdir, set(config) - {"task"}, "give another --workdir")
    runs.write_config(config, workdir)

    failures: dict[str, str] = {}
    write(config, workdir, chosen, failures)
    for count, name in enumerate(chosen, 1):
        cell, directory = config.cells[name], cell_directory(workdir, name)
        if finished(cell, directory):
            continue
        print(f"\ncell {count}/{len(chosen)}: {name}", flush=True)
        try:
            code = run_cell(cell, directory)
        except UserError as error:
            failures[name] = str(error)
            print(f"{name} failed: {error}", flush=True)
        else:
            if code:
                print(f"stopped in cell {name}; the same command continues there")
                return code
        write(config, workdir, chosen, failures)
    print(f"\nnumbers: {workdir / 'compare.md'}")
    print(f"page: {workdir / 'compare.html'}")
    if failures:
        told = "; ".join(f"{name}: {reason}" for name, reason in failures.items())
        raise UserError(f"{len(failures)} of {len(chosen)} cells failed ({told})")
    return 0


def choose(config: ConfigDict) -> list[str]:
    """The cells that `only` asks for, in the order of the groups; UserError where one does not exist."""
    groups = dict(config.groups)
    named = list(dict.fromkeys(name for group in groups.values() for name in group))
    if unknown := [name for name in named if name not in config.cells]:
        raise UserError(f"groups has {unknown[0]!r}; expected some of {', '.join(config.cells)}")
    only = [word.strip() for word in config.only.split(",") if word.strip()]
    for word in only:
        if word not in groups and word not in named:
            raise UserError(
                f"only has {word!r}; expected cells ({', '.join(named)}) or groups ({', '.join(groups)})"
            )
    wanted = {name for word in only for name in groups.get(word, (word,))}
    if not named:
        raise UserError("groups is empty; expected a heading with names of cells")
    return [name for name in named if name in wanted or not only]


def check(name: str, cell: ConfigDict, directory: Path) -> None:
    """Refuses a cell that cannot be run as it is, before any other is run; UserError names it."""
    try:
        checks.check(cell.adapt)
        evaluate.check(cell.evaluate)
        if cell.adapt.distributed.coordinator:
            raise UserError("adapt.distributed is set; expected one process")
        if not cell.adapt.overwrite:
            remedy = "give another --workdir, or --config.adapt.overwrite=True to run it anew"
            runs.refuse_other(cell.adapt, directory / "adapt", adapt.FREE, remedy)
    except UserError as error:
        raise UserError(f"cell {name}: {error}") from error


def cell_directory(workdir: Path, name: str) -> Path:
    """Where a cell stands."""
    return workdir / "cells" / name


def settings(cell: ConfigDict) -> dict[str, Any]:
    """All that decides what comes out of a cell, by flat field."""
    flat = trees.flatten(json.loads(cell.to_json()))
    return {field: value for field, value in flat.items() if field not in MANNER}


def finished(cell: ConfigDict, directory: Path) -> bool:
    """Whether the cell was run with these very settings."""
    try:
        return json.loads((directory / "cell.json").read_text("utf-8")) == settings(cell)
    except (OSError, ValueError):
        return False


def run_cell(cell: ConfigDict, directory: Path) -> int:
    """Adapts and measures; returns the exit code of the task that was stopped, or 0."""
    record = directory / "cell.json"
    if code := adapt.run(cell.adapt, directory / "adapt"):
        return code
    record.unlink(missing_ok=True)
    measured = cell.evaluate.copy_and_resolve_references()
    measured.generator.weights = str(directory / "adapt" / "generator.safetensors")
    if code := evaluate.run(measured, directory / "evaluate"):
        return code
    files.write_text(record, json.dumps(settings(cell), indent=2) + "\n")
    return 0


def write(
    config: ConfigDict, workdir: Path, chosen: Iterable[str], failures: dict[str, str]
) -> None:
    """Writes what there is: the chosen cells, and those that earlier commands have finished."""
    shared = trees.flatten(json.loads(config.adapt.to_json()))
    cells = {}
    for name, cell in config.cells.items():
        directory = cell_directory(workdir, name)
        if name in chosen or finished(cell, directory):
            cells[name] = read(name, cell, directory, shared, failures.get(name, WAITING))
    groups = {
        heading: [cells[name] for name in names if name in cells]
        for heading, names in config.groups.items()
    }
    groups = {heading: group for heading, group in groups.items() if group}
    done = [cell for cell in cells.values() if not cell.state]
    rows = [
        {"cell": cell.name, "minutes": cell.minutes}
        | {metric: measured["value"] for metric, measured in cell.metrics.items()}
        for cell in done
    ]
    reporting.write_metrics(workdir / "metrics.jsonl", rows)
    trained = {model for cell in config.cells.values() for model in cell.adapt.clip.models}
    notes = [
        f"Trained with {', '.join(sorted(trained))}; judged by {config.evaluate.judge}, on "
        f"{config.evaluate.samples} pictures of each.",
        f"{len(done)} of {len(cells)} cells are finished. Small print: intervals of "
        f"{config.evaluate.confidence:.0%} over the drawn latents, not over training runs.",
        "The best of a group is marked only where its interval lies apart from those of all others. What "
        "changes nothing keeps all diversity: read that beside similarity.",
    ]
    other = "those of the folder" if config.evaluate.folder else "the source's"
    meanings = {
        metric: (better, meaning.format(other=other))
        for metric, (better, meaning) in evaluate.MEANINGS.items()
    }
    plot = workdir / "compare.png"
    points = {
        heading: {cell.name: cell.metrics for cell in group} for heading, group in groups.items()
    }
    reporting.plot_intervals(points, "similarity", "diversity_kept", plot)
    page = pages.comparison("Comparison", groups, meanings, notes, plot)
    files.write_text(workdir / "compare.html", page)
    files.write_text(workdir / "compare.md", table(groups, meanings))


def read(
    name: str, cell: ConfigDict, directory: Path, shared: dict[str, Any], state: str
) -> pages.Cell:
    """What there is of a cell.

    Args:
      shared: what cells have in common, by flat field of the adaptation.
      state: is told of a cell that is not finished.
    """
    own = trees.flatten(json.loads(cell.adapt.to_json()))
    known = {
        "name": name,
        "texts": (cell.adapt.text.source, cell.adapt.text.target),
        "changes": ", ".join(
            f"{field}={value}"
            for field, value in own.items()
            if value != shared[field] and not field.startswith("text.")
        ),
    }
    if not finished(cell, directory):
        return pages.Cell(**known, state=state)
    home = directory / "adapt"
    found = json.loads((directory / "evaluate" / "evaluation.json").read_text("utf-8"))
    ms = [row["ms"] for row in reporting.read_metrics(home / "metrics.jsonl")]
    drawn = {f: v for f, v in own.items() if f.split(".")[0] in ("samples", "precision")}
    return pages.Cell(
        **known,
        metrics=found["metrics"],
        judged=tuple(found["texts"]),
        ms=statistics.median(ms),
        minutes=(sum(ms) / 1000 + found["seconds"]) / 60,
        sheet=max(
            (home / "samples").glob("step_*.png")
        ),  # the last, also of a run that ended early
        source=json.dumps([found["source"], drawn]),
        plots=[path for path in (home / "loss.png", home / "layers.png") if path.exists()],
    )


def table(groups: dict[str, list[pages.Cell]], meanings: dict[str, tuple[str, str]]) -> str:
    """compare.md: a line a cell, metrics with their intervals; bold where a cell leads its group."""
    rows = []
    for heading, cells in groups.items():
        best = pages.leaders(cells, {metric: better for metric, (better, _) in meanings.items()})
        for cell in cells:
            row = {"group": heading, "cell": cell.name}
            for metric in meanings:
                row[metric] = ""
                if measured := cell.metrics.get(metric):
                    value, low, high = (pages.number(measured[k]) for k in ("value", "low", "high"))
                    mark = "**" if best.get(metric) == cell.name else ""
                    row[metric] = f"{mark}{value}{mark} ({low} .. {high})"
            row |= {"ms/step": pages.number(cell.ms, 1), "minutes": pages.number(cell.minutes, 1)}
            rows.append(row | {"state": cell.state.replace("|", "\\|")})
    return reporting.table(rows) + "\n"
