"""Paints contents in the style of other images."""

import functools
import itertools
from pathlib import Path
from typing import Annotated

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from nada_jax import images, tables
from nada_jax.errors import UserError
from nada_jax.models.vgg import Vgg
from nada_jax.runs.per_image import ImageRun
from nada_jax.settings import Count, NonNegative, Number, Positive, Rule, Section, Seed, one_of
from nada_jax.style import colors
from nada_jax.style.minimize import Minimizer
from nada_jax.style.objective import Objective
from nada_jax.style.settings import Network, Optimizer, Scales, Side, Style
from nada_jax.style.transfer import Row, scales
from nada_jax.transfers import drawing, sources
from nada_jax.transfers.drawing import SNAPSHOT, Drawn, Interrupted, Job
from nada_jax.transfers.sources import Mix
from nada_jax.web import gallery
from nada_jax.weights import loading

MEMORY = "lower size, tile or batch_size, or set optimizer.method=adam"  # for a lack of it
RESULTS = (
    "result.png", "strip.png", "results/*.png", "strips/*.png", "style_transfer.html", "style_transfer.md", SNAPSHOT,
)  # fmt: skip
STARTS = ("content", "noise")
Weights = Annotated[
    tuple[float, ...],
    Rule(lambda x: x and all(0 <= y < np.inf for y in x), "one number from 0 or several"),
]


class Loss(Style, name="loss"):
    """The terms and their weights; `config.loss`."""

    content: NonNegative
    style: Weights
    content_layers: tuple[str, ...]

    def check(self) -> None:
        """Weights differ, as results are called by them, and something is asked for."""
        super().check()
        named = {f"{x:g}" for x in self.style}
        self.need(len(named) == len(self.style), "style", "numbers that differ in six digits")
        self.need(bool(self.style_layers), "style_layers", "at least one layer")
        self.need(bool(self.content_layers) or not self.content, "content_layers", "a layer")


class Settings(Section):
    """All of `configs/style_transfer.py`."""

    task: str
    content: str
    style: str
    overwrite: bool
    size: Side
    start: str
    seed: Seed
    batch_size: Count
    tile: Side
    blend: tuple[float, ...]
    masks: str
    style_scale: Positive
    colors: Annotated[str, one_of(colors.COLORS)]
    strength: Number
    vgg: Network
    loss: Loss
    scales: Scales
    optimizer: Optimizer

    def check(self) -> None:
        """Shares of styles add up to something."""
        good = all(0 <= x < np.inf for x in self.blend) and (sum(self.blend) > 0 or not self.blend)
        self.need(good, "blend", "() or numbers from 0, not all of them 0")


def run(config: ConfigDict, workdir: Path) -> int:
    """Transfers styles as configured; see `configs/style_transfer.py`.

    Writes config.json, metrics.jsonl, and result.png and strip.png; or where there are several results
    results/CONTENT_STYLE.png, strips/CONTENT_STYLE.png, style_transfer.html and style_transfer.md.

    Args:
      config: all of `configs/style_transfer.py`.
      workdir: where the results go; a run that stands there is continued.

    Returns:
      The exit code: 0; 2 where an image could not be done; 128 and the number of the signal that ended the run.

    Raises:
      UserError: wrong input; nothing is written then.
    """
    settings = Settings.read(config)
    plans = plan(settings)
    several = len(plans) > 1
    free = {"batch_size", "overwrite"} | ({"content", "style"} if several else set())
    with ImageRun(config, workdir, list(plans), results=RESULTS, free=free) as run:
        if todo := run.todo():
            vgg = loading.load_lpips(settings.vgg.weights, field="vgg.weights")
            settings.vgg.check_layers(vgg, "loss.content_layers", settings.loss.content_layers)
            settings.vgg.check_layers(vgg, "loss.style_layers", settings.loss.style_layers)
            print(f"features of {described(vgg, settings.vgg.weights)}", flush=True)
            objective, minimizer = make(settings)
            read = functools.partial(job, settings, vgg, plans)
            jobs = [made for _, made in run.read_all(todo, read)]
            options = {"batch_size": settings.batch_size, "style_scale": settings.style_scale}
            try:
                for drawn in drawing.draw(run, vgg, objective, minimizer, jobs, **options):
                    write(run, settings, plans, drawn)
            except Interrupted as stopped:
                print("stopped; the same command continues there", flush=True)
                return stopped.code
        report(run, settings, several)
        return run.exit_code()


def described(vgg: Vgg, name: str) -> str:
    """Which network is in use, in words."""
    trained = {"torchvision": "torchvision's", "caffe": "the original"}
    kind = trained[vgg.architecture.preprocessing]
    return f"VGG-{vgg.architecture.depth} with {kind} preprocessing ({name})"


def plan(settings: Settings) -> dict[Mix, tuple[sources.Item, tuple[sources.Item, ...], float]]:
    """All results: their content, styles and weight of the style."""
    contents = sources.find(settings.content, "content")
    styles = sources.find(settings.style, "style")
    masks = sources.find(settings.masks, "masks") if settings.masks else []
    together = bool(settings.blend) or bool(masks)
    if settings.blend and len(settings.blend) != len(styles):
        raise UserError(
            f"blend is {settings.blend}; expected a share for each of the {len(styles)} styles"
        )
    if masks and len(masks) != len(styles):
        raise UserError(
            f"masks is {settings.masks!r}; expected a mask for each of the {len(styles)} styles"
        )
    found = {}
    groups = [tuple(styles)] if together else [(style,) for style in styles]
    for content, group, weight in itertools.product(contents, groups, settings.loss.style):
        name = f"{content.name}_{'+'.join(x.name for x in group)}"
        name += f"_{weight:g}" if len(settings.loss.style) > 1 else ""
        parts = tuple(x.path for x in (*group, *masks))
        found[Mix(name, content.path, parts=parts)] = content, group, weight
    return found


def make(settings: Settings) -> tuple[Objective, Minimizer]:
    """The loss and its optimiser."""
    loss = settings.loss
    objective = Objective(
        loss.content_layers if loss.content else (),
        loss.style_layers,
        loss.kind,
        settings.vgg.pooling,
        tile=settings.tile,
    )
    optimizer = settings.optimizer
    return objective, Minimizer(
        objective.of_rows, optimizer.method, optimizer.lr, optimizer.averaging
    )


def job(settings: Settings, vgg: Vgg, plans: dict, item: Mix) -> Job:
    """Reads the images of a result, and says what it is to become."""
    content, group, weight = plans[item]
    loss, side = settings.loss, settings.size
    base = sources.read(content.path, side)
    styles = tuple(sources.read(x.path, side) for x in group)
    if settings.colors == "match":
        styles = tuple(colors.matched(x, base) for x in styles)
    masks = tuple(sources.read(path, side) for path in item.parts[len(group) :])
    start = {"content": base, "noise": None}.get(settings.start, ...)
    if start is ...:
        (other,) = sources.find(settings.start, "start")[:1]
        start = sources.read(other.path, side)
    blend = settings.blend or (1.0,) * len(styles)
    shares = tuple(x if masks else x / sum(blend) for x in blend)
    factor = side / max(base.size)
    height, width = (max(1, round(x * factor)) for x in (base.height, base.width))
    try:
        sizes = scales(
            height,
            width,
            smallest=settings.scales.smallest,
            first_steps=settings.scales.first_steps,
            steps=settings.scales.steps,
            least=least(vgg, settings),
        )
    except UserError as error:
        raise UserError(f"{content.path}: {error}") from error
    row = Row(
        content=base,
        styles=styles,
        start=start,
        seed=settings.seed,
        content_weights=(loss.content / max(1, len(loss.content_layers)),)
        * len(loss.content_layers),
        style_weights=tuple(weight * x for x in loss.layer_weights),
        blend=shares,
        masks=masks,
        total_variation=loss.total_variation,
    )
    return Job(item, row, tuple(sizes))


def least(vgg: Vgg, settings: Settings) -> int:
    """Shortest side in pixels that the deepest layer can look at."""
    layers = (*settings.loss.content_layers, *settings.loss.style_layers)
    return max(vgg.architecture.reach(name)[0] for name in layers)


def write(run: ImageRun, settings: Settings, plans: dict, drawn: Drawn) -> None:
    """Writes the results of one item."""
    item, row = drawn.job.item, drawn.job.row
    content, group, weight = plans[item]
    result = finished(settings, row, drawn.scales[-1])
    shown = {content.name: np.asarray(row.content)}
    shown |= {x.name: np.asarray(style) for x, style in zip(group, row.styles, strict=True)}
    for scale in drawn.scales[:-1]:
        shown[f"{scale.shape[1]} x {scale.shape[0]}"] = images.to_uint8(scale)
    shown[f"result, {result.width} x {result.height}"] = np.asarray(result)
    strip = gallery.strip(shown)
    several = len(plans) > 1
    names = (f"results/{item.name}.png", f"strips/{item.name}.png") if several else RESULTS[:2]
    written = [
        run.write(name, functools.partial(images.save, pixels))
        for name, pixels in zip(names, (result, strip), strict=True)
    ]
    facts = {
        "content": content.name,
        "style": "+".join(x.name for x in group),
        "weight": weight,
        "content_loss": drawn.figures.get("content"),
        "style_loss": drawn.figures["style"],
        "seconds": round(drawn.seconds, 1),
    }
    run.finish(item, written, facts)
    print(f"{item.name}: {written[0]}", flush=True)


def finished(settings: Settings, row: Row, image: np.ndarray) -> Image.Image:
    """A result [h, w, 3] in [-1, 1] with the colours and the strength that are asked for."""
    result = Image.fromarray(images.to_uint8(image))
    if settings.colors == "luminance":
        result = colors.with_colors(result, row.content)
    if settings.strength == 1:
        return result
    below = images.from_uint8(row.content.resize(result.size, Image.Resampling.LANCZOS))
    mixed = below + settings.strength * (images.from_uint8(result) - below)
    return Image.fromarray(images.to_uint8(mixed))


def report(run: ImageRun, settings: Settings, several: bool) -> None:
    """Says where the results are; of several, writes the page and the table of all that are in the workdir."""
    rows = [row for row in run.earlier_rows if "content" in row]
    if not several:
        for row in rows:
            print(f"result: {run.path(row['files'][0])}")
        return
    if not rows:
        return
    cards, weights = {}, {row["weight"] for row in rows}
    for row in rows:
        name = row["content"] + (f", weight {row['weight']:g}" if len(weights) > 1 else "")
        _, figures, shown = cards.setdefault(name, (name, {}, {row["content"]: Path(row["file"])}))
        shown[row["style"]] = run.path(row["files"][0])
    styles = {x.name: x.path for x in sources.find(settings.style, "style")}
    first = ("styles", {}, styles)
    page = gallery.page("Style transfer", [first, *cards.values()])
    path = run.write_text("style_transfer.html", page)
    columns = {
        "content": "",
        "style": "",
        "weight": "g",
        "content_loss": ".4g",
        "style_loss": ".4g",
        "seconds": ".1f",
    }
    table = [
        {
            name: "" if row[name] is None else format(row[name], form)
            for name, form in columns.items()
        }
        for row in rows
    ]
    run.write_text("style_transfer.md", tables.markdown(table) + "\n")
    print(f"all results: {path}")
