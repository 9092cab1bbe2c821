"""Draws images in adapted domains: align, invert, and draw the latents by every adapted generator."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from nada_jax import images
from nada_jax.errors import UserError
from nada_jax.latents import codes as latent_files
from nada_jax.models.stylegan2 import Generator
from nada_jax.photos.align import PIXELS
from nada_jax.photos.paste import paste
from nada_jax.portraits import inversions
from nada_jax.portraits.domains import draw
from nada_jax.portraits.settings import InversionSettings
from nada_jax.portraits.subjects import Subject, inverted, read_tuned, tuned_file
from nada_jax.runs.items import Item, listing
from nada_jax.runs.per_image import ImageRun
from nada_jax.web import gallery
from nada_jax.weights import domains, loading, native

MEMORY = inversions.MEMORY  # the remedy for a lack of it
RESULTS = (*inversions.RESULTS, "stylized/*.png", "stylize.html")
# What another command in the workdir may change: the latents that were found stay good.
FREE = ("images", "latents", "overwrite", "batch_size", "generators", "strength", "paste")
# Of a line in metrics.jsonl, what is not known from the inversion.
OURS = ("image", "file", "face_of", "sha256", "files", "older", "domains", "pasted", "quad")
CAPTIONS = ("photograph", "aligned", "reconstruction")  # of a strip, beside the domains


class Settings(InversionSettings):
    """All of `configs/stylize.py`."""

    latents: str
    generators: tuple[str, ...]
    strength: tuple[float, ...]
    paste: bool

    def check(self) -> None:
        """There is a domain, with a strength; latents have no photograph to be pasted into."""
        super().check()
        self.need(bool(self.generators), "generators", "at least one adapted generator")
        count = len(self.generators)
        good = len(self.strength) in (1, count) and all(map(math.isfinite, self.strength))
        self.need(good, "strength", f"one number, or one for each of the {count} generators")
        # The default of images is no choice of the user.
        if self.latents:
            self.need(not self.paste, "paste", "False with latents, which have no photograph")


class Domain(NamedTuple):
    """What draws: an adapted generator, and how far it goes from the source."""

    generator: Generator
    strength: float


def run(config: ConfigDict, workdir: Path) -> int:
    """Stylises images as configured; see `configs/stylize.py`.

    Writes config.json, metrics.jsonl, stylize.html, and for each image NAME aligned/NAME.png, latents/NAME.npz,
    reconstructions/NAME.png, strips/NAME.png and for each domain stylized/NAME_DOMAIN.png; by the method "pti"
    tuned/NAME.safetensors; and with `paste` stylized/NAME_DOMAIN_photo.png.

    Args:
      config: all of `configs/stylize.py`.
      workdir: where the results go. Images whose latents stand there are not inverted again.

    Returns:
      The exit code: 0, or 2 where an image could not be done.

    Raises:
      UserError: wrong input; nothing is written then.
    """
    settings = Settings.read(config)
    weights = settings.generator.weights
    source = loading.load_generator(weights, precision=settings.precision)
    loaded = domains.load(settings.generators, source, weights)
    strengths = itertools.cycle(settings.strength)
    drawn_by = {
        name: Domain(generator, float(strength))
        for (name, (generator, _)), strength in zip(loaded.items(), strengths, strict=False)
    }
    facts = {
        # A recipe may have been run again: its content tells.
        "domains": {
            name: [Item(name, path).digest, drawn_by[name].strength]
            for name, (_, path) in loaded.items()
        },
        "pasted": settings.paste,
    }
    items = (
        listing(settings.latents, "latents", latent_files.ENDINGS)
        if settings.latents
        else listing(settings.images)
    )
    check_names([item.name for item in items], drawn_by)
    with ImageRun(config, workdir, items, results=RESULTS, free=FREE) as run:
        for subject in subjects(run, settings, source, run.todo(facts)):
            stylize(run, settings, source, drawn_by, subject, facts)
        report(run, list(drawn_by))
        return run.exit_code()


def check_names(names: Sequence[str], drawn_by: Collection[str]) -> None:
    """Makes sure that no two results have one name, as of "a" in the domain "b_c" and "a_b" in "c"; UserError."""
    if taken := [domain for domain in drawn_by if domain in CAPTIONS]:
        raise UserError(
            f"generators has {taken[0]!r}, as strips call an image that no domain draws; rename its folder or file"
        )
    held: dict[str, tuple[str, str]] = {}
    for name, domain in itertools.product(names, drawn_by):
        for file in (f"{name}_{domain}", f"{name}_{domain}_photo"):
            # As file systems compare that ignore case.
            theirs, other = held.setdefault(file.casefold(), (name, domain))
            if (theirs, other) == (name, domain):
                continue
            field, pair = (
                ("images", (theirs, name)) if theirs != name else ("generators", (other, domain))
            )
            raise UserError(
                f"{field} has {pair[0]!r} and {pair[1]!r}, which would both become stylized/{file}.png; rename one of "
                "them"
            )


# -- What is drawn -------------------------------------------------------------------------------------


def subjects(
    run: ImageRun, settings: Settings, source: Generator, todo: Sequence[Item]
) -> Iterator[Subject]:
    """Reads latents, or finds them; first those that an earlier command in the workdir has found."""
    if settings.latents:
        read = functools.partial(read_latents, source=source)
        yield from (subject for _, subject in run.read_all(todo, read))
        return
    rows = {row["image"]: row for row in run.earlier_rows}
    known = [
        item
        for item in todo
        if all(is_found(run, face, rows.get(face.name, {})) for face in faces_of(item, rows))
    ]
    if known:
        print(f"{len(known)} of {len(todo)} were inverted before", flush=True)

    def read_again(face: Item) -> Subject:
        return reread(run, face, rows[face.name], source)

    faces = [face for item in known for face in faces_of(item, rows)]
    yield from (subject for _, subject in run.read_all(faces, read_again))
    if rest := [item for item in todo if item not in known]:
        yield from inverted(run, settings, inversions.load(settings), rest)


def faces_of(item: Item, rows: Mapping[str, Mapping[str, Any]]) -> list[Item]:
    """An item and its further faces among the results, its own name last, as `inversions.find` has them."""
    further = [name for name, row in rows.items() if row.get("face_of") == item.name]
    return [*(dataclasses.replace(item, name=x, face_of=item.name) for x in further), item]


def is_found(run: ImageRun, item: Item, row: Mapping[str, Any]) -> bool:
    """Whether the latents of an item, and what else an inversion leaves, stand in the workdir."""
    left = [x for x in row.get("files", []) if not x.startswith(("stylized/", "strips/"))]
    return (
        bool(left)
        and row.get("sha256") == item.digest
        and all(run.path(name).is_file() for name in left)
    )


def reread(run: ImageRun, item: Item, row: Mapping[str, Any], source: Generator) -> Subject:
    """What an earlier command found an item to be; UserError where a file is damaged."""
    path = run.path(f"latents/{item.name}.npz")
    codes = latent_files.read(path, source, "latents")
    image = images.read(run.path(f"aligned/{item.name}.png"), source.size)
    file = run.path(f"tuned/{item.name}.safetensors")
    tuned = read_tuned(file, source) if file.is_file() else None
    figures = {name: x for name, x in row.items() if name not in OURS}
    quad = np.array(row["quad"]) if "quad" in row else None
    return Subject(item, codes, image, tuned, quad, figures)


def read_latents(item: Item, source: Generator) -> Subject:
    """A file of latents; of a run of `invert`, with the generator that was tuned for it."""
    codes = latent_files.read(item.path, source, "latents")
    if len(codes) > 1:
        raise UserError(f"{item.path} holds latents of {len(codes)} images; expected those of one")
    file = tuned_file(item)
    return Subject(item, codes, tuned=file and read_tuned(file, source))


# -- How it is drawn -----------------------------------------------------------------------------------


def stylize(
    run: ImageRun,
    settings: Settings,
    source: Generator,
    drawn_by: Mapping[str, Domain],
    subject: Subject,
    facts: Mapping[str, Any],
) -> None:
    """Draws one image in all domains, and writes its results."""
    item, tuned = subject.item, subject.tuned or source
    one = functools.partial(draw, subject.codes, source, tuned)
    drawn = {"reconstruction": one(source, 0.0)}
    drawn |= {name: one(*domain) for name, domain in drawn_by.items()}
    drawn = {name: np.asarray(x[0]) for name, x in drawn.items()}
    try:
        for name, x in drawn.items():
            images.check_finite(x, f"the image of {name}")
    except UserError as error:
        run.skip(item, error)
        return
    pictures = {f"reconstructions/{item.name}.png": drawn["reconstruction"]}
    pictures |= {f"stylized/{item.name}_{name}.png": drawn[name] for name in drawn_by}
    if subject.image is not None:
        pictures[f"aligned/{item.name}.png"] = subject.image
        drawn = {"aligned": subject.image} | drawn
    pixels = {file: images.to_uint8(x) for file, x in pictures.items()}
    row = {name: images.to_uint8(x) for name, x in drawn.items()}
    facts = dict(facts)
    if subject.quad is not None:
        facts["quad"] = np.round(subject.quad, 2).tolist()
        if (
            settings.align.mode != "none"
        ):  # or the photograph is the aligned image, but for its borders
            row = {"photograph": np.asarray(images.upright(item.path, PIXELS).image)} | row
    if settings.paste:
        photo = images.upright(item.path).image
        for name in drawn_by:
            whole = paste(photo, drawn[name], subject.quad)
            pixels[f"stylized/{item.name}_{name}_photo.png"] = np.asarray(whole)
    pixels[f"strips/{item.name}.png"] = gallery.strip(row, max(gallery.SIDE, source.size))
    written = [run.write(file, functools.partial(images.save, x)) for file, x in pixels.items()]
    save = functools.partial(latent_files.write, codes=subject.codes)
    written.append(run.write(f"latents/{item.name}.npz", save))
    if subject.tuned is not None:
        origin = {"source": settings.generator.weights, "image": item.name}
        save = functools.partial(native.save_model, subject.tuned, **origin)
        written.append(run.write(f"tuned/{item.name}.safetensors", save))
    run.finish(item, written, {**subject.figures, **facts})


def report(run: ImageRun, drawn_by: Sequence[str]) -> None:
    """Writes the page of all images that are done, and says where to look."""
    names = {item.name for item in run.items}
    rows = [row for row in run.earlier_rows if row.get("face_of", row["image"]) in names]
    if not rows:
        return
    cards = []
    for row in rows:
        name = row["image"]
        shown = {"aligned": f"aligned/{name}.png", "reconstruction": f"reconstructions/{name}.png"}
        shown |= {domain: f"stylized/{name}_{domain}.png" for domain in row["domains"]}
        if row["pasted"]:
            whole = {f"{x}, photograph": f"stylized/{name}_{x}_photo.png" for x in row["domains"]}
            shown |= whole
        figures = {x: row[x] for x in inversions.FIGURES if x in row}
        paths = {label: run.path(file) for label, file in shown.items()}
        cards.append((name, figures, {label: x for label, x in paths.items() if x.is_file()}))
    page = run.write_text("stylize.html", gallery.page("Stylised images", cards))
    if run.finished:
        print(f"image, reconstruction, {', '.join(drawn_by)}: {run.path('strips')}")
    print(f"all images: {page}")
