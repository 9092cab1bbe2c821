"""Adapts, packs and measures the generators that ship as presets, and shows them on one page."""

import functools
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image, ImageDraw, ImageFont

from nada_jax import files, images, tables
from nada_jax.errors import UserError
from nada_jax.evaluation import sheets
from nada_jax.models.stylegan2 import draw_latents
from nada_jax.runs.workdir import Run
from nada_jax.settings import Count, Section, Seed, Truncation
from nada_jax.tasks import compare
from nada_jax.weights import lineage, loading, native, presets, registry
from nada_jax.weights.presets import Preset

DOCS = registry.ASSETS.parents[1] / "docs"  # of a checkout; an installed package has none
SHOWN = ("directional", "nearer", "diversity_kept")  # metrics in the table of the page
CAPTION, LETTERS = (
    150,
    14,
)  # pixels of the column with the titles in presets.jpg, and of their letters
ELSEWHERE = {
    "text.source",
    "text.target",
    "steps",
    "seed",
}  # fields with entries of their own in the facts
RESULTS = "presets.md", "presets.jpg", "*.safetensors", "*.png"


class Samples(Section, name="samples"):
    """The latents that the images show; `config.samples`."""

    seed: Seed
    truncation: Truncation


class Settings(Section):
    """All of `configs/presets.py`.

    `adapt` and `evaluate` are what all presets share of the configs of these tasks. `presets` and `dropped` are tables
    whose names the user chooses: name -> a config with `title`, `rank`, `adapt` and `evaluate`; what was tried and does
    not ship -> the reason.
    """

    task: str
    only: str
    install: bool
    rank: Count
    samples: Samples
    adapt: Any
    evaluate: Any
    presets: Any
    dropped: Any


def run(config: ConfigDict, workdir: Path) -> int:
    """Makes what is missing of the presets; see `configs/presets.py`.

    Writes config.json; of each preset NAME.safetensors (what its adaptation has added to the source, with recipe and
    figures in its header), NAME.png (a row of the source above the same latents of the preset), and NAME/ with adapt/,
    evaluate/ and cell.json, as in `compare.run`; presets.md and presets.jpg, which show all. With `install` also the
    files in nada_jax/assets/presets, and the page in docs.

    Args:
      config: all of `configs/presets.py`.
      workdir: where the results go; presets that stand there with the configured settings are not made again.

    Returns:
      The exit code: 0 when the presets are made, 130 or 143 when a signal ended the run.

    Raises:
      UserError: wrong input.
    """
    settings = Settings.read(config)
    with Run(config, workdir, results=RESULTS) as run:
        return make(run, settings)


def make(run: Run, settings: Settings) -> int:
    """Makes the chosen presets within the workdir that the run holds; see `run`."""
    chosen = choose(settings.only, settings.presets)
    for name in chosen:
        check(name, settings.presets[name], run.path(name))
    run.begin()
    for count, name in enumerate(chosen, 1):
        cell, file = settings.presets[name], run.path(f"{name}{native.SUFFIX}")
        print(f"\npreset {count}/{len(chosen)}: {name}", flush=True)
        if not (compare.finished(cell, run.path(name)) and file.is_file()):
            packed = functools.partial(pack, run, cell, file.name)
            if code := compare.run_cell(cell, run.path(name), packed):
                print(f"stopped in preset {name}; the same command continues there")
                return code
        finish(run, settings, name)
    page = publish(presets.shipped(run.directory), settings.dropped, run.directory)
    print(f"\npage: {page}")
    if settings.install:
        install(run, chosen)
        folder = DOCS if DOCS.is_dir() else presets.FOLDER
        print(f"page: {publish(presets.shipped(), settings.dropped, folder)}")
    return 0


def choose(only: str, known: Collection[str]) -> list[str]:
    """The presets that are to be made: the given ones, with commas between them, or all; UserError names others."""
    words = [word.strip() for word in only.split(",") if word.strip()]
    if unknown := [word for word in words if word not in known]:
        raise UserError(f"only has {unknown[0]!r}; expected some of {', '.join(known)}")
    return [name for name in known if name in words or not words]


def check(name: str, cell: ConfigDict, directory: Path) -> None:
    """Refuses a preset that cannot be made as it is, before an hour has passed on others; UserError names it."""
    compare.check(name, cell, directory)
    if cell.evaluate.judge in cell.adapt.clip.models:
        raise UserError(
            f"presets.{name}.evaluate.judge is {cell.evaluate.judge!r}, which is in adapt.clip.models; expected a CLIP "
            "that takes no part in training"
        )


def pack(run: Run, cell: ConfigDict, name: str, adapted: Path) -> Path:
    """Writes what an adaptation has added to its source; returns the file."""
    origin = lineage.read(adapted)
    source, generator = (loading.load_generator(x) for x in (origin.source, adapted))
    write = functools.partial(loading.save_delta, source, generator, cell.rank, **origin.header())
    return run.write(name, write)


def finish(run: Run, settings: Settings, name: str) -> None:
    """Draws a measured preset, and writes its recipe and figures into its header."""
    cell, file = settings.presets[name], run.path(f"{name}{native.SUFFIX}")
    whole = run.path(name) / "adapt" / presets.GENERATOR
    measured = files.read_json(run.path(name) / "evaluate" / "evaluation.json")
    source = loading.load_generator(measured["source"])
    key = jax.random.key(settings.samples.seed)
    ws = jax.jit(draw_latents, static_argnums=2)(source, key, sheets.COLUMNS)
    ws = np.asarray(source.truncate(ws, settings.samples.truncation))
    drawn = sheets.draw_pairs(source, loading.load_generator(file), ws)
    ours = images.to_uint8(drawn[sheets.COLUMNS :]).astype(np.float32)
    full = images.to_uint8(sheets.draw_pairs(source, loading.load_generator(whole), ws))
    run.write_images(f"{name}.png", drawn, sheets.COLUMNS)

    shared, own = (compare.flat(x) for x in (settings.adapt, cell.adapt))
    facts = {
        "place": list(settings.presets).index(name),
        "title": cell.title,
        "texts": measured["texts"],
        "seed": cell.adapt.seed,
        "steps": cell.adapt.steps,
        "recipe": {k: x for k, x in own.items() if x != shared[k] and k not in ELSEWHERE},
        "trained": list(cell.adapt.clip.models),
        "judge": measured["judge"],
        "samples": measured["samples"],
        "metrics": measured["metrics"],
        "difference": float(np.abs(ours - full[sheets.COLUMNS :]).mean()),
        "command": f"python main.py --config=configs/presets.py --config.only={name}",
    }
    arrays, header = files.read_safetensors(file)
    header["facts"] = files.to_json(facts)
    run.write(file.name, lambda path: files.write_safetensors(path, arrays, header))


def install(run: Run, names: Sequence[str]) -> None:
    """Copies presets to those that ship."""
    for name in names:
        for suffix in (native.SUFFIX, ".png"):
            with files.atomic(presets.FOLDER / f"{name}{suffix}") as path:
                path.write_bytes(run.path(f"{name}{suffix}").read_bytes())
    print(f"installed: {', '.join(names)} in {presets.FOLDER}")


def publish(shown: Sequence[Preset], dropped: Mapping[str, str], folder: Path) -> Path:
    """Writes presets.md and presets.jpg, which show presets, into a folder; returns the page."""
    page = folder / "presets.md"
    sheet = gallery(shown)
    with files.atomic(folder / "presets.jpg") as path:
        sheet.save(path, format="JPEG", quality=92)
    files.write_text(page, describe(shown, dropped, folder))
    return page


def gallery(shown: Sequence[Preset]) -> Image.Image:
    """One image of all presets of the first one's source: its row, and below it a row of each, with their titles."""
    same = [preset for preset in shown if preset.source == shown[0].source]
    rows = {preset.title: images.upright(preset.image).image for preset in same}
    strip = next(iter(rows.values()))
    height = strip.height // 2
    whole = Image.new("RGB", (CAPTION + strip.width, height * (1 + len(rows))), "white")
    font, draw = ImageFont.load_default(LETTERS), ImageDraw.Draw(whole)
    whole.paste(strip.crop((0, 0, strip.width, height)), (CAPTION, 0))
    for top, (title, image) in zip(range(height, whole.height, height), rows.items(), strict=True):
        below = (0, image.height - height, image.width, image.height)
        whole.paste(image.crop(below), (CAPTION, top))
        draw.text((0, top + height // 2), title, "black", font, anchor="lm")
    draw.text((0, height // 2), shown[0].source, "black", font, anchor="lm")
    return whole


def describe(shown: Sequence[Preset], dropped: Mapping[str, str], folder: Path) -> str:
    """The page in Markdown."""
    largest = max(preset.file.stat().st_size for preset in shown) / 1000
    lines = [
        "# Presets: adapted generators that ship\n",
        "This page is made by the command that makes the presets: `python main.py --config=configs/presets.py "
        "--config.install=True`.\n",
        "`preset:NAME` works wherever a generator is named, and `run:NAME` stands for the result of a run of yours, in "
        "`runs/NAME` or `runs/nada_NAME`:\n",
        "```bash",
        f"python main.py --config=configs/sample.py --config.generator.weights=preset:{shown[0].name}",
        "```\n",
        "![All presets, the same latents in each](presets.jpg)\n",
        f"A preset is what an adaptation has added to its source, as low-rank factors in float16: at most {largest:.0f} "
        "kB. `difference` is how far its images are from those of the whole adapted generator, as a mean over pixels, in "
        "levels of 255. The other figures are those of [evaluation.md](evaluation.md), by a CLIP that took no part in "
        "training: `nearer` is the share of images nearer to the target text than to the source text.\n",
        tables.markdown([_row(preset) for preset in shown]) + "\n",
        "## Recipes\n",
        "Fields that differ from `config.adapt` of `configs/presets.py`, and what makes each again:\n",
    ]
    for preset in shown:
        facts = preset.facts
        recipe = ", ".join(f"`{field}={_short(x)}`" for field, x in facts["recipe"].items())
        link = Path(os.path.relpath(preset.image, folder)).as_posix()
        lines += [
            f"**{preset.title}**: {facts['steps']} steps, seed {facts['seed']}; {recipe or 'no other fields'}\n",
            f"![{preset.title}]({link})\n",
            f"```bash\n{facts['command']}\n```\n",
        ]
    if dropped:
        lines += ["## Tried and dropped\n", *(f"- {name}: {why}" for name, why in dropped.items())]
    return "\n".join(lines).rstrip() + "\n"


def _short(value: Any) -> str:
    """A value of a config without the digits of rounding."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _row(preset: Preset) -> dict[str, str]:
    """A line of the table."""
    facts = preset.facts
    metrics = {name: f"{facts['metrics'][name]['value']:.2f}" for name in SHOWN}
    return {
        "name": f"`preset:{preset.name}`",
        "texts": " -> ".join(facts["texts"]),
        "trained by": ", ".join(facts["trained"]),
        "judge": facts["judge"],
        **metrics,
        "difference": f"{facts['difference']:.2f}",
        "kB": f"{preset.file.stat().st_size / 1000:.0f}",
    }
