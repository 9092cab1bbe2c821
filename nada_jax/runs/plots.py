"""Plots of a run and of a comparison, as PNG files."""

import contextlib
import functools
import math
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from nada_jax import files

SMOOTHING = 0.9  # of the running mean: about the last ten steps count
LONGEST = 100  # characters of a title; more would not fit above a panel


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
    with _panels(path, 1 + bool(weights) + bool(measured)) as panels:
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
        panels[0].set(title=_cut(title, LONGEST))
        panels[-1].set(xlabel="step")
        for panel in panels:
            panel.grid(alpha=0.3)
            panel.legend()


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
    with _panels(path) as (axes,):
        figure = axes.figure
        figure.set_figheight(max(4.5, 0.16 * len(names)))  # inches; names stay legible
        drawn = axes.pcolormesh(
            edges, np.arange(len(names) + 1) - 0.5, shares, vmin=0, vmax=1, cmap="magma"
        )
        figure.colorbar(drawn, label="share of steps that chose it")
        axes.set(xlabel="step", title="what trains")
        axes.set_yticks(range(len(names)), names, fontsize=9 if len(names) < 25 else 7)


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
    columns = 2
    with _panels(path, len(groups), columns) as panels:
        panels[0].figure.supxlabel(x)
        panels[0].figure.supylabel(y)
        for panel, (heading, found) in zip(panels, groups.items(), strict=False):
            drawn = {}  # name -> marker and bars, for the legend
            for count, (name, metrics) in enumerate(found.items()):
                marker = "osD^v"[count // 10 % 5]  # matplotlib has ten colours before they repeat
                if x in metrics and y in metrics:
                    at, bars = zip(*(_bar(metrics[metric]) for metric in (x, y)), strict=True)
                    drawn[name] = panel.errorbar(*at, xerr=bars[0], yerr=bars[1], fmt=marker)
            panel.set(title=_cut(heading, LONGEST // columns))
            panel.grid(alpha=0.3)
            if drawn:
                # By name here: matplotlib leaves out labels that begin with "_".
                legend = panel.legend(
                    drawn.values(),
                    map(str, range(len(drawn))),
                    fontsize=8,
                    loc="upper left",
                    bbox_to_anchor=(1, 1),
                )
                for text, name in zip(legend.get_texts(), drawn, strict=True):
                    text.set_text(_cut(name, LONGEST // 3))
        for panel in panels[len(groups) :]:
            panel.set_axis_off()


def plot_curves(
    groups: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]],
    x: str,
    y: str,
    path: str | os.PathLike,
) -> None:
    """Draws lines through points, a panel for each group, as PNG; the horizontal axis is logarithmic.

    Args:
      groups: heading -> name -> points (x, y) of a line, in the order in which they are joined; x is above 0.
      x, y: labels of the axes, which all panels share.
    """
    columns = min(2, len(groups))
    values = [
        point[0] for lines in groups.values() for points in lines.values() for point in points
    ]
    with _panels(path, len(groups), columns) as panels:
        panels[0].figure.supxlabel(x)
        panels[0].figure.supylabel(y)
        for panel, (heading, lines) in zip(panels, groups.items(), strict=False):
            for count, (name, points) in enumerate(lines.items()):
                style = ["-", "--", ":", "-."][count // 10 % 4]  # ten colours before they repeat
                panel.plot(*zip(*points, strict=True), f"o{style}", markersize=4, label=name)
            panel.set(title=_cut(heading, LONGEST // columns), xscale="log")
            panel.grid(alpha=0.3)
            panel.legend(fontsize=8 if len(lines) < 10 else 5)
            _plain_numbers(panel.xaxis, values)
        for panel in panels[len(groups) :]:
            panel.set_axis_off()


def plot_panels(
    panels: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]],
    x: str,
    path: str | os.PathLike,
    *,
    logarithmic: bool = False,
) -> None:
    """Draws lines through points, each figure in a panel of its own below the others, as PNG.

    Args:
      panels: figure -> name -> points (x, y) of a line.
      x: label of the axis that all panels share.
      logarithmic: the axes of the figures, whose values are above 0 then.
    """
    with _panels(path, len(panels)) as drawn:
        for panel, (figure, lines) in zip(drawn, panels.items(), strict=True):
            for name, points in lines.items():
                panel.plot(*zip(*points, strict=True), ".-", label=name)
            panel.set(ylabel=figure)
            if logarithmic:
                panel.set_yscale("log")
                _plain_numbers(panel.yaxis, [y for points in lines.values() for _, y in points])
            panel.grid(alpha=0.3)
            panel.legend()
        drawn[-1].set(xlabel=x)


def _plain_numbers(axis: Any, values: Sequence[float]) -> None:
    """Numbers at a logarithmic axis: by themselves they are formulas, which `_panels` does not parse."""
    from matplotlib import ticker  # only here, as in `_panels`

    # Few ticks: powers of ten alone, where there are several.
    subs = (1,) if max(values) > 300 * min(values) else (1, 2, 5)
    axis.set_major_locator(ticker.LogLocator(subs=subs))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter("")


def _bar(measured: Mapping[str, float]) -> tuple[float, list[list[float]]]:
    """A value, and how far its interval reaches below and above it."""
    value = measured["value"]
    return value, [[max(0.0, value - measured["low"])], [max(0.0, measured["high"] - value)]]


def _cut(text: str, longest: int) -> str:
    """A text in one line that leaves room for the plot."""
    text = " ".join(text.split())
    return text if len(text) <= longest else f"{text[:longest]} ..."


@contextlib.contextmanager
def _panels(path: str | os.PathLike, count: int = 1, columns: int = 1) -> Iterator[Sequence[Any]]:
    """Gives the panels of a figure, by rows, and writes it as PNG when the block succeeds.

    Panels below each other share an axis, in several columns all share both.
    """
    import matplotlib
    from matplotlib.figure import Figure  # only here: half a second that only plots need

    rows = math.ceil(count / columns)
    size = 8 if columns == 1 else 6 * columns, 2 + 2.5 * rows
    # Texts are those of users, in which $ is a character like any other.
    with (
        matplotlib.rc_context({"text.parse_math": False}),
        warnings.catch_warnings(record=True) as met,
    ):
        warnings.simplefilter("always")
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(rows, columns, sharex=True, sharey=columns > 1, squeeze=False)
        yield panels.ravel()
        with files.atomic(path) as temporary:
            figure.savefig(temporary, format="png", dpi=120)
    glyphs = [x for x in met if "missing from font" in str(x.message)]
    for other in met:
        if other not in glyphs:
            warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
    if glyphs:
        _warn_of_glyphs()


@functools.cache  # once, although there is a warning for every character and every plot
def _warn_of_glyphs() -> None:
    warnings.warn(
        "the font of the plots lacks some characters of the texts, which are drawn as boxes",
        stacklevel=4,
    )
