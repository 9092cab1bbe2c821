"""Shows what each layer of a VGG keeps of an image: images found from noise by the features of one layer alone."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from nada_jax import images, tables
from nada_jax.losses.style import EPS
from nada_jax.models.vgg import Vgg
from nada_jax.runs import plots
from nada_jax.runs.items import Item
from nada_jax.runs.per_image import ImageRun
from nada_jax.runs.snapshots import SNAPSHOT
from nada_jax.settings import Count, NonNegative, Rule, Section, Seed, need
from nada_jax.style.objective import PIXEL, Objective
from nada_jax.style.settings import Network, Optimizer, Side
from nada_jax.style.transfer import Row, scaled, scales
from nada_jax.transfers import drawing, sources
from nada_jax.transfers.drawing import Drawn, Job
from nada_jax.web import gallery

MEMORY = "lower size or batch_size"  # for a lack of it
PAGE, TABLE, STRIP, CONTENT = (
    "feature_inversion.html", "feature_inversion.md", "strip.png", "content.png",
)  # fmt: skip
PLOTS = "loss.png", "brightness.png"
RESULTS = ("layers/*.png", CONTENT, STRIP, *PLOTS, PAGE, TABLE, SNAPSHOT)
FREE = "layers", "batch_size", "overwrite"  # further layers stand beside earlier ones
FIRST = 13  # convolutions, by default: all of VGG-16
KINDS = {"conv": "convolutions", "relu": "ReLUs"}
LAYERS = Rule(
    lambda layers: all(isinstance(x, str) or type(x) is int for x in layers),
    "numbers of convolutions, as (1, 13), or names of layers, as ('relu4_2',)",
)


class Settings(Section):
    """All of `configs/feature_inversion.py`."""

    task: str
    content: str
    overwrite: bool
    layers: Annotated[tuple, LAYERS]
    size: Side
    steps: Count
    total_variation: NonNegative
    seed: Seed
    batch_size: Count
    vgg: Network
    optimizer: Optimizer


def run(config: ConfigDict, workdir: Path) -> int:
    """Inverts layers as configured; see `configs/feature_inversion.py`.

    Writes config.json, metrics.jsonl (an object a layer), content.png, layers/LAYER.png, strip.png, loss.png,
    brightness.png, feature_inversion.html and feature_inversion.md.

    Args:
      config: all of `configs/feature_inversion.py`.
      workdir: where the results go; a run that stands there is continued.

    Returns:
      The exit code: 0; 128 and the number of the signal that ended the run.

    Raises:
      UserError: wrong input; nothing is written then.
    """
    settings = Settings.read(config)
    content = sources.one(settings.content, "content")
    vgg = settings.vgg.load()
    layers = chosen(settings, vgg)
    items = [Item(layer, content.path) for layer in layers]
    with ImageRun(config, workdir, items, results=RESULTS, free=FREE) as run:
        if todo := run.todo():
            base = sources.read(content.path, settings.size)
            pixels = scaled(base, settings.size)
            jobs = plan(settings, vgg, base, pixels, todo)
            run.write(CONTENT, functools.partial(images.save, images.to_uint8(pixels)))

            def done(drawn: Drawn) -> None:
                write(run, vgg, pixels, drawn)

            if code := drawing.draw(run, vgg, jobs, done, batch_size=settings.batch_size):
                return code
        report(run)
        return run.exit_code()


def chosen(settings: Settings, vgg: Vgg) -> list[str]:
    """The layers to invert, from the first to the deepest."""
    known = [x for x in vgg.architecture.layers() if x[:4] in KINDS]
    depths = {x: depth(vgg, x) for x in known}
    wanted = settings.layers or tuple(range(1, min(FIRST, max(depths.values())) + 1))
    missing = {x for x in wanted if x not in depths and x not in depths.values()}
    expected = f"numbers in 1..{max(depths.values())}, or names out of {', '.join(known)}"
    need(not missing, "layers", settings.layers, expected)
    return [x for x in known if x in wanted or depths[x] in wanted]


def depth(vgg: Vgg, layer: str) -> int:
    """Number of the convolution that a layer is, or follows on."""
    layers = vgg.architecture.layers()
    return sum(x.startswith("conv") for x in layers[: layers.index(layer) + 1])


def plan(
    settings: Settings, vgg: Vgg, base: Image.Image, pixels: np.ndarray, items: Sequence[Item]
) -> list[Job]:
    """What each layer's image is to become; `pixels` [h, w, 3] are the content's at the size of the images.

    Layers of a block share a program, which ends with the deepest of them: one for each would take longer to compile,
    one for all would compute deep layers for images that are compared in shallow ones.
    """
    names = [item.name for item in items]
    (scale,) = scales(
        *pixels.shape[:2],
        smallest=settings.size,
        first_steps=settings.steps,
        steps=settings.steps,
        least=max(vgg.architecture.reach(name)[0] for name in names),
    )
    whole = Objective(tuple(names), pooling=settings.vgg.pooling)
    energy = jax.device_get(_energy(whole, vgg, pixels[None]))
    jobs = []
    for block in dict.fromkeys(name[4] for name in names):
        own = [item for item in items if item.name[4] == block]
        objective = Objective(tuple(item.name for item in own), pooling=settings.vgg.pooling)
        minimizer = settings.optimizer.of(objective)
        for item in own:
            # Mahendran & Vedaldi 2015, eq. 4: relative to the features, so that the weight of the total variation means
            # the same for all layers.
            weight = 1 / max(float(energy[item.name]), EPS)
            row = Row(
                content=base,
                styles=(),
                start=None,
                seed=settings.seed,
                content_weights=tuple(weight * (x is item) for x in own),
                style_weights=(),
                blend=(),
                masks=(),
                total_variation=settings.total_variation,
            )
            jobs.append(Job(item, objective, minimizer, row, (scale,)))
    return jobs


@functools.partial(jax.jit, static_argnums=0)
def _energy(objective: Objective, vgg: Vgg, pixels: jax.Array) -> dict[str, jax.Array]:
    """Mean square of the features of each layer."""
    return jax.tree.map(lambda x: jnp.mean(x**2), objective.remember(vgg, pixels))


def write(run: ImageRun, vgg: Vgg, content: np.ndarray, drawn: Drawn) -> None:
    """Writes the image of one layer, and measures it."""
    item, image = drawn.job.item, drawn.scales[-1]
    save = functools.partial(images.save, images.to_uint8(image))
    file = run.write(f"layers/{item.name}.png", save)
    # An objective of one layer has no need to name it.
    loss = drawn.figures.get(f"content_{item.name}", drawn.figures["content"])
    figures = {
        "depth": depth(vgg, item.name),
        "loss": loss * max(drawn.job.row.content_weights),
        "mse": float(np.mean((image - content) ** 2)),
        "brightness": float(np.mean(image) + 1) * PIXEL,
        "content_brightness": float(np.mean(content) + 1) * PIXEL,
        "total_variation": drawn.figures["total_variation"],
        "seconds": round(drawn.seconds, 1),
    }
    run.finish(item, [file], figures)
    print(
        f"{item.name}: content loss {figures['loss']:.2g}, error of pixels {figures['mse']:.2g}",
        flush=True,
    )


def report(run: ImageRun) -> None:
    """Draws the plots, the sheet and the tables of all layers in the workdir."""
    rows = sorted((row for row in run.earlier_rows if "depth" in row), key=lambda row: row["depth"])
    if not rows:
        return
    kinds = {
        words: [row for row in rows if row["image"].startswith(kind)]
        for kind, words in KINDS.items()
    }
    kinds = {words: found for words, found in kinds.items() if found}

    def lines(figure: str) -> dict[str, list[tuple[float, float]]]:
        return {
            words: [(row["depth"], row[figure]) for row in found] for words, found in kinds.items()
        }

    losses = {
        "content loss over the mean\nsquare of the features": lines("loss"),
        "mean squared error of\npixels, on [-1, 1]": lines("mse"),
    }
    number = "number of the convolution"
    run.draw("loss.png", lambda path: plots.plot_panels(losses, number, path, logarithmic=True))
    level = {"content": [(row["depth"], row["content_brightness"]) for row in rows]}
    bright = {"mean brightness, 0 to 255": lines("brightness") | level}
    run.draw("brightness.png", lambda path: plots.plot_panels(bright, number, path))

    content = {"content": run.path(CONTENT)}
    shown = {
        words: {row["image"]: run.path(row["files"][0]) for row in found}
        for words, found in kinds.items()
    }
    sheet = gallery.sheet([content | row for row in shown.values()])
    run.write(STRIP, functools.partial(images.save, sheet))
    cards = [("content", {}, content), *((words, {}, row) for words, row in shown.items())]
    table = [_line(found) for found in _by_depth(rows)]
    text = tables.plain(table)
    run.write_text(PAGE, gallery.page("Feature inversion", cards, text=text, aligned=True))
    run.write_text(TABLE, tables.markdown(table) + "\n")
    print(f"page: {run.path(PAGE)}")


def _by_depth(rows: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    depths = dict.fromkeys(row["depth"] for row in rows)
    return [[row for row in rows if row["depth"] == number] for number in depths]


def _line(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """A line of the table: the figures of a convolution and of its ReLU."""
    line = {"layer": rows[0]["image"][4:]}
    for figure, form in (("loss", ".2g"), ("mse", ".2g"), ("brightness", ".1f")):
        for kind in KINDS:
            for row in rows:
                if row["image"].startswith(kind):
                    line[f"{figure}, {kind}"] = format(row[figure], form)
    return line
