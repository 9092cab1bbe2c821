"""Compares ways to draw a prompt in a style: guided diffusion, style transfer of what the prompt gives, words alone."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from ml_collections import ConfigDict

from nada_jax import images, tables
from nada_jax.diffusion import sampling
from nada_jax.diffusion.sampling import Drawing
from nada_jax.diffusion.settings import Guidance, Model, Sampling
from nada_jax.errors import UserError
from nada_jax.guided import drawing
from nada_jax.guided.drawing import Batch, Drawn, Picture
from nada_jax.guided.measures import MEANINGS, Judge
from nada_jax.losses.style import KINDS
from nada_jax.models.vgg import Vgg
from nada_jax.runs.items import Item
from nada_jax.runs.per_image import ImageRun
from nada_jax.runs.snapshots import SNAPSHOT
from nada_jax.settings import SEEDS, Count, Precision, Rule, Section, Seed, Share, need
from nada_jax.style import painting
from nada_jax.style.settings import Loss, Network, Optimizer, Painting, Scales
from nada_jax.transfers import drawing as transfers
from nada_jax.transfers import sources
from nada_jax.transfers.drawing import Job
from nada_jax.web import gallery

MEMORY = "set guidance.through=estimate or precision=bfloat16, or lower batch_size or sampler.size"
PAGE, TABLE, SHEET = "guided_vs_prompt.html", "guided_vs_prompt.md", "guided_vs_prompt.png"
RESULTS = ("images/*.png", PAGE, TABLE, SHEET, SNAPSHOT)
FREE = (
    "ways",
    "seed",
    "count",
    "batch_size",
    "overwrite",
)  # further images stand beside earlier ones
TRANSFER = "transfer"  # the way that no diffusion model takes
WAYS = {  # in the order in which they are drawn: the others are held against the first
    "prompt": "the prompt alone",
    TRANSFER: "style transfer of these images",
    "guided": "the prompt, guided by the style",
    "words": "words that name the style",
    "constant": "guided by the same weight at all steps, the mean of the growing one",
    "late": "guided, but for the first steps",
}
WAY_NAMES = Rule(
    lambda x: "prompt" in x and set(x) <= set(WAYS) and len(set(x)) == len(x),
    f"'prompt' and others out of {', '.join(WAYS)}, each once",
)
MOST = 16  # columns of the page; more are measured


class Transfer(Section):
    """How a style is transferred; `config.transfer`, with fields of `configs/style_transfer.py`."""

    loss: Loss
    scales: Scales
    optimizer: Optimizer

    def check(self) -> None:
        """One result for each image."""
        good = len(self.loss.style) == 1
        need(good, "loss.style", self.loss.style, "one weight, such as (100.0,)")

    def painting(self, side: int, vgg: str) -> Painting:
        """The settings as style transfer has them, for images of a side in pixels."""
        own = {name: getattr(self, name) for name in ("loss", "scales", "optimizer")}
        plain = {"blend": (), "style_scale": 1.0, "colors": "style", "strength": 1.0, "seed": 0}
        network = Network(weights=vgg, pooling="max")
        return Painting(size=side, tile=max(side, 1024), vgg=network, **plain, **own)


class Settings(Section):
    """All of `configs/guided_vs_prompt.py`."""

    task: str
    prompt: str
    named: str
    negative: str
    seed: Seed
    count: Count
    batch_size: Count
    overwrite: bool
    precision: Precision
    judge: str
    ways: Annotated[tuple[str, ...], WAY_NAMES]
    free: Share
    diffusion: Model
    sampler: Sampling
    guidance: Guidance
    transfer: Transfer

    def check(self) -> None:
        """A style guides, and the judge has no part in that."""
        for field in ("prompt", "named"):
            text = getattr(self, field)
            self.need(bool(text.strip()), field, "words such as 'a person with red hair'")
        good = self.guidance.on and set(self.guidance.loss.factors) & set(KINDS)
        if not good:
            raise UserError(
                f"guidance.weight is {self.guidance.weight:g} and guidance.loss has "
                f"{', '.join(self.guidance.loss.factors) or 'nothing'}; expected a weight above 0 and one of "
                f"{', '.join(KINDS)}, as styles are compared"
            )
        self.need(self.free < self.guidance.until, "free", "a share below guidance.until")
        good = "clip" not in self.guidance.needed or self.judge != self.guidance.clip
        self.need(good, "judge", "a CLIP that does not guide: guidance.clip is another one then")
        most = min(images.MOST, SEEDS.stop - int(self.seed))
        self.need(self.count <= most, "count", f"1 to {most:,} images of each way")

    def guidances(self) -> dict[str, Guidance | None]:
        """Way, in the order of `WAYS` -> what guides its images, but for transfers; None where nothing does."""
        base = self.guidance
        share = 1 - base.boost_from
        mean = base.weight * (base.boost_from + base.boost * share)
        known = {
            "prompt": None,
            "guided": base,
            "words": None,
            "constant": dataclasses.replace(base, weight=mean, boost=1.0),
            "late": dataclasses.replace(base, free=self.free),
        }
        return {way: guidance for way, guidance in known.items() if way in self.ways}


def run(config: ConfigDict, workdir: Path) -> int:
    """Draws one prompt in one style by every way and seed; see `configs/guided_vs_prompt.py`.

    Writes config.json, metrics.jsonl (a line for each image), images/WAY_SEED.png, guided_vs_prompt.html, .md and .png.

    Args:
      config: all of `configs/guided_vs_prompt.py`.
      workdir: where the results go; a run that stands there is continued.

    Returns:
      The exit code: 0, or 128 and the number of the signal that ended the run.

    Raises:
      UserError: wrong input; nothing is written then.
    """
    settings = Settings.read(config)
    style = sources.one(settings.guidance.reference, "guidance.reference")
    pictures = plan(settings, style)
    items = [picture for row in pictures.values() for picture in row]
    with ImageRun(config, workdir, items, results=RESULTS, free=FREE) as run:
        if (todo := run.todo()) and (code := draw(run, settings, style, pictures, set(todo))):
            return code
        report(run, settings, style)
        return run.exit_code()


def plan(settings: Settings, style: Item) -> dict[str, list[Picture]]:
    """Way -> its images."""
    first, count = int(settings.seed), int(settings.count)
    return {
        way: [
            Picture(
                f"{way}_{seed:04d}",
                style.path,
                prompt=settings.named if way == "words" else settings.prompt,
                seed=seed,
            )
            for seed in range(first, first + count)
        ]
        for way in WAYS
        if way in settings.ways
    }


def draw(
    run: ImageRun,
    settings: Settings,
    style: Item,
    pictures: dict[str, list[Picture]],
    todo: set[Picture],
) -> int:
    """Draws and measures what is to be done; 0, or the exit code where a signal ended it."""
    model = settings.diffusion.load(settings.precision)
    side = settings.sampler.side(model)
    image = sources.read(style.path, side)
    reference = images.square(image, side)[None]
    prepared = sampling.prepare(
        model,
        settings.sampler,
        settings.guidance,
        [settings.prompt, settings.named],
        negatives=(settings.negative,),
        reference=reference,
    )
    vgg = prepared.guide.sources.vgg
    texts = {"prompt": settings.prompt, "named": settings.named}
    judge = Judge.load(settings.judge, settings.guidance, vgg, reference, texts)

    def done(picture: Picture, pixels: np.ndarray, seconds: float) -> None:
        way, _, _ = picture.name.rpartition("_")
        path = run.write(f"images/{picture.name}.png", functools.partial(images.save, pixels))
        alone = read(run.path(f"images/prompt_{picture.seed:04d}.png"))
        found = judge.measure(images.from_uint8(pixels), alone)
        facts = {"way": way, "seed": picture.seed} | found
        run.finish(picture, [path], facts | {"seconds": round(seconds, 2)})

    def drawn(x: Drawn) -> None:
        done(x.picture, images.to_uint8(x.image), x.seconds)

    rest = batches(settings, prepared, pictures, todo)
    if rest and (code := drawing.draw(run, rest, drawn)):
        return code
    rest = [picture for picture in pictures.get(TRANSFER, ()) if picture in todo]
    jobs = transfer(run, settings.transfer.painting(side, settings.guidance.vgg), vgg, image, rest)

    def painted(x: transfers.Drawn) -> None:
        done(x.job.item, images.to_uint8(x.scales[-1]), x.seconds)

    return transfers.draw(run, vgg, jobs, painted, batch_size=settings.batch_size)


def batches(
    settings: Settings, prepared: Drawing, pictures: dict[str, list[Picture]], todo: set[Picture]
) -> list[Batch]:
    """What the diffusion model is to draw, the prompt alone first: the others are measured against it."""
    texts = [settings.prompt, settings.named]
    size = min(settings.batch_size, settings.count)
    found = []
    for way, guidance in settings.guidances().items():
        # The networks of all are the same: only the schedule differs.
        guide = None if guidance is None else prepared.guide
        own = prepared.replace(guide=guide, guidance=guidance)
        every = drawing.split(own, texts, pictures[way], size)
        found += [batch for batch in every if todo & set(batch.pictures)]
    return found


def transfer(
    run: ImageRun, settings: Painting, vgg: Vgg, style: Any, pictures: Sequence[Picture]
) -> list[Job]:
    """The images of the prompt alone, which stand in the workdir, as contents."""
    made, jobs = painting.make(settings), []
    for picture in pictures:
        content = images.upright(run.path(f"images/prompt_{picture.seed:04d}.png")).image
        (weight,) = settings.loss.style
        row, scales = painting.prepare(
            vgg, content, [style], settings, style_weight=weight, masks=(), start="content"
        )
        jobs.append(Job(picture, *made, row, scales))
    return jobs


def read(path: Path) -> np.ndarray:
    """A result [h, w, 3] in [-1, 1]."""
    return images.from_uint8(images.upright(path).image)


def report(run: ImageRun, settings: Settings, style: Item) -> None:
    """Writes page, table and image of all that stands in the workdir, and says where they are."""
    figures = [*KINDS, *MEANINGS, "seconds"]
    rows = [row for row in run.earlier_rows if "way" in row]
    for row in rows:  # one that was changed by hand may lack something
        good = all(isinstance(row.get(name), int | float) for name in ("seed", *figures))
        if not good or not row.get("files"):
            raise UserError(
                f"{run.path('metrics.jsonl')}: the line of {row.get('image')!r} lacks some of what was measured; delete "
                "the line to draw the image again"
            )
    rows = sorted(rows, key=lambda row: row["seed"])
    cards, table, sheet = [("style", {}, {style.name: style.path})], [], []
    for way, what in WAYS.items():
        own = [row for row in rows if row["way"] == way]
        if not own:
            continue
        values = {name: np.array([row[name] for row in own]) for name in figures}
        means = {name: float(np.mean(x)) for name, x in values.items() if name != "seconds"}
        shown = {f"{row['seed']}": run.path(row["files"][0]) for row in own[:MOST]}
        words = f": {settings.named!r}" if way == "words" else ""
        cards.append((f"{way}: {what}{words}", means, shown))
        sheet.append({f"{way} {seed}": path for seed, path in shown.items()})
        line = {name: f"{x:.3f} ± {np.std(values[name]):.3f}" for name, x in means.items()}
        # Of the fastest batch, as the first compiles.
        line["seconds"] = f"{values['seconds'].min():.1f}"
        table.append({"way": way, "images": str(len(own))} | line)
    text = tables.markdown(table)
    notes = [f"{kind}: distance from the style, of 1 for features that are 0" for kind in KINDS]
    notes += [f"{name}: {what}" for name, what in MEANINGS.items()]
    title = f"{settings.prompt!r} in the style of {style.name}"
    notes += ["seconds: for an image, in the fastest batch", f"judge: {settings.judge}"]
    said = "\n".join([text, "", "means over the seeds ± their deviation", *notes])
    run.write_text(TABLE, text + "\n")
    run.write(SHEET, functools.partial(images.save, gallery.sheet(sheet)))
    page = run.write_text(PAGE, gallery.page(title, cards, text=said, aligned=True))
    print(f"{text}\nall results: {page}")
