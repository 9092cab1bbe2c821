"""Paints contents in the style of other images."""

import functools
import itertools
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from nada_jax import images, tables
from nada_jax.errors import UserError
from nada_jax.models.vgg import Vgg
from nada_jax.runs import plots
from nada_jax.runs.items import Item, Mix
from nada_jax.runs.per_image import ImageRun
from nada_jax.runs.snapshots import SNAPSHOT
from nada_jax.settings import Count
from nada_jax.style import painting
from nada_jax.style.minimize import Minimizer
from nada_jax.style.objective import Objective
from nada_jax.style.settings import Painting
from nada_jax.transfers import drawing, sources
from nada_jax.transfers.drawing import Drawn, Job
from nada_jax.web import gallery

MEMORY = "lower size, tile or batch_size, or set optimizer.method=adam"  # for a lack of it
RESULTS = (
    "result.png", "strip.png", "loss.png", "results/*.png", "strips/*.png", "style_transfer.html", "style_transfer.md", SNAPSHOT,
)  # fmt: skip

LINES = 10  # results in the plot of losses at most: matplotlib has as many colours
Plans = dict[Mix, tuple[Item, tuple[Item, ...], float]]  # content, styles, weight of the style


class Settings(Painting):
    """All of `configs/style_transfer.py`."""

    task: str
    content: str
    style: str
    overwrite: bool
    start: str
    batch_size: Count
    masks: str


def run(config: ConfigDict, workdir: Path) -> int:
    """Transfers styles as configured; see `configs/style_transfer.py`.

    Writes config.json, metrics.jsonl (a line for each result), style_transfer.html, style_transfer.md, loss.png, and result.png
    and strip.png; or where there are several results results/CONTENT_STYLE.png and strips/CONTENT_STYLE.png.

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
            vgg = settings.vgg.load()
            read = functools.partial(job, settings, vgg, painting.make(settings), plans)
            jobs = [made for _, made in run.read_all(todo, read)]
            options = {"batch_size": settings.batch_size, "style_scale": settings.style_scale}

            def done(drawn: Drawn) -> None:
                write(run, settings, plans, drawn)

            if code := drawing.draw(run, vgg, jobs, done, **options):
                return code
        report(run, settings, several)
        return run.exit_code()


def plan(settings: Settings) -> Plans:
    """All results: their content, styles and weight of the style."""
    contents = sources.find(settings.content, "content")
    styles = sources.find(settings.style, "style")
    masks = sources.in_order(settings.masks, "masks") if settings.masks else []
    start = (
        () if settings.start in painting.STARTS else (sources.one(settings.start, "start").path,)
    )
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
        item = Mix(name, content.path, parts=(*(x.path for x in (*group, *masks)), *start))
        found[item] = content, group, weight
    return found


def job(
    settings: Settings, vgg: Vgg, made: tuple[Objective, Minimizer], plans: Plans, item: Mix
) -> Job:
    """Reads the images of a result, and says what it is to become."""
    content, group, weight = plans[item]
    read = functools.partial(sources.read, side=settings.size)
    base, *rest = [read(path) for path in item.sources]
    start = settings.start if settings.start in painting.STARTS else rest.pop()
    try:
        row, scales = painting.prepare(
            vgg,
            base,
            rest[: len(group)],
            settings,
            style_weight=weight,
            masks=rest[len(group) :],
            start=start,
        )
    except UserError as error:
        raise UserError(f"{item.name}: {error}") from error
    return Job(item, *made, row, scales)


def write(run: ImageRun, settings: Settings, plans: Plans, drawn: Drawn) -> None:
    """Writes the results of one item."""
    item, row = drawn.job.item, drawn.job.row
    content, group, weight = plans[item]
    result = painting.finished(drawn.scales[-1], row, settings)
    shown = {content.name: np.asarray(row.content)}
    shown |= {x.name: np.asarray(style) for x, style in zip(group, row.styles, strict=True)}
    for scale in drawn.scales[:-1]:
        coarse = Image.fromarray(images.to_uint8(scale))
        shown[f"{coarse.width} x {coarse.height}"] = np.asarray(coarse.resize(result.size))
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
        "losses": drawn.losses,
    }
    run.finish(item, written, facts)
    print(f"{item.name}: {written[0]}", flush=True)


def report(run: ImageRun, settings: Settings, several: bool) -> None:
    """Writes the page and the table of all results in the workdir, and says where they are."""
    rows = [row for row in run.earlier_rows if "content" in row]
    if not rows:
        return
    cards, weights = {}, {row["weight"] for row in rows}
    for row in rows:
        name = row["content"] + (f", weight {row['weight']:g}" if len(weights) > 1 else "")
        _, figures, shown = cards.setdefault(name, (name, {}, {row["content"]: Path(row["file"])}))
        shown[row["style"]] = run.path(row["files"][0])
    done = {name for row in rows for name in row["style"].split("+")}
    styles = {x.name: x.path for x in sources.find(settings.style, "style") if x.name in done}
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
    losses = {row["image"]: row["losses"] for row in rows[:LINES]}
    if all(x > 0 for line in losses.values() for _, x in line):
        panel = {"loss": losses}
        run.draw("loss.png", lambda path: plots.plot_panels(panel, "step", path, logarithmic=True))
    run.write_text("style_transfer.md", tables.markdown(table) + "\n")
    print(f"all results: {path}" if several else f"result: {run.path(rows[0]['files'][0])}")
