"""Results as files of a job and as HTML of the page: images with words below, which can be saved."""

import html
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import numpy as np

from nada_jax import files, images
from nada_jax.demo.job import Job

SIDE = 256  # pixels, at least, of a shown image; smaller ones are enlarged by whole pixels

CSS = """
.nada-figures { display: grid; gap: 12px; grid-template-columns: repeat(auto-fill, minmax(min(100%, 150px), 1fr)); }
.nada-figures.wide { grid-template-columns: repeat(auto-fill, minmax(min(100%, 260px), 1fr)); }
.nada-figures:has(> figure:only-child) { grid-template-columns: minmax(0, 560px); }
.nada-figures figure { margin: 0; padding: 8px; border: 1px solid var(--border-color-primary);
  border-radius: 8px; background: var(--background-fill-secondary); }
.nada-figures .pair { display: grid; grid-template-columns: 1fr 1fr; gap: 4px; }
.nada-figures img, .nada-figures video { display: block; width: 100%; height: auto; border-radius: 4px; margin: 0; }
.nada-figures figcaption { display: flex; flex-wrap: wrap; gap: 2px 8px; justify-content: space-between; margin-top: 6px;
  font-size: 0.8rem; color: var(--body-text-color); overflow-wrap: anywhere; }
.nada-figures a, .nada-all a { color: var(--link-text-color, #2563eb); text-decoration: underline; }
.nada-all { margin: 10px 0 0; }
.nada-thumbnails, .nada-thumbnails .grid-wrap, .nada-thumbnails .gallery-container { height: auto !important;
  min-height: 0 !important; }
#sample-presets .caption-label { font-size: 0.75rem; padding: 2px 4px; }
#sample-presets img { object-position: left; }
.nada-thumbnails .grid-container { grid-auto-rows: auto; }
[id$="-examples"] .grid-container { grid-template-columns: repeat(auto-fill, minmax(56px, 1fr)) !important; }
@media (max-width: 640px) { #sample-presets .grid-container { grid-template-columns: repeat(3, 1fr) !important; } }
.nada-empty { padding: 32px 16px; text-align: center; color: var(--body-text-color-subdued);
  border: 1px dashed var(--border-color-primary); border-radius: 8px; margin: 0; }
"""


class Picture(NamedTuple):
    """A file of a job, as it is shown.

    Attributes:
      path: the file.
      alt: what is seen, for who does not see it.
    """

    path: Path
    alt: str


class Figure(NamedTuple):
    """One or two pictures and the words below, with a link that saves each picture."""

    pictures: Sequence[Picture]
    caption: str


def save(job: Job, name: str, pixels: np.ndarray) -> Path:
    """Writes uint8 [h, w, 3] into the folder of a job as NAME.png, enlarged by whole pixels to `SIDE` or more."""
    path = job.directory / f"{name}.png"
    images.save(pixels, path, enlarge=max(1, -(-SIDE // max(pixels.shape[:2]))))
    return path


def pack(job: Job, name: str, paths: Sequence[Path]) -> Path:
    """All files in one, NAME.zip."""
    path = job.directory / f"{name}.zip"
    with (
        files.atomic(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as whole,
    ):
        for one in paths:  # images are compressed already
            whole.write(one, one.name)
    return path


def address(path: Path) -> str:
    """How the page asks for a file."""
    return f"gradio_api/file={quote(str(path))}"


def gallery(figures: Sequence[Figure], *, whole: Path | None = None, wide: bool = False) -> str:
    """Figures as HTML.

    Args:
      figures: from left to right.
      whole: a file with all of them, to be saved.
      wide: whether they are large.
    """
    cards = "".join(_card(figure) for figure in figures)
    link = f'<p class="nada-all">{_link(whole, "Save all (zip)")}</p>' if whole else ""
    return f'<div class="nada-figures{" wide" if wide else ""}">{cards}</div>{link}'


def empty(sentence: str) -> str:
    """What stands where there is no result yet."""
    return f'<p class="nada-empty">{html.escape(sentence)}</p>'


def _card(figure: Figure) -> str:
    shown = "".join(map(_shown, figure.pictures))
    if len(figure.pictures) > 1:
        shown = f'<div class="pair">{shown}</div>'
    caption = html.escape(figure.caption)
    words = ("Save left", "Save right") if len(figure.pictures) > 1 else ("Save",)
    saved = " ".join(
        _link(picture.path, word, f"{word}: {picture.alt}")
        for word, picture in zip(words, figure.pictures, strict=True)
    )
    return f"<figure>{shown}<figcaption><span>{caption}</span><span>{saved}</span></figcaption></figure>"


def _shown(picture: Picture) -> str:
    source, alt = address(picture.path), html.escape(picture.alt, quote=True)
    if picture.path.suffix == ".mp4":
        return f'<video src="{source}" aria-label="{alt}" controls loop muted autoplay playsinline></video>'
    return f'<img src="{source}" alt="{alt}">'


def _link(path: Path, words: str, label: str = "") -> str:
    label = f' aria-label="{html.escape(label, quote=True)}"' if label else ""
    return f'<a href="{address(path)}" download="{html.escape(path.name, quote=True)}"{label}>{words}</a>'
