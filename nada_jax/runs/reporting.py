"""What a run tells: progress, metrics, plots."""

import json
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from nada_jax import files


class Progress:
    """A bar with loss, ms per step and time left on a terminal; plain lines elsewhere.

    Args:
      total: steps of the whole run.
      done: steps that an earlier run has done.
      every: plain lines come this often.
      silent: tells nothing; of several processes one speaks.
    """

    def __init__(self, total: int, done: int, every: int, silent: bool = False):
        self.total, self.step, self.every, self.silent = total, done, every, silent
        self.start, self.first = time.perf_counter(), done
        self.bar = None
        if sys.stderr.isatty() and not silent:
            form = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{remaining} left{postfix}]"
            self.bar = tqdm(total=total, initial=done, unit="step", bar_format=form)

    def advance(self, steps: int, loss: float, ms: float) -> None:
        """Reports `steps` more steps, with the last loss and the milliseconds of one step."""
        before, self.step = self.step, self.step + steps
        if self.bar is not None:
            self.bar.set_postfix_str(f"loss {loss:.4f}, {ms:.0f} ms/step", refresh=False)
            self.bar.update(steps)
        elif self.silent:
            return
        elif self.step // self.every > before // self.every or self.step == self.total:
            left = (self.total - self.step) * ms / 1000
            print(
                f"step {self.step}/{self.total}  loss {loss:.4f}  {ms:.0f} ms/step  "
                f"{int(left // 60)}:{int(left % 60):02d} left",
                flush=True,
            )

    def say(self, line: str) -> None:
        """Prints a line without breaking the bar."""
        if self.bar is not None:
            tqdm.write(line)
        elif not self.silent:
            print(line, flush=True)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_) -> None:
        """Leaves the terminal as it was."""
        if self.bar is not None:
            self.bar.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics file; a line that a killed run left half-written is dropped."""
    rows = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
    return rows


def write_metrics(path: Path, rows: list[Mapping[str, Any]]) -> None:
    """Writes a whole metrics file atomically."""
    files.write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def append_metrics(path: Path, rows: list[Mapping[str, Any]]) -> None:
    """Adds lines to a metrics file."""
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def plot_losses(rows: list[Mapping[str, Any]], path: str | os.PathLike, title: str) -> None:
    """Draws the loss and its terms over the steps, with a running mean, as PNG.

    Args:
      rows: objects with `step`, `loss`, the terms of the loss and, in panels of their own, what trained
        weights they have, named weight_*, and in some rows what a look at held-out pictures said.
    """
    looks = ("diversity_kept", "similarity")
    apart = ("step", "loss", "norm", "chosen", "source_text", "ms", *looks)
    names = [name for name in rows[-1] if name not in apart]
    weights = [name for name in names if name.startswith("weight_")]
    terms = [name for name in names if name not in weights]
    looked = [row for row in rows if looks[0] in row]
    figure, panels = _panels(1 + bool(weights) + bool(looked))
    steps = [row["step"] for row in rows]
    for name in ["loss", *(terms if len(terms) > 1 else [])]:
        values = np.array([row[name] for row in rows])
        fading = 0.9 ** np.arange(len(values))
        sums = np.convolve(values, fading)[: len(values)]
        line = panels[0].plot(steps, sums / np.cumsum(fading), label=name)[0]
        panels[0].plot(steps, values, color=line.get_color(), alpha=0.25, linewidth=0.8)
    for name in weights:
        panels[1].plot(steps, [row[name] for row in rows], label=name.replace("_", " of ", 1))
    for name in looks if looked else ():
        panels[-1].plot(
            [row["step"] for row in looked], [row[name] for row in looked], ".-", label=name
        )
    panels[0].set(title=title)
    panels[-1].set(xlabel="step")
    for panel in panels:
        panel.grid(alpha=0.3)
        panel.legend()
    _save(figure, path)


def plot_choice(
    rows: list[Mapping[str, Any]],
    names: Sequence[str],
    path: str | os.PathLike,
    columns: int = 100,
) -> None:
    """Draws what was chosen to train over the steps, as a heat map in PNG.

    Args:
      rows: objects with `step` and `chosen`, the indices of what was chosen.
      names: of all that may be chosen, from bottom to top.
      columns: of the map at most; a column shows the share of its steps that chose a thing.
    """
    chosen = np.zeros((len(rows), len(names)))
    for line, row in zip(chosen, rows, strict=True):
        line[row["chosen"]] = 1
    width = math.ceil(len(rows) / columns)
    starts = np.arange(0, len(rows), width)
    edges = rows[0]["step"] - 0.5 + np.append(starts, len(rows))
    shares = np.transpose([chosen[start : start + width].mean(axis=0) for start in starts])
    figure, (axes,) = _panels()
    figure.set_figheight(max(4.5, 0.16 * len(names)))
    drawn = axes.pcolormesh(
        edges, np.arange(len(names) + 1) - 0.5, shares, vmin=0, vmax=1, cmap="magma"
    )
    figure.colorbar(drawn, label="share of steps that chose it")
    axes.set(xlabel="step", title="what trains")
    axes.set_yticks(range(len(names)), names, fontsize=9 if len(names) < 25 else 7)
    _save(figure, path)


def plot_intervals(
    groups: Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]],
    x: str,
    y: str,
    path: str | os.PathLike,
) -> None:
    """Draws one metric over another, a panel for each group, as PNG.

    Args:
      groups: heading -> name -> metric -> {"value", "low", "high"}; what lacks one of the two is left out.
      x, y: metrics of the axes, which all panels share.
    """
    figure, panels = _panels(len(groups), columns=2)
    figure.supxlabel(x)
    figure.supylabel(y)
    for panel, (heading, found) in zip(panels, groups.items(), strict=False):
        for count, (name, metrics) in enumerate(found.items()):
            marker = "osD^v"[count // 10 % 5]  # colours come again after ten
            if x in metrics and y in metrics:
                at, bars = zip(*(_bar(metrics[metric]) for metric in (x, y)), strict=True)
                panel.errorbar(*at, xerr=bars[0], yerr=bars[1], fmt=marker, label=name)
        panel.set(title=heading)
        panel.grid(alpha=0.3)
        if panel.has_data():
            panel.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    for panel in panels[len(groups) :]:
        panel.set_axis_off()
    _save(figure, path)


def _bar(measured: Mapping[str, float]) -> tuple[float, list[list[float]]]:
    """A value, and how far its interval reaches below and above it."""
    value = measured["value"]
    return value, [[max(0.0, value - measured["low"])], [max(0.0, measured["high"] - value)]]


def _panels(count: int = 1, columns: int = 1) -> tuple[Any, Sequence[Any]]:
    """A figure and its panels, by rows; those below each other share an axis, in several columns all share both."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot  # half a second that only plots need

    rows = math.ceil(count / columns)
    figure, panels = pyplot.subplots(
        rows,
        columns,
        figsize=(8 if columns == 1 else 6 * columns, 2 + 2.5 * rows),
        layout="constrained",
        sharex=True,
        sharey=columns > 1,
        squeeze=False,
    )
    return figure, panels.ravel()


def _save(figure: Any, path: str | os.PathLike) -> None:
    from matplotlib import pyplot

    with files.atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    pyplot.close(figure)


def table(rows: list[dict[str, str]]) -> str:
    """Lines with the same columns as a Markdown table that reads well as it is; empty columns go."""
    heads = list(dict.fromkeys(head for row in rows for head in row))
    columns = [[head, *(row.get(head, "") for row in rows)] for head in heads]
    columns = [column for column in columns if any(column[1:])]
    for column in columns:
        width = max(map(len, column))
        column.insert(1, "-" * width)
        column[:] = [cell.ljust(width) for cell in column]
    return "\n".join(f"| {' | '.join(line)} |" for line in zip(*columns, strict=True))
