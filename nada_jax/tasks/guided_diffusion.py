"""Draws prompts by a diffusion model that a loss of the coming image guides, such as the style of a reference."""

import functools
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from ml_collections import ConfigDict

from nada_jax import files, images, tables
from nada_jax.devices import mesh as meshes
from nada_jax.devices.mesh import MeshShape
from nada_jax.diffusion import sampling
from nada_jax.diffusion.settings import Guidance, Model, Sampling
from nada_jax.errors import UserError
from nada_jax.guided import drawing, records
from nada_jax.guided.drawing import Drawn, Picture
from nada_jax.losses.style import KINDS
from nada_jax.portraits.methods import words
from nada_jax.runs import plots
from nada_jax.runs.items import Item
from nada_jax.runs.per_image import ImageRun
from nada_jax.runs.snapshots import SNAPSHOT
from nada_jax.settings import SEEDS, Count, Precision, Rule, Section, Seed, need
from nada_jax.transfers import sources
from nada_jax.web import gallery

# The remedy for a lack of it.
MEMORY = "set guidance.through=estimate or precision=bfloat16, or lower batch_size or sampler.size"
GRID, PLOT, PAGE, TABLE = "grid.png", "loss.png", "guided_diffusion.html", "guided_diffusion.md"
RESULTS = ("images/*.png", "paths/*.png", GRID, PLOT, PAGE, TABLE, SNAPSHOT)
# Names of images tell these apart, so that further ones stand beside earlier ones.
FREE = "prompt", "seed", "count", "batch_size", "mesh", "overwrite"
LISTING = ".txt"  # a prompt that ends so is a file of them
COLUMNS = 8  # images in a row of the grid at most
MOST = 64  # images in the grid at most, the first ones
LINES = 10  # images in the plot of losses at most: matplotlib has as many colours


class Strip(Section, name="strip"):
    """The images that are predicted on the way; `config.strip`."""

    columns: Annotated[int, Rule(lambda x: 0 <= x <= 100, "a whole number in 0..100")]


class Settings(Section):
    """All of `configs/guided_diffusion.py`."""

    task: str
    prompt: str
    negative: str
    seed: Seed
    count: Count
    batch_size: Count
    overwrite: bool
    precision: Precision
    diffusion: Model
    sampler: Sampling
    guidance: Guidance
    strip: Strip
    mesh: MeshShape

    def check(self) -> None:
        """There may not be more images than fit, and the last has a seed, too."""
        self.need(self.count <= images.MOST, "count", f"1 to {images.MOST:,} images")
        self.need(
            self.seeds.stop <= SEEDS.stop,
            "seed",
            f"at most {SEEDS.stop - self.count:,}, as the seeds of {self.count:,} images count up",
        )

    @property
    def seeds(self) -> range:
        """That of each image of a prompt."""
        # Python's own numbers: those of numpy would overflow.
        return range(int(self.seed), int(self.seed) + int(self.count))


def run(config: ConfigDict, workdir: Path) -> int:
    """Draws as configured; see `configs/guided_diffusion.py`.

    Writes config.json, metrics.jsonl (a line for each image), images/PROMPT_SEED.png, paths/PROMPT_SEED.png, grid.png,
    loss.png, guided_diffusion.html and guided_diffusion.md.

    Args:
      config: all of `configs/guided_diffusion.py`.
      workdir: where the results go; a run that stands there is continued.

    Returns:
      The exit code: 0; 128 and the number of the signal that ended the run.

    Raises:
      UserError: wrong input; nothing is written then.
    """
    settings = Settings.read(config)
    prompts = read_prompts(settings.prompt)
    guides = find(settings.guidance)
    pictures = plan(settings, prompts, guides)
    with ImageRun(config, workdir, pictures, results=RESULTS, free=FREE) as run:
        records.check_prompts(run, pictures)
        if (todo := run.todo()) and (code := draw(run, settings, prompts, pictures, todo, guides)):
            return code
        report(run, settings, pictures, guides)
        return run.exit_code()


def read_prompts(prompt: str) -> list[str]:
    """The different prompts that the field names, in order; UserError where there is none."""
    lines, where = [prompt], ""
    if prompt.endswith(LISTING):
        path = files.expand(prompt)
        need(path.is_file(), "prompt", prompt, "a text, or an existing file of texts")
        lines, where = files.read_text(path).splitlines(), f" in each line of {prompt}"
    found = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    need(bool(found), "prompt", prompt, f"what the images show, such as 'a smiling person'{where}")
    return found


def find(guidance: Guidance) -> dict[str, Item]:
    """Field -> the image that it names, of those that guide."""
    if not guidance.on:
        return {}
    return {
        name: sources.one(getattr(guidance, name), f"guidance.{name}")
        for name in ("reference", "content")
        if name in guidance.needed
    }


def plan(settings: Settings, prompts: list[str], guides: dict[str, Item]) -> list[Picture]:
    """All images: each prompt with each seed."""
    count = len(prompts) * settings.count
    expected = f"at most {images.MOST:,} images in all, not {count:,}"
    need(count <= images.MOST, "count", settings.count, expected)
    names = {prompt: words(prompt) or "prompt" for prompt in prompts}
    held: dict[str, str] = {}
    for prompt, name in names.items():
        if (other := held.setdefault(name.casefold(), prompt)) != prompt:  # as files are compared
            raise UserError(
                f"the prompts {other!r} and {prompt!r} would both be called {name!r} in names of files; expected texts "
                "that differ within their first 60 letters"
            )
    path, *parts = [item.path for item in guides.values()] or [None]
    return [
        Picture(f"{name}_{seed:04d}", path, parts=tuple(parts), prompt=prompt, seed=seed)
        for prompt, name in names.items()
        for seed in settings.seeds
    ]


def draw(
    run: ImageRun,
    settings: Settings,
    prompts: list[str],
    pictures: list[Picture],
    todo: list[Picture],
    guides: dict[str, Item],
) -> int:
    """Draws what is to be done; 0, or the exit code where a signal ended it."""
    size = drawing.batch_size(len(pictures), settings.batch_size, settings.mesh)
    mesh = meshes.make_mesh(settings.mesh, {"batch_size": size})
    model = settings.diffusion.load(settings.precision)
    side = settings.sampler.side(model)
    shown = {name: images.read(item.path, side) for name, item in guides.items()}
    prepared = sampling.prepare(
        model,
        settings.sampler,
        settings.guidance,
        prompts,
        negatives=(settings.negative,),
        **{name: image[None] for name, image in shown.items()},
    )
    del model  # its place on one device, where the mesh has others
    prepared = meshes.place(prepared, mesh)
    # Of all images, so that one is drawn beside the same others whatever is done already: the same numbers, bit by bit.
    every = drawing.split(prepared, prompts, pictures, size)
    rest = [batch for batch in every if set(batch.pictures) & set(todo)]
    print(
        f"{settings.diffusion.weights}: {len(todo)} images of {side} pixels; the first steps compile",
        flush=True,
    )
    if idle := meshes.idle(mesh, {"batch_size": size}):
        print(idle, flush=True)
    first = {
        f"{name}: {guides[name].name}": images.to_uint8(image) for name, image in shown.items()
    }

    def write(drawn: Drawn) -> None:
        finish(run, first, drawn)

    options = {"columns": settings.strip.columns, "mesh": mesh}
    return drawing.draw(run, rest, write, **options)


def finish(run: ImageRun, first: dict[str, np.ndarray], drawn: Drawn) -> None:
    """Writes the results of one image; `first` are those that guided it, by label."""
    picture, pixels = drawn.picture, images.to_uint8(drawn.image)
    shown = {f"images/{picture.name}.png": pixels}
    if drawn.path:
        steps = {f"step {step}": images.to_uint8(x) for step, x in drawn.path.items()}
        strip = gallery.strip(first | steps | {f"seed {picture.seed}": pixels})
        shown[f"paths/{picture.name}.png"] = strip
    written = [run.write(name, functools.partial(images.save, x)) for name, x in shown.items()]
    facts = {
        "prompt": picture.prompt,
        "seed": picture.seed,
        "guides": list(first),
        "measures": drawn.measures,
        "seconds": round(drawn.seconds, 1),
        "losses": drawn.losses,
    }
    run.finish(picture, written, facts)


def report(
    run: ImageRun, settings: Settings, pictures: list[Picture], guides: dict[str, Item]
) -> None:
    """Writes grid and plot of the images that are asked for, page and table of all in the workdir, and says where."""
    found = {row["image"]: row for row in run.earlier_rows if records.is_whole(row)}
    if lost := [picture.name for picture in pictures if picture.name not in found]:
        raise UserError(
            f"{run.path('metrics.jsonl')}: the line of {lost[0]!r} lacks some of what was measured; delete the line to "
            "draw the image again"
        )
    rows = [found[picture.name] for picture in pictures]
    read = [_read(run.path(row["files"][0])) for row in rows[:MOST]]
    for row, image in zip(rows, read, strict=False):
        if image.shape != read[0].shape:
            raise UserError(
                f"{run.path(row['files'][0])} has {image.shape[1]} x {image.shape[0]} pixels, and others of the run "
                f"{read[0].shape[1]} x {read[0].shape[0]}; delete the one that was changed to draw it again"
            )
    drawn = np.stack(read)
    grid = run.write_images(GRID, drawn, min(settings.count, COLUMNS))
    panels: dict[str, dict[str, list]] = {}
    for row in rows[:LINES]:
        for name, points in row["losses"].items():
            panels.setdefault(name, {})[row["image"]] = points
    if panels:
        run.draw(PLOT, lambda path: plots.plot_panels(panels, "step", path))
    cards = [("guided by", {}, {name: x.path for name, x in guides.items()})] if guides else []
    for prompt in dict.fromkeys(row["prompt"] for row in found.values()):
        cards.append(
            (prompt, {}, _shown(run, [x for x in found.values() if x["prompt"] == prompt]))
        )
    page = run.write_text(PAGE, gallery.page("Guided diffusion", cards))
    table = [_line(row) for row in found.values()]
    run.write_text(TABLE, tables.markdown(table) + "\n")
    print(f"page: {page}")
    single = run.path(rows[0]["files"][0])
    place = f"image: {single}" if len(rows) == 1 else f"images: {single.parent}, together {grid}"
    print("; ".join([place, *_said(rows, guides)]))


def _read(path: Path) -> np.ndarray:
    """A result [h, w, 3] in [-1, 1]."""
    return images.from_uint8(images.upright(path).image)


def _shown(run: ImageRun, rows: list[dict[str, Any]]) -> dict[str, Path]:
    """Images of the page by their labels."""
    shown = {}
    for row in rows:
        figures = [f"{name} {x}" for name, x in _figures(row).items()]
        shown[", ".join([f"seed {row['seed']}", *figures])] = run.path(row["files"][0])
    return shown


def _line(row: dict[str, Any]) -> dict[str, str]:
    """A line of the table."""
    facts = {"prompt": _printable(row["prompt"]), "seed": str(row["seed"])}
    return facts | _figures(row) | {"seconds": str(row["seconds"])}


def _printable(text: str) -> str:
    """A prompt as one line, whose control characters cannot steer a terminal."""
    return "".join(c if c.isprintable() else " " for c in text)


def _figures(row: dict[str, Any]) -> dict[str, str]:
    return {name: f"{x:.3g}" for name, x in row["measures"].items()}


def _said(rows: list[dict[str, Any]], guides: dict[str, Item]) -> list[str]:
    """How far the images are from what guided them, in words."""
    mean = {name: np.mean([x["measures"][name] for x in rows]) for name in rows[0]["measures"]}
    styles = [f"{mean[name]:.3g} by {name}" for name in KINDS if name in mean]
    others = [f"{name} {x:.3g}" for name, x in mean.items() if name not in KINDS]
    of = "" if len(rows) == 1 else ", on average"
    if styles:
        style = guides["reference"].name
        others.insert(0, f"distance from the style of {style}{of}: {', '.join(styles)}")
    return others
