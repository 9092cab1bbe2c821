"""Edits images, latents or seeds, each with results of its own."""

import collections
import contextlib
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

from nada_jax import batches, files, images
from nada_jax.adaptation import prompts
from nada_jax.errors import UserError
from nada_jax.latents import codes as latent_files
from nada_jax.latents import directions, editing, statistics
from nada_jax.latents.codes import Codes
from nada_jax.latents.directions import Direction
from nada_jax.latents.inversion import METHODS as METHODS_OF_INVERSION
from nada_jax.latents.projection import Networks, differences, see
from nada_jax.latents.statistics import StatisticsSettings
from nada_jax.losses.identity import identity
from nada_jax.models.blending import transfer
from nada_jax.models.clip import Clip
from nada_jax.models.mapper import Mapper
from nada_jax.models.stylegan2 import Generator
from nada_jax.runs import per_image
from nada_jax.runs.per_image import ImageRun, Item
from nada_jax.runs.progress import Progress
from nada_jax.settings import SEEDS, NonNegative, Number, Rule, Section, Truncation, one_of
from nada_jax.tasks import invert
from nada_jax.weights import loading

MEMORY = "lower batch_size, or set precision=bfloat16"  # the remedy for a lack of it
ENDINGS = (".npz", ".npy")  # of files with latents
SIDE = 256  # pixels, at least, of an image in a strip
RESULTS = "edited/*.png", "latents/*.npz", "strips/*.png"
FREE = "images", "latents", "seeds", "overwrite"  # that another command in the workdir may change

Figures = Mapping[str, np.ndarray]  # each [b]
# (generator, latents of b images, report of progress) -> their latents after the edit, and figures.
Change = Callable[[Generator, Codes, Callable[[int, float, float], None]], tuple[Codes, Figures]]


LONGEST = 60  # characters of a text in a file's name
MEAN = Item("mean")  # where the mode "free" starts


class Method(NamedTuple):
    """A way to edit latents.

    Attributes:
      load: (settings, generator) -> how it changes latents. Reads whatever that needs, and refuses what is wrong
        before the first image.
      steps: settings -> steps of one batch that it reports.
      what: in words.
      text: settings -> what images should show after it, for names and figures; "" where that is unknown.
    """

    load: Callable[["Settings", Generator], Change]
    steps: Callable[["Settings"], int]
    what: str
    text: Callable[["Settings"], str] = lambda settings: settings.edit.text


def load_optimization(settings: "Settings", generator: Generator) -> Change:
    """Latent optimisation, with the CLIPs and the identity network of the config."""
    edit = settings.edit
    clips = load_clips(settings)
    editing.check_view(edit.view, clips, generator.size)
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
            view=edit.view,
            lr=edit.lr,
            steps=edit.steps,
            l2=0.0 if free else edit.l2,
            identity=0.0 if free else edit.identity,
            report=report,
        )
        return edited, {"loss": figures["loss"], "l2": figures["l2"]}

    return change


def load_global(settings: "Settings", generator: Generator) -> Change:
    """The global direction from `edit.source` to `edit.text`, by statistics that are computed once."""
    edit, models = settings.edit, settings.clip.models
    if len(models) > 1:
        raise UserError(
            f"clip.models is {models}; expected one CLIP with edit.method='global', whose statistics are those of one"
        )
    (clip,) = load_clips(settings)
    aim = prompts.text_direction(clip, edit.source, edit.text, fields=("edit.source", "edit.text"))
    found = statistics.load(
        generator,
        clip,
        settings.statistics,
        batch_size=settings.batch_size,
        report=batches.every_tenth("statistics, computed once: images"),
    )
    direction, _ = found.toward(aim, edit.beta, field="edit.beta")
    return _along([direction], [edit.alpha])


def load_directions(settings: "Settings", generator: Generator) -> Change:
    """The directions of `edit.directions`, added together by their strengths."""
    edit = settings.edit
    if not edit.directions:
        raise UserError(
            "edit.directions is empty; expected files of configs/find_direction.py, which edit.method='directions' reads"
        )
    found = []
    for file in edit.directions:
        found.append(loading.load_model(Direction, file, field="edit.directions"))
        try:
            found[-1].check(generator)
        except UserError as error:
            raise UserError(f"{file}: {error}") from error
    return _along(found, edit.strengths or [1.0] * len(found))


def _along(found: Sequence[Direction], strengths: Sequence[float]) -> Change:
    def change(generator: Generator, start: Codes, report: Callable) -> tuple[Codes, Figures]:
        return directions.move(start, generator, found, strengths), {}

    return change


def load_mapper(settings: "Settings", generator: Generator) -> Change:
    """The mapper of `edit.mapper`, converted or trained here."""
    edit = settings.edit
    if not edit.mapper:
        raise UserError(
            "edit.mapper is empty; expected a file of configs/train_mapper.py or an official one, which "
            "edit.method='mapper' reads"
        )
    mapper = loading.load_model(Mapper, edit.mapper, field="edit.mapper")
    if (theirs := mapper.architecture.w_dim) != (ours := generator.architecture.w_dim):
        raise UserError(
            f"edit.mapper={edit.mapper!r} is for latents of {theirs} numbers, but those of the generator have {ours}"
        )

    def change(generator: Generator, start: Codes, report: Callable) -> tuple[Codes, Figures]:
        if start.ws is None:
            raise UserError(
                "edit.method is 'mapper', which reads W+, and the latents are styles; expected latents with ws, or "
                "another edit.method"
            )
        return start.replace(ws=mapper.edit(start.ws, edit.mapper_strength)), {}

    return change


def _written(names: Sequence[str], key: str) -> str:
    """What the headers of native files say about their texts, joined; files that cannot be read, nothing."""
    found = []
    for name in names:
        # Whatever is wrong with the file, `load` says.
        with contextlib.suppress(UserError):
            found.append(files.read_metadata(files.expand(name)).get(key, ""))
    return " and ".join(dict.fromkeys(filter(None, found)))


METHODS = {
    "optimize": Method(
        load_optimization,
        lambda settings: settings.edit.steps,
        "StyleCLIP's latent optimisation (Patashnik et al. 2021, section 4)",
    ),
    "global": Method(
        load_global,
        lambda settings: 0,
        "StyleCLIP's global direction (section 6), straight from two texts",
    ),
    "directions": Method(
        load_directions,
        lambda settings: 0,
        "files of configs/find_direction.py, added together",
        lambda settings: _written(settings.edit.directions, "target"),
    ),
    "mapper": Method(
        load_mapper,
        lambda settings: 0,
        "StyleCLIP's mapper (section 5), converted or of configs/train_mapper.py",
        lambda settings: _written([settings.edit.mapper], "text"),
    ),
}
FINITE = Rule(lambda x: bool(np.isfinite(x).all()), "finite numbers, such as (2.0, -1.0)")


class Edit(editing.Edit, name="edit"):
    """How subjects are edited; `config.edit`."""

    method: Annotated[str, one_of(METHODS)]
    label: str
    source: str
    alpha: Number
    beta: NonNegative
    directions: tuple[str, ...]
    strengths: Annotated[tuple[float, ...], FINITE]
    mapper: str
    mapper_strength: Number

    def check(self) -> None:
        """Strengths go with directions."""
        good = len(self.strengths) in (0, len(self.directions))
        self.need(good, "strengths", f"a number for each of the {len(self.directions)} directions")


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


class Subjects(invert.Settings):
    """What is edited, and what every edit needs: fields of `configs/edit.py` beside those of `configs/invert.py`."""

    latents: str
    seeds: tuple[int, ...]
    truncation: Truncation
    clip: Clips

    def check(self) -> None:
        """There is one kind of subjects."""
        if len(given := self.given) > 1:
            raise UserError(f"{' and '.join(given)} are set; expected one of them")
        good = all(seed in SEEDS for seed in map(int, self.seeds))
        self.need(good, "seeds", "whole numbers in 0..2^32 - 1")

    @property
    def inverts(self) -> bool:
        """Whether the subjects are images, whose latents have to be found."""
        return not self.latents and not self.seeds

    @property
    def given(self) -> list[str]:
        """The fields that name subjects."""
        return [name for name in ("images", "latents", "seeds") if getattr(self, name)]


class Settings(Subjects):
    """All of `configs/edit.py`."""

    generators: tuple[str, ...]
    edit: Edit
    statistics: StatisticsSettings

    def check(self) -> None:
        """The mode "free" does without subjects; what has a weight has a network."""
        super().check()
        edit = self.edit
        if edit.mode == "free" and self.given:
            raise UserError(
                f"edit.mode is 'free', which starts from the mean latent, and {self.given[0]} is set; expected "
                "edit.mode=edit, or none of images, latents and seeds"
            )
        if edit.identity and edit.mode == "edit" and not self.identity.weights:
            raise UserError(
                f"edit.identity is {edit.identity:g} and identity.weights is ''; expected the file of a face identity "
                "network, or edit.identity=0"
            )
        good = not re.search(r"[/\\\0]", edit.label) and edit.label == edit.label.strip(" .")
        edit.need(good, "label", "a name that files can have")

    @property
    def text(self) -> str:
        """What images should show after the edit; "" where that is unknown."""
        return METHODS[self.edit.method].text(self).strip()

    @property
    def inverts(self) -> bool:
        """The mode "free" starts from the mean."""
        return super().inverts and self.edit.mode == "edit"

    @property
    def label(self) -> str:
        """Of the edit, in names of files."""
        return self.edit.label or words(self.text) or self.edit.method


def words(text: str) -> str:
    """A text as a part of a file's name."""
    return re.sub(r"[^\w.-]+", "_", text.strip()).strip("_.")[:LONGEST]


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
    networks = load_networks(settings)
    items = [MEAN] if settings.edit.mode == "free" else listing(settings, networks.generator)
    with ImageRun(config, workdir, items, results=RESULTS, free=FREE) as run:
        if todo := run.todo():
            edit(run, settings, networks, todo)
        return run.exit_code()


def edit(run: ImageRun, settings: Settings, networks: Networks, todo: Sequence[Item]) -> None:
    """Edits within the workdir that the run holds; see `run`."""
    generator, label = networks.generator, settings.label
    others = load_others(settings, generator)
    method = METHODS[settings.edit.method]
    change = method.load(settings, generator)
    measure = load_measures(settings, networks)
    # An image with a generator of its own is a batch of its own.
    tunes = settings.inverts and METHODS_OF_INVERSION[settings.invert.method].tunes
    size = 1 if tunes else min(settings.batch_size, len(todo))
    steps = method.steps(settings) * -(-len(todo) // size)
    with Progress(steps, 0, every=50, silent=not steps) as progress:
        for batch in batched(subjects(run, settings, networks, todo), size):
            began = time.perf_counter()
            own = batch[0].tuned or generator
            start = join([subject.codes for subject in batch])
            # Every batch has one shape, so that a smaller last one is not compiled anew.
            rows = np.minimum(np.arange(size), len(batch) - 1)
            edited, figures = change(own, start[rows], progress.advance)
            drawn = {"": (draw(own, start[rows]), draw(own, edited))}
            for other, adapted in others.items():
                if own is not generator:
                    adapted = transfer(adapted, generator, own)
                moved = directions.carry(edited, start[rows], own, adapted)
                drawn[other] = draw(adapted, start[rows]), draw(adapted, moved)
            figures = figures | measure(*drawn[""])
            seconds = (time.perf_counter() - began) / len(batch)
            for i, subject in enumerate(batch):
                pairs = {other: (before[i], after[i]) for other, (before, after) in drawn.items()}
                numbers = {figure: float(x[i]) for figure, x in figures.items()}
                if not np.isfinite(list(numbers.values())).all():
                    run.skip(subject.item, UserError(_diverged(settings)))
                    continue
                written = write(run, label, subject, edited[i : i + 1], pairs)
                facts = {"edit": label, "text": settings.text, "seconds": seconds}
                run.finish(subject.item, written, numbers | facts)
                progress.say(_described(subject.item.name, numbers))
    if run.finished:
        print(f"before and after: {run.path('strips')}")


def _diverged(settings: Settings) -> str:
    return f"its edit is not finite: the optimisation diverged with edit.lr={settings.edit.lr:g}; expected a smaller rate"


def _described(name: str, numbers: Mapping[str, float]) -> str:
    """What became of a subject, in a line."""
    gained = ""
    if "clip_after" in numbers:
        gained = f", cosine to the text {numbers['clip_before']:.3f} -> {numbers['clip_after']:.3f}"
    return f"{name}: changed by {numbers['mse']:.4f} (mse){gained}"


class Subject(NamedTuple):
    """What is edited: its latents (b = 1), and what an inversion knows beside them."""

    item: Item
    codes: Codes
    image: np.ndarray | None = None  # [size, size, 3], as it was given
    tuned: Generator | None = None  # the generator of this image alone


def load_networks(settings: Subjects) -> Networks:
    """The generator, and those of inversion, where there are images, and of figures."""
    if settings.inverts:
        return invert.load(settings)
    lpips, judge, faces = settings.lpips.weights, settings.judge, settings.identity.weights
    return Networks(
        generator=loading.load_generator(settings.generator.weights, precision=settings.precision),
        lpips=loading.load_lpips(lpips, field="lpips.weights") if lpips else None,
        identity=loading.load_identity(faces) if faces else None,
        judge=loading.load_clip(judge, field="judge").without_texts() if judge else None,
    )


def listing(settings: Subjects, generator: Generator) -> list[Item]:
    """The subjects of the config, most of them not yet read.

    Raises:
      UserError: there are none, or a field that names them is wrong.
    """
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
    counts = collections.Counter(item.name for item in items)
    if twice := [name for name, n in counts.items() if n > 1]:
        raise UserError(
            f"latents={settings.latents!r} holds two of the name {twice[0]!r}; expected names of their own"
        )
    return items


def subjects(
    run: ImageRun, settings: Subjects, networks: Networks, todo: Sequence[Item]
) -> Iterator[Subject]:
    """Reads, draws or inverts what is to be edited, of `listing`; what cannot be read is skipped."""
    generator = networks.generator
    if settings.seeds:
        for item in todo:
            seed = np.uint32(item.name.removeprefix("seed_"))
            yield Subject(item, Codes(ws=_latent(generator, seed, settings.truncation)))
    elif settings.latents:
        names = [item.name for item in run.items]
        first = {item.path: names.index(item.name) for item in reversed(run.items)}

        def read(item: Item) -> Codes:
            row = names.index(item.name) - first[item.path]
            return latent_files.read(item.path, generator, "latents")[row : row + 1]

        yield from itertools.starmap(Subject, run.read_all(todo, read))
    elif todo == [MEAN]:
        yield Subject(MEAN, Codes(ws=generator.broadcast(generator.latent_avg[None])))
    else:
        for item, aligned, found in invert.find(run, settings, networks, todo):
            tuned = None if found.tuned is None else found.tuned[0]
            yield Subject(item, found.codes, aligned.image, tuned)


@jax.jit
def _latent(generator: Generator, seed: jax.Array, truncation: float) -> jax.Array:
    """ws [1, l, w_dim] of a seed, the same as that of `configs/sample.py`."""
    z = jax.random.normal(jax.random.key(seed), (1, generator.architecture.z_dim))
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


def load_clips(settings: Subjects) -> list[Clip]:
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


def load_measures(
    settings: Settings, networks: Networks
) -> Callable[[np.ndarray, np.ndarray], Figures]:
    """A function of images before and after, [b, size, size, 3] each, to figures [b].

    `mse`, `lpips` and `identity` (a cosine) between the two, as far as the networks are given; `clip_before` and
    `clip_after`, the cosines to the text as the judge sees them.
    """
    text = settings.text
    wanted = None
    if networks.judge is not None and text:
        whole = loading.load_clip(settings.judge, field="judge")
        wanted = whole.embed_texts([text])[0]

    def measure(before: np.ndarray, after: np.ndarray) -> Figures:
        found = jax.device_get(_compare(networks, before, after))
        if wanted is not None:
            for when, drawn in {"before": before, "after": after}.items():
                found[f"clip_{when}"] = np.asarray(cosines(networks.judge, drawn, wanted))
        return found

    return measure


@jax.jit
def _compare(networks: Networks, before: jax.Array, after: jax.Array) -> Figures:
    found = differences(networks, see(networks, before), after)
    if networks.identity is not None:
        faces = (networks.identity.embed_images(x) for x in (before, after))
        found["identity"] = 1 - identity(*faces)
    return found


@jax.jit
def cosines(clip: Clip, drawn: jax.Array, wanted: jax.Array) -> jax.Array:
    """Cosines [b] of images to the feature of a text [d]."""
    return clip.embed_images(drawn, antialias=True) @ wanted


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
