"""Draws the content and style images that ship.

python -m tests.assets.draw_images nada_jax/assets             # all: about a minute on one CPU core
python -m tests.assets.draw_images /tmp/assets wood harbour    # some, elsewhere

The same version of NumPy and Pillow draws the same files; others may differ in the last bits.
"""

import sys
import time
from pathlib import Path

import numpy as np

from tests.assets.canvas import save
from tests.assets.cat import cat
from tests.assets.harbour import harbour
from tests.assets.inlays import glass, mosaic
from tests.assets.landscape import landscape
from tests.assets.paintings import planes, strokes
from tests.assets.portrait import portrait
from tests.assets.prints import engraving, waves, wood
from tests.assets.still_life import still_life

FOLDERS = {
    "contents": (cat, harbour, landscape, portrait, still_life),
    "styles": (engraving, glass, mosaic, planes, strokes, waves, wood),
}
DRAWINGS = {draw.__name__: draw for drawn in FOLDERS.values() for draw in drawn}


def image(name):
    """The drawing of a name, float [h, w, 3] of sRGB about [0, 1]; each has a seed of its own."""
    return DRAWINGS[name](np.random.default_rng(list(name.encode())))


def main(target, *names):
    for folder, drawn in FOLDERS.items():
        for name in (x.__name__ for x in drawn):
            if names and name not in names:
                continue
            start = time.perf_counter()
            path = Path(target) / folder / f"{name}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            quality = save(path, image(name))
            print(f"{path}: {time.perf_counter() - start:.1f} s, quality {quality}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
