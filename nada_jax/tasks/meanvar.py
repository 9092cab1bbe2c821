"""Compares ways to describe a style, at several weights, on one content and one style."""

import dataclasses
import functools
import itertools
from pathlib import Path
from typing import Annotated

import numpy as np
from ml_collections import ConfigDict

from nada_jax import images, tables
from nada_jax.losses import style as losses
from nada_jax.losses.style import KINDS
from nada_jax.models.vgg import Vgg
from nada_jax.runs.items import Item, Mix
from nada_jax.runs.per_image import ImageRun
from nada_jax.runs.snapshots import SNAPSHOT
from nada_jax.settings import Count, Positive, Rule, Section, Seed
from nada_jax.style import painting
from nada_jax.style.objective import Objective
from nada_jax.style.settings import Loss, Network, Optimizer, Painting, Scales, Side, Terms
from nada_jax.transfers import drawing, sources
from nada_jax.transfers.drawing import Drawn, Job
from nada_jax.transfers.measures import Gauge
from nada_jax.web import gallery

MEMORY = "lower size or batch_size, or set optimizer.method=adam"  # for a lack of it
RESULTS = "results/*.png", "meanvar.html", "meanvar.md", SNAPSHOT
KIND_NAMES = Rule(
    lambda x: x and set(x) <= set(KINDS) and len(set(x)) == len(x),
    f"different names out of {', '.join(KINDS)}",
)


class Settings(Section):
    """All of `configs/meanvar.py`."""

    task: str
    content: str
    style: str
    overwrite: bool
    size: Side
    seed: Seed
    batch_size: Count
    tile: Side
    style_scale: Positive
    kinds: Annotated[tuple[str, ...], KIND_NAMES]
    vgg: Network
    loss: Terms
    scales: Scales
    optimizer: Optimizer

    def painting(self, kind: str) -> Painting:
        """The settings of one kind, as style transfer has them."""
        own = {
            x.name: getattr(self, x.name)
            for x in dataclasses.fields(Painting)
            if hasattr(self, x.name)
        }
        terms = {x.name: getattr(self.loss, x.name) for x in dataclasses.fields(Terms)}
        own |= {"loss": Loss(kind=kind, **terms), "blend": (), "colors": "style", "strength": 1.0}
        return Painting(**own)


def run(config: ConfigDict, workdir: Path) -> int:
    """Draws one content in one style by every kind and weight; see `configs/meanvar.py`.

    Writes config.json, metrics.jsonl, results/KIND_WEIGHT.png, meanvar.html and meanvar.md.

    Args:
      config: all of `configs/meanvar.py`.
      workdir: where the results go; a run that stands there is continued.

    Returns:
      The exit code: 0, or 128 and the number of the signal that ended the run.

    Raises:
      UserError: wrong input; nothing is written then.
    """
    settings = Settings.read(config)
    content, style = (
        sources.one(getattr(settings, field), field) for field in ("content", "style")
    )
    plans = {
        Mix(f"{kind}_{weight:g}", content.path, parts=(style.path,)): (kind, weight)
        for kind, weight in itertools.product(settings.kinds, settings.loss.style)
    }
    free = {"batch_size", "overwrite", "kinds"}
    with ImageRun(config, workdir, list(plans), results=RESULTS, free=free) as run:
        if todo := run.todo():
            vgg = settings.vgg.load()
            jobs = plan(settings, vgg, {item: plans[item] for item in todo})
            options = {"batch_size": settings.batch_size, "style_scale": settings.style_scale}

            def done(drawn: Drawn) -> None:
                write(run, settings, vgg, drawn, *plans[drawn.job.item])

            if code := drawing.draw(run, vgg, jobs, done, **options):
                return code
        write_page(run, content, style)
        return run.exit_code()


def plan(settings: Settings, vgg: Vgg, plans: dict[Mix, tuple[str, float]]) -> list[Job]:
    """What results are to become, by their kind and weight."""
    made = {kind: painting.make(settings.painting(kind)) for kind in settings.kinds}
    jobs = []
    for item, (kind, weight) in plans.items():
        base, style = (sources.read(path, settings.size) for path in (item.path, *item.parts))
        row, scales = painting.prepare(
            vgg,
            base,
            [style],
            settings.painting(kind),
            style_weight=weight,
            masks=(),
            start="content",
        )
        jobs.append(Job(item, *made[kind], row, scales))
    return jobs


def write(
    run: ImageRun, settings: Settings, vgg: Vgg, drawn: Drawn, kind: str, weight: float
) -> None:
    """Writes and measures one result."""
    item = drawn.job.item
    pixels = images.to_uint8(drawn.scales[-1])
    path = run.write(f"results/{item.name}.png", functools.partial(images.save, pixels))
    found = {"content": drawn.figures.get("content", 0.0)} | measure(vgg, settings, drawn)
    facts = {"kind": kind, "weight": weight} | found
    run.finish(item, [path], facts | {"seconds": round(drawn.seconds, 1)})


def measure(vgg: Vgg, settings: Settings, drawn: Drawn) -> dict[str, float]:
    """Distance of a result to the style by every kind, and its variety over that of the style."""
    image, (style,) = drawn.scales[-1], drawn.job.row.styles
    layers, pooling, tile = settings.loss.style_layers, settings.vgg.pooling, settings.tile
    found = {}
    for kind in KINDS:
        objective = Objective((), layers, kind, pooling, tile=tile)
        gauge = Gauge(vgg, objective, max(image.shape) * settings.style_scale)
        found[kind] = sum(gauge.distances(style, image).values())
        if kind == "wasserstein":
            ours, theirs = gauge.describe(image), gauge.of_style(style)
            ratios = [losses.variety(ours[x]) / losses.variety(theirs[x]) for x in layers]
            found["variety"] = float(np.mean(ratios))
    return found


def write_page(run: ImageRun, content: Item, style: Item) -> None:
    """Writes the page and the table of all results in the workdir, and says where they are."""
    rows = [row for row in run.earlier_rows if "kind" in row]
    if not rows:
        return
    order = list(KINDS)
    rows.sort(key=lambda row: (order.index(row["kind"]), row["weight"]))
    cards = [("content and style", {}, {content.name: content.path, style.name: style.path})]
    for kind, of_kind in itertools.groupby(rows, key=lambda row: row["kind"]):
        shown = {f"weight {row['weight']:,g}": run.path(row["files"][0]) for row in of_kind}
        cards.append((f"{kind}: {KINDS[kind].what}", {}, shown))
    columns = {
        "kind": "", "weight": ",g", "content": ".4g", **dict.fromkeys(KINDS, ".4g"), "variety": ".3f", "seconds": ".1f",
    }  # fmt: skip
    table = [{name: format(row[name], form) for name, form in columns.items()} for row in rows]
    run.write_text("meanvar.md", tables.markdown(table) + "\n")
    path = run.write_text(
        "meanvar.html", gallery.page("Gram, mean and variance, Wasserstein", cards)
    )
    print(f"all results: {path}")
