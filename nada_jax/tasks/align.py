"""Cuts faces out of photographs, as those of FFHQ are."""

import dataclasses
import functools
import time
from pathlib import Path

from ml_collections import ConfigDict

from nada_jax import images
from nada_jax.photos import marks
from nada_jax.photos.align import Align, Aligned, Size, align_photo
from nada_jax.runs.items import Item, listing
from nada_jax.runs.per_image import ImageRun
from nada_jax.settings import Section
from nada_jax.web import gallery

RESULTS = "aligned/*.png", "marked/*.png", "align.html"
MEMORY = "lower size"


class Settings(Section):
    """All of `configs/align.py`."""

    task: str
    images: str
    overwrite: bool
    size: Size
    align: Align


def run(config: ConfigDict, workdir: Path) -> int:
    """Aligns images as configured; see `configs/align.py`.

    Writes config.json, metrics.jsonl, align.html, and for each image NAME aligned/NAME.png, aligned/NAME_2.png for a
    second face, and so on, and marked/NAME.png, the photograph with what was found.

    Args:
      config: all of `configs/align.py`.
      workdir: where the results go.

    Returns:
      The exit code: 0, or 2 where an image could not be done.

    Raises:
      UserError: wrong input; nothing is written then.
    """
    settings = Settings.read(config)
    with ImageRun(config, workdir, listing(settings.images), results=RESULTS) as run:
        todo = run.todo()
        began = time.perf_counter()

        def read(item: Item) -> dict[str, Aligned]:
            nonlocal began
            began = time.perf_counter()
            faces = align_photo(item.path, settings.align, settings.size)
            names = [item.name, *(f"{item.name}_{i}" for i in range(2, len(faces) + 1))]
            for name in names[1:]:
                run.check_name(dataclasses.replace(item, name=name, face_of=item.name))
            return dict(zip(names, faces, strict=True))

        for item, faces in run.read_all(todo, read):
            write(run, item, faces, settings.align.faces, began)
        report(run)
        return run.exit_code()


def write(run: ImageRun, item: Item, faces: dict[str, Aligned], choice: str, began: float) -> None:
    """Writes the results of one image, and says that it is done, and how many faces it has beside those chosen."""
    written = [
        run.write(
            f"aligned/{name}.png", functools.partial(images.save, images.to_uint8(face.image))
        )
        for name, face in faces.items()
    ]
    marked = marks.marked(item.path, list(faces.values()))
    written.append(run.write(f"marked/{item.name}.png", functools.partial(images.save, marked)))
    seconds = time.perf_counter() - began
    quads = [face.quad.round(2).tolist() for face in faces.values()]
    found = next(iter(faces.values())).found
    run.finish(item, written, {"seconds": round(seconds, 3), "faces": found, "quad": quads})
    chosen = choice if choice == "largest" else f"number {choice}"
    of = f" ({found} faces found, the {chosen} taken)" if found > len(faces) else ""
    print(f"{item.name}{of}: {', '.join(str(path) for path in written[:-1])}", flush=True)


def report(run: ImageRun) -> None:
    """Writes the page of all images that are done, and says where it is."""
    cards = []
    for row in run.earlier_rows:
        *aligned, marked = map(run.path, row["files"])
        shown = {"photograph": marked} | {path.stem: path for path in aligned}
        cards.append((row["image"], {"faces": row["faces"], "seconds": row["seconds"]}, shown))
    if cards:
        print(f"all images: {run.write_text('align.html', gallery.page('Aligned faces', cards))}")
