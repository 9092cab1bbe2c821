"""Edits images, latents or seeds, each with results of its own."""

import functools
import itertools
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from nada_jax import images
from nada_jax.errors import UserError
from nada_jax.latents import codes as latent_files
from nada_jax.latents import editing
from nada_jax.latents.codes import Codes
from nada_jax.models.clip import Clip
from nada_jax.models.stylegan2 import Generator
from nada_jax.runs import per_image
from nada_jax.runs.per_image import ImageRun, Item
from nada_jax.runs.progress import Progress
from nada_jax.settings import Count, Precision, Section, Seed, Truncation, one_of
from nada_jax.weights import loading

MEMORY = "lower batch_size, or set precision=bfloat16"  # the remedy for a lack of it
ENDINGS = (".npz", ".npy")  # of files with latents
SIDE = 256  # pixels, at least, of an image in a strip
RESULTS = "edited/*.png", "latents/*.npz", "strips/*.png"
FREE = "images", "latents", "seeds", "overwrite"  # that another command in the workdir may change

Figures = Mapping[str, np.ndarray]  # each [b]
# (generator, latents of b images, report of progress) -> their latents after the edit, and figures.
Change = Callable[[Generator, Codes, Callable[[int, float, float], None]], tuple[Codes, Figures]]


class Method(NamedTuple):
    """A way to edit latents.

    Attributes:
      load: (settings, generator) -> how it changes latents. Reads whatever that needs, and refuses what is wrong
        before the first image.
      steps: settings -> steps of one batch that it reports.
      what: in words.
    """

    load: Callable[["Settings", Generator], Change]
    steps: Callable[["Settings"], int]
    what: str


def load_optimization(settings: "Settings", generator: Generator) -> Change:
    """Latent optimisation, with the CLIPs and the identity network of the config."""
    edit = settings.edit
    clips = load_clips(settings)
    editing.check_path(edit.path, clips, generator.size)
    texts = editing.embed_text(clips, edit.text)
    faces = None
    if edit.identity and edit.mode == "edit":
        faces = loading.load_identity(settings.identity.weights)
    guides = editing.Guides(
        tuple(clip.without_texts() for clip in clips), settings.clip.weights, faces
    )
    free = edit.mode == "free"

    def change(generator: Generator, start: Codes, report: Callable) -> tuple[Codes, Figures]:
        edited, figures, _ = editing.edit(
            generator,
            guides,
            start,
            texts,
            space=edit.space,
            path=edit.path,
            lr=edit.lr,
            steps=edit.steps,
            l2=0.0 if free else edit.l2,
            identity=0.0 if free else edit.identity,
            report=report,
        )
        return edited, {"loss": figures["loss"], "l2": figures["l2"]}

    return change


METHODS = {
    "optimize": Method(
        load_optimization,
        lambda settings: settings.edit.steps,
        "StyleCLIP's latent optimisation (Patashnik et al. 2021, section 4)",
    ),
}
Edit = editing.Edit.extended({"method": Annotated[str, one_of(METHODS)], "name": str})


class Weights(Section):
    """A network by its name or file."""

    weights: str


class Clips(Section, name="clip"):
    """The CLIPs that read the text; `config.clip`."""

    models: tuple[str, ...]
    weights: tuple[float, ...]

    def check(self) -> None:
        """There is at least one, and each has a weight."""
        self.need(bool(self.models), "models", "at least one CLIP")
        count = len(self.models)
        good = len(self.weights) == count and all(0 < w < np.inf for w in self.weights)
        self.need(good, "weights", f"a number above 0 for each of the {count} models")


class Settings(Section):
    """All of `configs/edit.py`."""

    task: str
    seed: Seed
    precision: Precision
    batch_size: Count
    overwrite: bool
    images: str
    latents: str
    seeds: tuple[Seed, ...]
    truncation: Truncation
    generator: Weights.extended({}, name="generator")
    generators: tuple[str, ...]
    lpips: Weights.extended({}, name="lpips")
    identity: Weights.extended({}, name="identity")
    judge: str
    clip: Clips
    edit: Edit

    def check(self) -> None:
        """One kind of subjects, which the free mode does without; and networks for what has a weight."""
        given = [name for name in ("images", "latents", "seeds") if getattr(self, name)]
        if self.edit.mode == "free" and given:
            raise UserError(
                f"edit.mode is 'free', which starts from the mean; expected no {given[0]}"
            )
        if len(given) > 1:
            raise UserError(f"{' and '.join(given)} are both set; expected one of them")
        if self.edit.identity and self.edit.mode == "edit" and not self.identity.weights:
            raise UserError(
                f"edit.identity is {self.edit.identity:g} and identity.weights is empty; expected the file of a face "
                "identity network, or edit.identity=0"
            )
        if "/" in self.edit.name or self.edit.name != self.edit.name.strip():
            self.edit.need(False, "name", "a name that files can have")

    @property
    def name(self) -> str:
        """Of the edit, in names of files."""
        words = re.sub(r"[^\w.-]+", "_", self.edit.text.strip()).strip("_.")
        return self.edit.name or words[:60] or self.edit.method


def run(config: ConfigDict, workdir: Path) -> int:
    """Edits what is not done yet; see `configs/edit.py`.

    Writes config.json, metrics.jsonl and, for each subject, edited/NAME_EDIT.png, latents/NAME_EDIT.npz and
    strips/NAME_EDIT.png: before and after (behind the image itself, where there is one), and below these the same by
    each further generator, whose edited image is edited/NAME_EDIT_GENERATOR.png.

    Args:
      config: all of `configs/edit.py`.
      workdir: where the results go; an earlier run is continued.

    Returns:
      The exit code: 0, or 2 where some subjects could not be edited.

    Raises:
      UserError: wrong input; nothing is written then.
    """
    settings = Settings.read(config)
    generator = loading.load_generator(settings.generator.weights, precision=settings.precision)
    items = listing(settings, generator)
    with ImageRun(config, workdir, items, results=RESULTS, free=FREE) as run:
        todo = run.todo()
        return edit(run, settings, generator, todo) if todo else 0


def edit(run: ImageRun, settings: Settings, generator: Generator, todo: Sequence[Item]) -> int:
    """Edits within the workdir that the run holds; see `run`."""
    others = load_others(settings, generator)
    method = METHODS[settings.edit.method]
    change = method.load(settings, generator)
    measure = load_measures(settings)
    size = min(settings.batch_size, len(todo))
    steps = method.steps(settings) * -(-len(todo) // size)
    with Progress(steps, 0, every=50) as progress:
        for batch in batched(subjects(run, settings, generator, todo), size):
            began = time.perf_counter()
            own = batch[0].tuned or generator
            start = join([subject.codes for subject in batch])
            # Every batch has one shape, so that a smaller last one is not compiled anew.
            rows = np.minimum(np.arange(size), len(batch) - 1)
            edited, figures = change(own, start[rows], progress.advance)
            edited = edited[: len(batch)]
            before, after = draw(own, start), draw(own, edited)
            images.check_finite(after, "the edited images")
            figures = {name: x[: len(batch)] for name, x in figures.items()}
            figures |= measure(before, after)
            drawn = {name: (draw(g, start), draw(g, edited)) for name, g in others.items()}
            seconds = (time.perf_counter() - began) / len(batch)
            for i, subject in enumerate(batch):
                pairs = {"": (before[i], after[i])}
                pairs |= {name: (pair[0][i], pair[1][i]) for name, pair in drawn.items()}
                written = write(run, settings.name, subject, edited[i : i + 1], pairs)
                numbers = {name: round(float(x[i]), 5) for name, x in figures.items()}
                numbers |= {"edit": settings.name, "text": settings.edit.text}
                run.finish(subject.item, written, numbers | {"seconds": round(seconds, 3)})
    print(f"strips: {run.path('strips')} (before, after)")
    return run.exit_code()


class Subject(NamedTuple):
    """What is edited: its latents (b = 1), and what an inversion knows beside them."""

    item: Item
    codes: Codes
    image: np.ndarray | None = None  # [size, size, 3], as it was given
    tuned: Generator | None = None  # the generator of this image alone


def listing(settings: Settings, generator: Generator) -> list[Item]:
    """The subjects of the config, which are not yet read.

    Raises:
      UserError: there are none, or a field that names them is wrong.
    """
    if settings.edit.mode == "free":
        return [Item("mean")]
    if settings.seeds:
        return [Item(f"seed_{int(seed):04d}") for seed in dict.fromkeys(settings.seeds)]
    if not settings.latents:
        return per_image.listing(settings.images or "avatars")
    items = []
    for item in per_image.listing(settings.latents, "latents", ENDINGS):
        try:
            count = len(latent_files.read(item.path, generator, "latents"))
        except UserError:  # it is named when its turn comes
            count = 1
        names = [item.name] if count == 1 else [f"{item.name}_{i}" for i in range(count)]
        items += [Item(name, item.path) for name in names]
    return items


def subjects(
    run: ImageRun, settings: Settings, generator: Generator, todo: Sequence[Item]
) -> Iterator[Subject]:
    """Reads, draws or inverts what is to be edited; what cannot be read is skipped."""
    if settings.edit.mode == "free":
        mean = generator.broadcast(generator.latent_avg[None])
        yield from (Subject(item, Codes(ws=mean)) for item in todo)
    elif settings.seeds:
        for item in todo:
            key = jax.random.key(np.uint32(item.name.removeprefix("seed_")))
            yield Subject(item, Codes(ws=_latent(generator, key, settings.truncation)))
    elif settings.latents:
        places = [item.name for item in run.items]
        first = {item.path: places.index(item.name) for item in reversed(run.items)}

        def read(item: Item) -> Codes:
            row = places.index(item.name) - first[item.path]
            return latent_files.read(item.path, generator, "latents")[row : row + 1]

        yield from itertools.starmap(Subject, run.read_all(todo, read))
    else:
        raise UserError("images cannot be edited yet; expected latents or seeds")


@jax.jit
def _latent(generator: Generator, key: jax.Array, truncation: float) -> jax.Array:
    """ws [1, l, w_dim] of a seed, the same as that of `configs/sample.py`."""
    z = jax.random.normal(key, (1, generator.architecture.z_dim))
    return generator.broadcast(generator.truncate(generator.map(z), truncation))


def batched(stream: Iterator[Subject], size: int) -> Iterator[list[Subject]]:
    """Up to `size` subjects at once whose latents are of one kind and which one generator draws."""
    batch: list[Subject] = []
    for subject in stream:
        fits = not batch or (
            jax.tree.structure(subject.codes) == jax.tree.structure(batch[0].codes)
            and subject.tuned is batch[0].tuned
        )
        if len(batch) == size or not fits:
            yield batch
            batch = []
        batch.append(subject)
    if batch:
        yield batch


def join(parts: Sequence[Codes]) -> Codes:
    """Latents of several images as one batch."""
    return jax.tree.map(lambda *x: jnp.concatenate(x), *parts)


@jax.jit
def _draw(generator: Generator, latents: Codes) -> jax.Array:
    return latents.draw(generator)


def draw(generator: Generator, latents: Codes) -> np.ndarray:
    """Images [b, size, size, 3]."""
    return np.asarray(_draw(generator, latents))


def load_clips(settings: Settings) -> list[Clip]:
    """The CLIPs that read the text."""
    return [
        loading.load_clip(model, precision=settings.precision) for model in settings.clip.models
    ]


def load_others(settings: Settings, generator: Generator) -> dict[str, Generator]:
    """The further generators, by a name for files; UserError if one cannot draw the latents of the first."""
    others = {}
    for weights in settings.generators:
        other = loading.load_generator(weights, precision=settings.precision, field="generators")
        if other.architecture != generator.architecture:
            raise UserError(
                f"generators has {weights!r}, which differs in architecture from generator.weights="
                f"{settings.generator.weights!r}; expected generators adapted from it"
            )
        path = Path(weights)
        # Runs call their file generator.safetensors; then the folder bears the name.
        name = path.parent.name if path.stem == "generator" else path.stem
        while name in others:
            name += "_"
        others[name] = other
    return others


def load_measures(settings: Settings) -> Callable[[np.ndarray, np.ndarray], Figures]:
    """A function of images before and after, [b, size, size, 3] each, to figures [b]."""
    text = settings.edit.text.strip()
    judge = loading.load_clip(settings.judge, precision=settings.precision, field="judge")
    wanted = judge.embed_texts([text])[0] if text else None
    judge = judge.without_texts()

    def measure(before: np.ndarray, after: np.ndarray) -> Figures:
        found = {"mse": np.mean((after - before) ** 2, axis=(1, 2, 3))}
        if wanted is not None:
            for when, drawn in {"before": before, "after": after}.items():
                found[f"clip_{when}"] = np.asarray(judge.embed_images(drawn) @ wanted)
        return found

    return measure


def write(
    run: ImageRun,
    edit: str,
    subject: Subject,
    edited: Codes,
    pairs: Mapping[str, tuple[np.ndarray, np.ndarray]],
) -> list[Path]:
    """Writes the results of one subject.

    Args:
      edit: name of the edit.
      edited: latents, b = 1.
      pairs: further generator, or "" for the own one -> images before and after.

    Returns:
      The files.
    """
    name = f"{subject.item.name}_{edit}"
    written = [
        run.write(f"latents/{name}.npz", functools.partial(latent_files.write, codes=edited))
    ]
    strip = []
    for other, (before, after) in pairs.items():
        file = f"edited/{name}_{other}.png" if other else f"edited/{name}.png"
        written.append(run.write(file, functools.partial(images.save, images.to_uint8(after))))
        if subject.image is not None:
            strip.append(np.ones_like(before) if other else subject.image)
        strip += [before, after]
    columns = 2 if subject.image is None else 3
    sheet = images.grid(np.stack(strip), columns)
    large = functools.partial(images.save, sheet, enlarge=max(1, SIDE // len(strip[0])))
    return [*written, run.write(f"strips/{name}.png", large)]
