"""Draws textures from noise by the style of images alone (Gatys, Ecker & Bethge 2015, arXiv 1505.07376)."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
from ml_collections import ConfigDict

from nada_jax import images, tables
from nada_jax.errors import UserError
from nada_jax.models.vgg import Vgg
from nada_jax.runs.items import Item
from nada_jax.runs.per_image import ImageRun
from nada_jax.runs.snapshots import SNAPSHOT
from nada_jax.settings import Count, Positive, Rule, Section, Seed, need, one_of
from nada_jax.style.minimize import Minimizer
from nada_jax.style.objective import Objective
from nada_jax.style.settings import SIDE, Network, Optimizer, Scales, Side, Style
from nada_jax.style.transfer import Row, check_style, noise, scales
from nada_jax.transfers import drawing, sources
from nada_jax.transfers.drawing import Drawn, Job
from nada_jax.transfers.measures import Gauge
from nada_jax.web import gallery

MEMORY = "lower size, tile or batch_size"  # for a lack of it
RESULT, STRIP, TILED, PAGE, TABLE = (
    "result.png", "strip.png", "tiled.png", "texture.html", "texture.md",
)  # fmt: skip
RESULTS = (RESULT, STRIP, TILED, PAGE, TABLE, "results/*.png", "tiled/*.png", SNAPSHOT)
SHOWN = 8  # styles in the strip at most; the page shows them all


class Loss(Style, name="loss"):
    """The terms and their weights; `config.loss`."""

    style: Positive

    def check(self) -> None:
        """Something is asked for."""
        super().check()
        self.need(bool(self.style_layers), "style_layers", "at least one layer")


def each(layers: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """A texture for each layer."""
    return {layer: (layer,) for layer in layers}


def cumulative(layers: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """A texture for the first layer, the first two, and so on."""
    found = [layers[:count] for count in range(1, len(layers) + 1)]
    return {"-".join(dict.fromkeys((x[0], x[-1]))): x for x in found}


def whole(layers: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """One texture of all layers."""
    return dict([list(cumulative(layers).items())[-1]])


# Name -> rows of textures, each: label -> layers that count.
SETS = {
    "all": {"all layers": whole},
    "each": {"each layer": each},
    "cumulative": {"cumulative": cumulative},
    "both": {"each layer": each, "cumulative": cumulative},
}


class Settings(Section):
    """All of `configs/texture.py`."""

    task: str
    style: str
    overwrite: bool
    sets: Annotated[str, one_of(SETS)]
    size: Side
    width: Annotated[int, Rule(lambda x: x == 0 or SIDE.good(x), f"0, or {SIDE.expected}")]
    tileable: bool
    style_scale: Positive
    seed: Seed
    batch_size: Count
    tile: Side
    vgg: Network
    loss: Loss
    scales: Scales
    optimizer: Optimizer

    @property
    def rows(self) -> dict[str, dict[str, tuple[str, ...]]]:
        """Heading -> label -> layers of a texture."""
        return {head: of(self.loss.style_layers) for head, of in SETS[self.sets].items()}

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the textures."""
        return self.size, self.width or self.size


Plans = dict[Item, tuple[Item, str, tuple[str, ...]]]  # style, label, layers


def run(config: ConfigDict, workdir: Path) -> int:
    """Draws textures as configured; see `configs/texture.py`.

    Writes config.json, metrics.jsonl, strip.png, texture.html, texture.md, and results/STYLE_LAYERS.png, with
    tiled/STYLE_LAYERS.png where they are tileable; or where there is only one result.png and tiled.png.

    Args:
      config: all of `configs/texture.py`.
      workdir: where the results go; a run that stands there is continued.

    Returns:
      The exit code: 0; 2 where a style could not be read; 128 and the number of the signal that ended the run.

    Raises:
      UserError: wrong input; nothing is written then.
    """
    settings = Settings.read(config)
    plans = plan(settings)
    free = {"batch_size", "overwrite"} | ({"style", "sets"} if len(plans) > 1 else set())
    with ImageRun(config, workdir, list(plans), results=RESULTS, free=free) as run:
        if todo := run.todo():
            vgg = settings.vgg.load()
            programs = make(settings, vgg)
            read = functools.partial(job, settings, vgg, programs, plans)
            jobs = [made for _, made in run.read_all(todo, read)]
            layers, pooling = settings.loss.style_layers, settings.vgg.pooling
            objective = Objective((), layers, "gram", pooling, settings.tileable, settings.tile)
            gauge = Gauge(vgg, objective, max(settings.shape) * settings.style_scale)
            options = {"batch_size": settings.batch_size, "style_scale": settings.style_scale}

            def done(drawn: Drawn) -> None:
                write(run, settings, plans, gauge, drawn)

            if code := drawing.draw(run, vgg, jobs, done, **options):
                return code
        report(run, settings, plans)
        return run.exit_code()


def plan(settings: Settings) -> Plans:
    """All textures."""
    found = {}
    for style in sources.find(settings.style, "style"):
        for row in settings.rows.values():
            for label, layers in row.items():
                found[Item(f"{style.name}_{label}", style.path)] = style, label, layers
    return found


def make(settings: Settings, vgg: Vgg) -> dict[str, tuple[Objective, Minimizer]]:
    """Deepest layer -> loss and optimiser of the textures that end with it; checks what depends on the network.

    Textures of one depth share a program: one for all would compute the whole network for those of shallow layers.
    """
    layers, known = settings.loss.style_layers, vgg.architecture.layers()
    settings.vgg.check_layers(vgg, "loss.style_layers", layers)
    stride = max(vgg.architecture.reach(x)[0] for x in layers)
    if settings.tileable:
        for field, side in zip(("size", "width"), settings.shape, strict=True):
            multiple = f"a multiple of {stride}, as tileable textures by these layers"
            need(side % stride == 0, field, side, multiple)
    programs = {}
    for of in (x for row in settings.rows.values() for x in row.values()):
        last = max(of, key=known.index)
        # Of a cumulative one, which holds what a single one does; those of `both` come later.
        used = tuple(x for x in layers if x in of or x in programs.get(last, ()))
        programs[last] = used
    made = {}
    for last, used in programs.items():
        objective = Objective(
            (), used, settings.loss.kind, settings.vgg.pooling, settings.tileable, settings.tile
        )
        made[last] = objective, settings.optimizer.of(objective)
    return made


def job(
    settings: Settings,
    vgg: Vgg,
    programs: Mapping[str, tuple[Objective, Minimizer]],
    plans: Plans,
    item: Item,
) -> Job:
    """Reads the style of a texture, and says what it is to become."""
    style, _, layers = plans[item]
    loss, strides = (
        settings.loss,
        [vgg.architecture.reach(x)[0] for x in settings.loss.style_layers],
    )
    objective, minimizer = programs[max(layers, key=vgg.architecture.layers().index)]
    weights = dict(zip(loss.style_layers, loss.layer_weights, strict=True))
    row = Row(
        content=None,
        styles=(sources.read(style.path, max(settings.shape)),),
        start=None,
        seed=settings.seed,
        content_weights=(),
        style_weights=tuple(
            loss.style * weights[x] * (x in layers) for x in objective.style_layers
        ),
        blend=(1.0,),
        masks=(),
        total_variation=loss.total_variation,
    )
    sizes = scales(
        *settings.shape,
        smallest=settings.scales.smallest,
        first_steps=settings.scales.first_steps,
        steps=settings.scales.steps,
        least=max(strides),
        multiple=max(strides) if settings.tileable else 1,
    )
    try:
        longer = max(sizes[0].height, sizes[0].width) * settings.style_scale
        check_style(row.styles[0], longer, max(strides))
    except UserError as error:
        raise UserError(f"{style.path}: {error}") from error
    return Job(item, objective, minimizer, row, tuple(sizes))


def write(run: ImageRun, settings: Settings, plans: Plans, gauge: Gauge, drawn: Drawn) -> None:
    """Writes one texture, and measures it."""
    item, row, image = drawn.job.item, drawn.job.row, drawn.scales[-1]
    style, label, layers = plans[item]
    single = len(plans) == 1
    pixels = images.to_uint8(image)
    files = {RESULT if single else f"results/{item.name}.png": pixels}
    if settings.tileable:
        files[TILED if single else f"tiled/{item.name}.png"] = np.tile(pixels, (2, 2, 1))
    written = [run.write(name, functools.partial(images.save, x)) for name, x in files.items()]
    facts = {
        "style": style.name,
        "label": label,
        "layers": layers,
        "loss": drawn.figures["loss"],
        "gram_before": gauge.shares(row.styles[0], noise(row.seed, settings.shape)),
        "gram": gauge.shares(row.styles[0], image),
        "seconds": round(drawn.seconds, 1),
    }
    run.finish(item, written, facts)
    print(f"{item.name}: {written[0]}", flush=True)


def report(run: ImageRun, settings: Settings, plans: Plans) -> None:
    """Draws the strip, and writes the page and the table, of all textures of the grid that are in the workdir."""
    rows = {row["image"]: row for row in run.earlier_rows if "gram" in row}
    if not rows:
        return
    cards, strips, table = [], [], []
    for style in dict.fromkeys(style for style, _, _ in plans.values()):
        for head, of in settings.rows.items():
            found = {label: rows.get(f"{style.name}_{label}") for label in of}
            shown = {
                label: run.path(row["files"][-1]) for label, row in found.items() if row is not None
            }
            if shown:
                shown = {style.name: style.path} | shown
                cards.append((f"{style.name}: {head}", {}, shown))
                strips += [shown] * (len(cards) <= SHOWN * len(settings.rows))
    for row in (rows[item.name] for item in plans if item.name in rows):
        if row["style"] not in {line["style"] for line in table if line["texture"] == "noise"}:
            table.append(_line(row["style"], "noise", row["gram_before"]))
        table.append(_line(row["style"], row["label"], row["gram"]))
    if not cards:
        return
    run.write(STRIP, functools.partial(images.save, gallery.sheet(strips)))
    words = "Squared distance of Gram matrices to those of the style, over the square of these, at each layer"
    text = f"{words}\n\n{tables.plain(table)}"
    path = run.write_text(PAGE, gallery.page("Textures", cards, text=text, aligned=True))
    run.write_text(TABLE, f"{words}:\n\n{tables.markdown(table)}\n")
    print(f"page: {path}")


def _line(style: str, texture: str, gram: Mapping[str, float]) -> dict[str, str]:
    """A line of the table."""
    figures = {layer: format(x, ".2g") for layer, x in gram.items()}
    return {"style": style, "texture": texture} | figures
