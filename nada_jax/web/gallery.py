"""Images in labelled rows: as one image, and as a page of HTML that needs no other file."""

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIDE = 256  # pixels of an image in a row at least
MOST = 512  # pixels of an image in a page: larger ones could not be mailed
GAP, LABEL = 4, 22  # pixels between images, and below them for words

FRAME = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ margin: 0 auto; padding: 1.5rem; max-width: 88rem; font: 1rem/1.5 system-ui, sans-serif; }}
h2 {{ font-size: 1rem; margin: 1.5rem 0 .25rem; overflow-wrap: anywhere; }}
small {{ font-weight: normal; opacity: .7; margin-left: .5rem; }}
.row {{ display: flex; flex-wrap: wrap; gap: .5rem; }}
figure {{ margin: 0; }}
img {{ width: 12rem; display: block; image-rendering: {rendering}; }}
figcaption {{ font-size: .8rem; opacity: .8; }}
pre {{ overflow-x: auto; }}
{layout}</style>
</head>
<body>
<h1>{title}</h1>
{rows}
{text}
</body>
</html>
"""

# Of columns that go through all rows, however narrow the window is.
ALIGNED = """body {{ max-width: none; }}
.row {{ display: grid; grid-template-columns: repeat({columns}, minmax(5rem, 12rem)); overflow-x: auto; }}
img {{ width: 100%; }}
"""

Card = tuple[str, Mapping[str, float], Mapping[str, Path]]  # name, figures, label -> image


def strip(images: Mapping[str, np.ndarray], side: int = SIDE) -> np.ndarray:
    """Images beside each other, each above its label.

    Args:
      images: label -> uint8 [h, w, 3] of any sizes; small ones are enlarged by whole pixels, large ones reduced.
      side: of the square in pixels that each gets.

    Returns:
      uint8 [height, width, 3].
    """
    sheet = Image.new("RGB", ((side + GAP) * len(images) - GAP, side + LABEL), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(LABEL - 8)
    for i, (label, pixels) in enumerate(images.items()):
        left = i * (side + GAP)
        image = Image.fromarray(pixels)
        if factor := side // max(image.size):
            # By whole pixels: smoothing would hide artefacts of the generator.
            size = image.width * factor, image.height * factor
            image = image.resize(size, Image.Resampling.NEAREST)
        else:
            image.thumbnail((side, side), Image.Resampling.LANCZOS)
        sheet.paste(image, (left + (side - image.width) // 2, (side - image.height) // 2))
        pen.text((left + 4, side + 2), label[: side // 7], fill="black", font=font)
    return np.asarray(sheet)


def sheet(rows: Sequence[Mapping[str, Path]]) -> np.ndarray:
    """Rows of image files, label -> file, below each other, each as a `strip`.

    Returns:
      uint8 [height, width, 3].
    """
    strips = [strip({label: _read(path) for label, path in row.items()}) for row in rows]
    width = max(x.shape[1] for x in strips)
    padded = [
        np.pad(x, ((0, GAP), (0, width - x.shape[1]), (0, 0)), constant_values=255) for x in strips
    ]
    return np.concatenate(padded)[:-GAP]


def _read(path: Path) -> np.ndarray:
    with Image.open(path) as file:
        return np.asarray(file.convert("RGB"))


def page(title: str, cards: Sequence[Card], *, text: str = "", aligned: bool = False) -> str:
    """A page with a row for each card.

    Args:
      title: its heading.
      cards: what it shows; everything in it is escaped.
      text: a table, below the cards.
      aligned: images of all rows stand in the same columns, and do not go on in a next line.

    Returns:
      HTML.
    """
    rows, small = [], True
    for name, figures, shown in cards:
        numbers = ", ".join(f"{figure} {value:.3g}" for figure, value in figures.items())
        cells = []
        for label, path in shown.items():
            with Image.open(path) as file:
                image = file.convert("RGB")
            small &= image.width < SIDE
            words = escape(label)
            cells.append(
                f'<figure><img src="{_uri(image)}" alt="{words}"><figcaption>{words}</figcaption></figure>'
            )
        head = f"<h2>{escape(name)}<small>{escape(numbers)}</small></h2>"
        rows.append(f'{head}\n<div class="row">\n' + "\n".join(cells) + "\n</div>")
    # Few pixels are shown as they are; many would be distorted by it.
    rendering = "pixelated" if small else "auto"
    columns = max((len(shown) for _, _, shown in cards), default=1)
    return FRAME.format(
        title=escape(title),
        rows="\n".join(rows),
        rendering=rendering,
        layout=ALIGNED.format(columns=columns) if aligned else "",
        text=f"<pre>{escape(text)}</pre>" if text else "",
    )


def _uri(image: Image.Image) -> str:
    """A small image exactly, a large one reduced."""
    buffer = io.BytesIO()
    if image.width < SIDE:
        image.save(buffer, "PNG")
        kind = "png"
    else:
        image.thumbnail((MOST, MOST))
        image.save(buffer, "JPEG", quality=90)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
