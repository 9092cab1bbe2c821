"""A comparison as one page of HTML that needs no other file, so that it can be mailed and kept; and as Markdown.

The frame of the page is comparison.html. Everything that a user wrote, and every name of a file or field, is escaped.
"""

import base64
import dataclasses
import io
import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template

from PIL import Image

from nada_jax import tables
from nada_jax.evaluation import comparisons
from nada_jax.evaluation.comparisons import Intervals

PAGE = Template(Path(__file__).with_name("comparison.html").read_text(encoding="utf-8"))
WIDTH = 1056  # pixels of a strip at most: eight images of 64 pixels, twice as large
QUALITY = 90  # of its JPEG; sharp edges of drawings fray below
ARROWS = {"higher": " ↑", "lower": " ↓"}

Meanings = Mapping[str, tuple[str, str]]  # metric -> which direction is good, what it is


@dataclasses.dataclass(frozen=True)
class Cell:
    """What a comparison knows about one of its cells; what is not known yet is empty."""

    name: str
    texts: tuple[str, ...]  # of the adaptation, or of the edit
    changes: str  # how it differs from the other cells
    state: str = ""  # a sentence, where it is not finished
    metrics: Intervals = dataclasses.field(default_factory=dict)
    judged: tuple[str, str] | None = None  # by these texts
    ms: float | None = None  # median of its steps
    minutes: float | None = None  # of training and evaluation
    sheet: Path | None = None  # row of the source over row of the adapted generator
    source: str = ""  # the same for cells with the same row of the source
    plots: Sequence[Path] = ()  # PNG files


Groups = Mapping[str, Sequence[Cell]]  # heading -> cells; a cell may stand in several


def markdown(groups: Groups, meanings: Meanings) -> str:
    """The figures alone, as a table.

    Args:
      groups: what it shows.
      meanings: of the metrics that it shows, "higher", "lower" or "" first.

    Returns:
      Markdown: a line a cell, metrics with their intervals, in bold where a cell leads its group.
    """
    rows = []
    for heading, cells in groups.items():
        best = _leaders(cells, meanings)
        for cell in cells:
            row = {"group": heading, "cell": cell.name}
            for metric in meanings:
                row[metric] = ""
                if measured := cell.metrics.get(metric):
                    value, low, high = (number(measured[k]) for k in ("value", "low", "high"))
                    mark = "**" if best.get(metric) == cell.name else ""
                    # An interval of one number, as of one subject, says nothing more.
                    interval = f" ({low} .. {high})" if low != high else ""
                    row[metric] = f"{mark}{value}{mark}{interval}"
            row |= {name: number(x, 1) for name, x in _times(cell, groups).items()}
            rows.append(row | {"state": cell.state})
    return tables.markdown(rows) + "\n"


def page(
    title: str,
    groups: Groups,
    meanings: Meanings,
    notes: Sequence[str] = (),
    plot: Path | None = None,
) -> str:
    """The page.

    Args:
      title: its heading.
      groups: what it shows.
      meanings: metric -> which direction is good ("higher", "lower" or ""), what it is.
      notes: paragraphs below the title.
      plot: a PNG file of all cells, shown below their table.

    Returns:
      HTML.
    """
    cells = {cell.name: cell for group in groups.values() for cell in group}
    # Names may hold anything; places in the page are counted.
    places = {name: f"cell-{number}" for number, name in enumerate(cells, 1)}
    used = {metric for cell in cells.values() for metric in cell.metrics}
    shown = {metric: meaning for metric, meaning in meanings.items() if metric in used}
    return PAGE.substitute(
        title=escape(title),
        notes="".join(f"<p>{escape(note)}</p>\n" for note in notes),
        table=_table(groups, shown, places),
        meanings=_meanings(shown),
        plot=_image(plot, "all cells") if plot else "",
        strips="\n".join(_strip(name, group) for name, group in groups.items()),
        cells="\n".join(_card(cell, places[cell.name]) for cell in cells.values()),
    )


def number(value: float | None, digits: int = 3) -> str:
    """A figure to be read; blank where there is none."""
    return "" if value is None else f"{value:.{digits}f}"


def _times(cell: Cell, groups: Groups) -> dict[str, float | None]:
    """Its columns of times; that of steps only where cells know it, or none has finished yet."""
    cells = [x for group in groups.values() for x in group]
    if any(x.minutes is not None for x in cells) and all(x.ms is None for x in cells):
        return {"minutes": cell.minutes}
    return {"ms/step": cell.ms, "minutes": cell.minutes}


def _leaders(cells: Sequence[Cell], meanings: Meanings) -> dict[str, str]:
    """Metric -> the cell that leads a group beyond doubt."""
    better = {metric: direction for metric, (direction, _) in meanings.items()}
    return comparisons.leaders({cell.name: cell.metrics for cell in cells}, better)


def _table(groups: Groups, meanings: Meanings, places: Mapping[str, str]) -> str:
    """All cells and their figures, the groups one below the other."""
    heads = [f"{metric}{ARROWS.get(better, '')}" for metric, (better, _) in meanings.items()]
    columns = ["cell", *heads, *_times(Cell("", (), ""), groups)]
    head = "<tr>" + "".join(f'<th scope="col">{escape(h)}</th>' for h in columns) + "</tr>"
    body = []
    for heading, cells in groups.items():
        best = _leaders(cells, meanings)
        lines = [
            f'<tr><th colspan="{len(columns)}" scope="rowgroup" class="group">{escape(heading)}</th></tr>'
        ]
        for cell in cells:
            name = f'<a href="#{places[cell.name]}">{escape(cell.name)}</a>'
            line = f'<th scope="row">{name}<small>{escape(cell.changes)}</small></th>'
            if cell.state:
                line += f'<td colspan="{len(columns) - 1}" class="state">{escape(cell.state)}</td>'
            else:
                line += "".join(_figure(cell, metric, best) for metric in meanings)
                line += "".join(f"<td>{number(v, 1)}</td>" for v in _times(cell, groups).values())
            lines.append(f"<tr>{line}</tr>")
        body.append("<tbody>\n" + "\n".join(lines) + "\n</tbody>")
    return f"<table>\n<thead>\n{head}\n</thead>\n" + "\n".join(body) + "\n</table>"


def _figure(cell: Cell, metric: str, best: Mapping[str, str]) -> str:
    """A metric of a cell, with its interval below."""
    measured = cell.metrics.get(metric)
    if measured is None:
        return "<td></td>"
    mark = ' class="best"' if best.get(metric) == cell.name else ""
    low, high = number(measured["low"]), number(measured["high"])
    interval = f"<small>{low} .. {high}</small>" if low != high else ""
    return f"<td{mark}>{number(measured['value'])}{interval}</td>"


def _meanings(meanings: Meanings) -> str:
    """What the metrics are."""
    lines = [f"<dt>{escape(m)}</dt><dd>{escape(what)}</dd>" for m, (_, what) in meanings.items()]
    return "<dl>\n" + "\n".join(lines) + "\n</dl>" if lines else ""


def _strip(heading: str, cells: Sequence[Cell]) -> str:
    """The rows of a group one below the other: the source, and again where another begins, then each cell."""
    rows, source = [], None
    for cell in cells:
        if cell.sheet is None:
            continue
        above, below = _halves(cell.sheet)
        if source != cell.source:
            source = cell.source
            rows.append(_row("source", "", above))
        rows.append(_row(cell.name, " → ".join(cell.texts), below))
    body = "\n".join(rows) or "<p>No images yet.</p>"
    return f'<h3>{escape(heading)}</h3>\n<div class="strip">\n{body}\n</div>'


def _row(name: str, texts: str, uri: str) -> str:
    caption = escape(name) + (f"<small>{escape(texts)}</small>" if texts else "")
    return (
        f"<figure><figcaption>{caption}</figcaption>"
        f'<img src="{uri}" alt="images of {escape(name)}"></figure>'
    )


def _halves(sheet: str | os.PathLike) -> list[str]:
    """The upper and the lower row of a grid of two, as data URIs."""
    with Image.open(sheet) as file:
        image = file.convert("RGB")
    middle = image.height // 2  # in the gap between the rows
    boxes = (0, 0, image.width, middle), (0, middle, image.width, image.height)
    uris = []
    for box in boxes:
        row, buffer = image.crop(box), io.BytesIO()
        row.thumbnail((WIDTH, WIDTH))
        # Whole colours: with subsampling, those of small images bleed into each other.
        row.save(buffer, "JPEG", quality=QUALITY, subsampling=0)
        uris.append(_uri(buffer.getvalue(), "jpeg"))
    return uris


def _uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _image(path: Path, description: str) -> str:
    """A PNG file, within the page."""
    return f'<img src="{_uri(path.read_bytes(), "png")}" alt="{escape(description)}">'


def _card(cell: Cell, place: str) -> str:
    """One cell: what it is, and its plots."""
    lines = [" → ".join(cell.texts) + (f"; {cell.changes}" if cell.changes else "")]
    if cell.judged not in (None, cell.texts):
        lines.append("judged by " + " → ".join(cell.judged))
    if cell.state:
        lines.append(cell.state)
    plots = [_image(path, f"{path.stem} of {cell.name}") for path in cell.plots]
    paragraphs = "".join(f"<p>{escape(line)}</p>" for line in lines)
    return (
        f'<article id="{place}">\n<h3>{escape(cell.name)}</h3>\n{paragraphs}\n'
        + "\n".join(plots)
        + "\n</article>"
    )
