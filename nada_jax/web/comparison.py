"""A comparison as one page of HTML that needs no other file: it can be mailed, and kept.

Everything that was written by a user, and every name of a file or field, is escaped.
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

WIDTH = 1056  # pixels of a strip at most: eight pictures of 64 pixels, twice as large
QUALITY = 90  # of its JPEG; sharp edges of drawings fray below


@dataclasses.dataclass(frozen=True)
class Cell:
    """What a comparison knows of one of its cells; what is not known yet is empty."""

    name: str
    texts: tuple[str, str]  # of the adaptation
    changes: str  # how it differs from the other cells
    state: str = ""  # a sentence, where it is not finished
    metrics: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)
    judged: tuple[str, str] | None = None  # by these texts
    ms: float | None = None  # median of its steps
    minutes: float | None = None  # of training and evaluation
    sheet: Path | None = None  # row of the source over row of the adapted generator
    source: str = ""  # the same for cells with the same row of the source
    plots: Sequence[Path] = ()  # PNG files


def leaders(cells: Sequence[Cell], better: Mapping[str, str]) -> dict[str, str]:
    """The cells that lead beyond doubt.

    Args:
      cells: of one group.
      better: metric -> "higher" or "lower"; others have no leader.

    Returns:
      {metric: name of the best cell}, where its interval lies apart from that of every other cell.
    """
    found = {}
    for metric, direction in better.items():
        sign = {"higher": 1, "lower": -1}.get(direction)
        rivals = [cell for cell in cells if metric in cell.metrics]
        if sign is None or len(rivals) < 2:
            continue
        best, *others = sorted(rivals, key=lambda cell: -sign * cell.metrics[metric]["value"])
        worst_of_best = min(sign * best.metrics[metric][end] for end in ("low", "high"))
        if all(
            max(sign * cell.metrics[metric][end] for end in ("low", "high")) < worst_of_best
            for cell in others
        ):
            found[metric] = best.name
    return found


def comparison(
    title: str,
    groups: Mapping[str, Sequence[Cell]],
    meanings: Mapping[str, tuple[str, str]],
    notes: Sequence[str] = (),
    plot: Path | None = None,
) -> str:
    """The page.

    Args:
      title: its heading.
      groups: heading -> cells; a cell may stand in several.
      meanings: metric -> which direction is good ("higher", "lower" or ""), what it is.
      notes: paragraphs below the title.
      plot: a PNG file of all cells, shown below their table.

    Returns:
      HTML.
    """
    cells = {cell.name: cell for group in groups.values() for cell in group}
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


def _table(
    groups: Mapping[str, Sequence[Cell]],
    meanings: Mapping[str, tuple[str, str]],
    places: Mapping[str, str],
) -> str:
    """All cells and their figures, the groups one below the other."""
    arrows = {"higher": " ↑", "lower": " ↓"}
    heads = [f"{metric}{arrows.get(better, '')}" for metric, (better, _) in meanings.items()]
    columns = ["cell", *heads, "ms/step", "minutes"]
    rows = ["<tr>" + "".join(f'<th scope="col">{escape(h)}</th>' for h in columns) + "</tr>"]
    body = []
    for heading, cells in groups.items():
        best = leaders(cells, {metric: better for metric, (better, _) in meanings.items()})
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
                line += "".join(f"<td>{number(v, 1)}</td>" for v in (cell.ms, cell.minutes))
            lines.append(f"<tr>{line}</tr>")
        body.append("<tbody>\n" + "\n".join(lines) + "\n</tbody>")
    return f"<table>\n<thead>\n{rows[0]}\n</thead>\n" + "\n".join(body) + "\n</table>"


def _figure(cell: Cell, metric: str, best: Mapping[str, str]) -> str:
    """A metric of a cell, with its interval below."""
    measured = cell.metrics.get(metric)
    if measured is None:
        return "<td></td>"
    mark = ' class="best"' if best.get(metric) == cell.name else ""
    interval = f"{number(measured['low'])} .. {number(measured['high'])}"
    return f"<td{mark}>{number(measured['value'])}<small>{interval}</small></td>"


def number(value: float | None, digits: int = 3) -> str:
    """A figure for people; blank where there is none."""
    return "" if value is None else f"{value:.{digits}f}"


def _meanings(meanings: Mapping[str, tuple[str, str]]) -> str:
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
    body = "\n".join(rows) or "<p>No pictures yet.</p>"
    return f'<h3>{escape(heading)}</h3>\n<div class="strip">\n{body}\n</div>'


def _row(name: str, texts: str, picture: str) -> str:
    caption = escape(name) + (f"<small>{escape(texts)}</small>" if texts else "")
    return (
        f"<figure><figcaption>{caption}</figcaption>"
        f'<img src="{picture}" alt="pictures of {escape(name)}"></figure>'
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
        row.save(buffer, "JPEG", quality=QUALITY, subsampling=0)
        uris.append(_uri(buffer.getvalue(), "jpeg"))
    return uris


def _uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _image(path: Path, told: str) -> str:
    """A PNG file, within the page."""
    return f'<img src="{_uri(path.read_bytes(), "png")}" alt="{escape(told)}">'


def _card(cell: Cell, place: str) -> str:
    """One cell: what it is, and its plots."""
    lines = [" → ".join(cell.texts) + (f"; {cell.changes}" if cell.changes else "")]
    if cell.judged not in (None, cell.texts):
        lines.append("judged by " + " → ".join(cell.judged))
    if cell.state:
        lines.append(cell.state)
    plots = [_image(path, f"{path.stem} of {cell.name}") for path in cell.plots]
    told = "".join(f"<p>{escape(line)}</p>" for line in lines)
    return (
        f'<article id="{place}">\n<h3>{escape(cell.name)}</h3>\n{told}\n'
        + "\n".join(plots)
        + "\n</article>"
    )


PAGE = Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light dark; --ink: #1c1c21; --soft: #66666f; --line: #d9d9df; --paper: #fff;
  --best: #e3f1e5; --link: #1a56b0; }
@media (prefers-color-scheme: dark) { :root { --ink: #e9e9ee; --soft: #a0a0aa; --line: #3a3a42;
  --paper: #17171b; --best: #1f3b26; --link: #8ab4f8; } }
body { margin: 0 auto; padding: 1.5rem; max-width: 88rem; color: var(--ink); background: var(--paper);
  font: 1rem/1.5 system-ui, sans-serif; }
h1, h2, h3 { line-height: 1.2; margin: 2rem 0 .75rem; }
h1 { margin-top: 0; }
a { color: var(--link); }
small { display: block; color: var(--soft); font-weight: normal; font-size: .75rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .5rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child { text-align: left; white-space: normal; min-width: 11rem; overflow-wrap: anywhere; }
th.group { padding-top: 1.2rem; font-size: 1rem; }
td.best { background: var(--best); font-weight: 600; }
td.state { color: var(--soft); text-align: left; white-space: normal; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; font-size: .85rem; }
dt { font-weight: 600; }
dd { margin: 0; color: var(--soft); }
figure { display: grid; grid-template-columns: 11rem minmax(0, 1fr); align-items: center; gap: 0 1rem; margin: 0; }
figcaption { overflow-wrap: anywhere; font-weight: 600; font-size: .9rem; }
img { max-width: 100%; height: auto; display: block; }
.cells { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(22rem, 100%), 1fr)); gap: 1.5rem; }
article { border-top: 1px solid var(--line); overflow-wrap: anywhere; }
article h3 { margin: .75rem 0 .25rem; }
article p { margin: 0 0 .5rem; font-size: .85rem; color: var(--soft); }
article img { margin-top: .5rem; }
@media (max-width: 45rem) { body { padding: .75rem; } figure { grid-template-columns: minmax(0, 1fr); } }
</style>
</head>
<body>
<h1>$title</h1>
$notes
<h2>Figures</h2>
<div class="wide">
$table
</div>
$meanings
$plot
<h2>The same latents side by side</h2>
$strips
<h2>Cells</h2>
<div class="cells">
$cells
</div>
</body>
</html>
""")
