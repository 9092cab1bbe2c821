"""Runs a grid of adaptations, measures each, and shows all of them side by side."""

import json
import statistics
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from nada_jax import files, trees
from nada_jax.errors import UserError, enough_memory
from nada_jax.evaluation import comparisons
from nada_jax.runs import metrics, plots
from nada_jax.runs.workdir import Run
from nada_jax.settings import Section
from nada_jax.tasks import adapt, evaluate
from nada_jax.web import comparison
from nada_jax.web.comparison import Cell
from nada_jax.weights import finding

# Fields that say how a cell is run, and do not change its results.
MANNER = {"adapt.resume", "adapt.overwrite", "adapt.log_every", "adapt.checkpoint_every"}
# The remedy for a lack of memory.
MEMORY = (
    "lower adapt.batch_size, adapt.freeze.batch_size, evaluate.batch_size or evaluate.bootstrap of the cell, or set "
    "adapt.low_memory=True, in another --workdir or with --config.adapt.overwrite=True"
)
WAITING = "not run yet"
RESULTS = "compare.html", "compare.png", "compare.md", "metrics.jsonl"


class Settings(Section):
    """All of `configs/compare.py`.

    `adapt` and `evaluate` are what all cells share of the configs of these tasks. `cells` and `groups` are tables whose
    names the user chooses: name -> a config with `adapt` and `evaluate`; heading -> names. The settings of a cell
    are read by `check`: shared fields that every chosen cell sets otherwise do no harm.
    """

    task: str
    only: str
    adapt: Any
    evaluate: Any
    cells: Any
    groups: Any


def run(config: ConfigDict, workdir: Path) -> int:
    """Runs what is missing of a grid; see `configs/compare.py`.

    Writes config.json and, after every cell, compare.html, compare.png (its plot of quality and diversity),
    compare.md and metrics.jsonl (one object a finished cell). What belongs to a cell stands in cells/NAME: adapt/
    and evaluate/ as these tasks leave them, and cell.json with the settings, written last. A cell whose cell.json
    holds the configured settings is not run again; one that was interrupted is continued.

    Args:
      config: all of `configs/compare.py`.
      workdir: where the results go; a comparison that stands there is continued.

    Returns:
      The exit code: 0 when all cells are finished, 130 or 143 when a signal ended the run.

    Raises:
      UserError: wrong input, then nothing was run; or cells failed, and all others are finished.
    """
    settings = Settings.read(config)
    with Run(config, workdir, results=RESULTS) as run:
        return compare(run, settings)


def compare(run: Run, settings: Settings) -> int:
    """Runs and measures within the workdir that the run holds; see `run`."""
    chosen = choose(settings.only, dict(settings.groups), settings.cells)
    for name in chosen:
        check(name, settings.cells[name], directory_of(run, name))

    run.begin()
    failures: dict[str, str] = {}
    write(run, settings, chosen, failures)
    for count, name in enumerate(chosen, 1):
        cell, directory = settings.cells[name], directory_of(run, name)
        if finished(cell, directory):
            continue
        print(f"\ncell {count}/{len(chosen)}: {name}", flush=True)
        try:
            with enough_memory(MEMORY):
                code = run_cell(cell, directory)
        except UserError as error:
            # A grid takes hours: one recipe that fails does not end it.
            # Its advice is for the command that runs it alone.
            said = str(error).replace("--config.overwrite", "--config.adapt.overwrite")
            failures[name] = said
            print(f"{name} failed: {said}", flush=True)
        else:
            if code:
                print(f"stopped in cell {name}; the same command continues there")
                return code
        write(run, settings, chosen, failures)
    print(f"\nnumbers: {run.path('compare.md')}")
    print(f"page: {run.path('compare.html')}")
    if failures:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in failures.items())
        raise UserError(f"{len(failures)} of {len(chosen)} cells failed ({reasons})")
    return 0


def choose(only: str, groups: Mapping[str, Collection[str]], cells: Collection[str]) -> list[str]:
    """Finds the cells that are to be run.

    Args:
      only: names of cells and groups with commas between them; all if empty.
      groups: heading -> names.
      cells: the names that exist.

    Returns:
      Names in the order of the groups.

    Raises:
      UserError: a cell or group does not exist.
    """
    named = list(dict.fromkeys(name for group in groups.values() for name in group))
    if unknown := [name for name in named if name not in cells]:
        raise UserError(f"groups has {unknown[0]!r}; expected some of {', '.join(cells)}")
    words = [word.strip() for word in only.split(",") if word.strip()]
    for word in words:
        if word not in groups and word not in named:
            raise UserError(
                f"only has {word!r}; expected cells ({', '.join(named)}) or groups ({', '.join(groups)})"
            )
    wanted = {name for word in words for name in groups.get(word, (word,))}
    if not named:
        raise UserError("groups is empty; expected a heading with names of cells")
    return [name for name in named if name in wanted or not words]


def check(name: str, cell: ConfigDict, directory: Path) -> None:
    """Refuses a cell that cannot be run as it is, before hours pass on others; UserError names it."""
    if directory.name != name:
        raise UserError(f"cells has {name!r}; expected names that folders can have")
    try:
        settings = adapt.Settings.read(cell.adapt)
        judge = evaluate.Settings.read(cell.evaluate).judge
        if not files.expand(judge).is_file():  # a file is loaded as it is
            finding.find_clip(judge, "judge")
        if settings.distributed.coordinator:
            raise UserError("adapt.distributed is set; expected one process")
        if not settings.overwrite:
            remedy = "give another --workdir, or --config.adapt.overwrite=True to run it anew"
            Run(cell.adapt, directory / "adapt", free=adapt.FREE, remedy=remedy).refuse_other()
    except UserError as error:
        raise UserError(f"cell {name}: {error}") from error


def directory_of(run: Run, name: str) -> Path:
    """Where a cell stands."""
    return run.path("cells") / name


def flat(config: ConfigDict) -> dict[str, Any]:
    """The values of a config by flat field, as JSON has them."""
    return trees.flatten(json.loads(files.to_json(config.to_dict())))


def decisive(cell: ConfigDict) -> dict[str, Any]:
    """All that decides the results of a cell, by flat field."""
    return {field: value for field, value in flat(cell).items() if field not in MANNER}


def finished(cell: ConfigDict, directory: Path) -> bool:
    """Whether the cell was run with these very settings."""
    try:
        return json.loads((directory / "cell.json").read_text("utf-8")) == decisive(cell)
    except (OSError, ValueError):
        return False


def run_cell(
    cell: ConfigDict, directory: Path, pack: Callable[[Path], Path] = lambda adapted: adapted
) -> int:
    """Adapts and measures.

    Args:
      cell: has `adapt` and `evaluate`.
      directory: of the cell.
      pack: from the file of the adapted generator to that which is measured in its place.

    Returns:
      The exit code of the task that was stopped, or 0.
    """
    record = directory / "cell.json"
    if code := adapt.run(cell.adapt, directory / "adapt"):
        return code
    # From here on the evaluation of an earlier run no longer belongs to the generator.
    record.unlink(missing_ok=True)
    measured = cell.evaluate.copy_and_resolve_references()
    measured.generator.weights = str(pack(directory / "adapt" / "generator.safetensors"))
    if code := evaluate.run(measured, directory / "evaluate"):
        return code
    files.write_text(record, json.dumps(decisive(cell), indent=2) + "\n")
    return 0


def write(
    run: Run, settings: Settings, chosen: Collection[str], failures: Mapping[str, str]
) -> None:
    """Writes the results so far: the chosen cells, and those that earlier commands have finished."""
    shared = flat(run.config.adapt)
    cells = {}
    for name, cell in settings.cells.items():
        directory = directory_of(run, name)
        if name in chosen or finished(cell, directory):
            cells[name] = read(name, cell, directory, shared, failures.get(name, WAITING))
    groups = {
        heading: [cells[name] for name in names if name in cells]
        for heading, names in settings.groups.items()
    }
    groups = {heading: group for heading, group in groups.items() if group}
    done = [cell for cell in cells.values() if not cell.state]
    run.write_metrics(
        [
            {"cell": cell.name, "minutes": cell.minutes}
            | {metric: measured["value"] for metric, measured in cell.metrics.items()}
            for cell in done
        ]
    )
    points = {
        heading: {cell.name: cell.metrics for cell in group} for heading, group in groups.items()
    }
    plot = run.draw(
        "compare.png",
        lambda path: plots.plot_intervals(points, "similarity", "diversity_kept", path),
    )
    shown = settings.evaluate
    # Cells may have folders of their own, so that no distance to a folder is marked as the best.
    meanings = {
        name: (metric.better, comparisons.meaning(name, shown.folder))
        for name, metric in comparisons.METRICS.items()
    }
    trained = {model for cell in settings.cells.values() for model in cell.adapt.clip.models}
    notes = [
        f"Trained with {', '.join(sorted(trained))}; judged by {shown.judge}, on {shown.samples} images of "
        "each generator.",
        f"{len(done)} of {len(cells)} cells are finished. Intervals of {shown.confidence:.0%} are over the "
        "drawn latents, not over training runs.",
        "The best of a group is marked only where its interval lies apart from those of all others. What "
        "changes nothing keeps all diversity: read that beside similarity.",
    ]
    run.write_text("compare.html", comparison.page("Comparison", groups, meanings, notes, plot))
    run.write_text("compare.md", comparison.markdown(groups, meanings))


def read(
    name: str, cell: ConfigDict, directory: Path, shared: Mapping[str, Any], state: str
) -> Cell:
    """Reads the results of a cell.

    Args:
      shared: what cells have in common, by flat field of the adaptation.
      state: says why, where the cell is not finished.
    """
    own = flat(cell.adapt)
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
        return Cell(**known, state=state)
    home = directory / "adapt"
    found = json.loads((directory / "evaluate" / "evaluation.json").read_text("utf-8"))
    ms = [row["ms"] for row in metrics.read(home / "metrics.jsonl", "ms")]
    # Rows of the source are equal where these are; the page shows one of them.
    drawn = {f: v for f, v in own.items() if f.split(".")[0] in ("samples", "precision")}
    return Cell(
        **known,
        metrics=found["metrics"],
        judged=tuple(found["texts"]),
        ms=statistics.median(ms),  # the first step compiles, which a mean would count
        minutes=(sum(ms) / 1000 + found["seconds"]) / 60,
        # The last, not that of `steps`: an adaptation may have ended early.
        sheet=max((home / "samples").glob("step_*.png"), default=None),
        source=json.dumps([found["source"], drawn]),
        plots=[path for path in (home / "loss.png", home / "layers.png") if path.exists()],
    )
