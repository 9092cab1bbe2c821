"""Plots of a run and of a comparison, as PNG files."""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nada_jax import files

SMOOTHING = 0.9  # of the running mean: about the last ten steps count


def plot_losses(
    rows: Sequence[Mapping[str, Any]],
    path: str | os.PathLike,
    title: str,
    *,
    terms: Sequence[str],
    held_out: Sequence[str] = (),
) -> None:
    """Draws the loss and its terms over the steps, each with a running mean, as PNG.

    Args:
      rows: objects with `step` and `loss`. What else is drawn, as far as rows have it:
      terms: of the loss, beside it; the trained weight of each, `weight_TERM`, in a panel of its own.
      held_out: measurements on images that no step trains on, which some rows have, in another panel.
    """
    terms = [name for name in terms if name in rows[-1]]
    weights = [f"weight_{name}" for name in terms if f"weight_{name}" in rows[-1]]
    measured = [row for row in rows if any(name in row for name in held_out)]
    figure, panels = _panels(1 + bool(weights) + bool(measured))
    for name in ["loss", *(terms if len(terms) > 1 else [])]:  # one term alone is the loss
        steps, values = _column(rows, name)
        fading = SMOOTHING ** np.arange(len(values))
        sums = np.convolve(values, fading)[: len(values)]
        line = panels[0].plot(steps, sums / np.cumsum(fading), label=name)[0]
        panels[0].plot(steps, values, color=line.get_color(), alpha=0.25, linewidth=0.8)
    for name in weights:
        panels[1].plot(*_column(rows, name), label=name.replace("_", " of ", 1))
    for name in held_out if measured else ():
        panels[-1].plot(*_column(measured, name), ".-", label=name)
    panels[0].set(title=title)
    panels[-1].set(xlabel="step")
    for panel in panels:
        panel.grid(alpha=0.3)
        panel.legend()
    _save(figure, path)


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[list[int], list[float]]:
    """Steps and values of one metric."""
    return [row["step"] for row in rows], [row[name] for row in rows]


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
      columns: of the map at most; a column shows the share of its steps that chose a candidate.
    """
    chosen = np.zeros((len(rows), len(names)))
    for line, row in zip(chosen, rows, strict=True):
        line[row["chosen"]] = 1
    width = math.ceil(len(rows) / columns)
    starts = np.arange(0, len(rows), width)
    edges = rows[0]["step"] - 0.5 + np.append(starts, len(rows))
    shares = np.transpose([chosen[start : start + width].mean(axis=0) for start in starts])
    figure, (axes,) = _panels()
    figure.set_figheight(max(4.5, 0.16 * len(names)))  # inches; names stay legible
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
            marker = "osD^v"[count // 10 % 5]  # matplotlib has ten colours before they repeat
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

    matplotlib.use("Agg")  # no window, wherever this runs
    from matplotlib import pyplot  # only here: half a second that only plots need

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
