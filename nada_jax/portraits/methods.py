"""The ways to edit latents, and the models that each of them needs."""

import contextlib
import re
from collections.abc import Callable, Sequence
from typing import Annotated, NamedTuple

import numpy as np

from nada_jax import batches, files
from nada_jax.adaptation import prompts
from nada_jax.errors import UserError
from nada_jax.latents import directions, editing, statistics
from nada_jax.latents.codes import Codes
from nada_jax.latents.directions import Direction
from nada_jax.latents.spaces import distance
from nada_jax.latents.statistics import StatisticsSettings
from nada_jax.models.clip import Clip
from nada_jax.models.mapper import Mapper
from nada_jax.models.stylegan2 import Generator
from nada_jax.portraits.measures import Figures
from nada_jax.portraits.subjects import Subjects
from nada_jax.settings import NonNegative, Number, Rule, one_of
from nada_jax.weights import loading

# (generator, latents of b images, report of progress) -> their latents after the edit, and figures.
Change = Callable[[Generator, Codes, Callable[[int, float, float], None]], tuple[Codes, Figures]]
LONGEST = 60  # characters of a text in a file's name


class Method(NamedTuple):
    """A way to edit latents.

    Attributes:
      load: (settings, generator) -> how it changes latents. Reads whatever that needs, and refuses what is wrong
        before the first image.
      steps: settings -> steps of one batch that it reports.
      what: in words.
      strength: field of `config.edit` that has become too large where an edit is not finite.
      text: settings -> what images should show after it, for names and figures; "" where that is unknown.
    """

    load: Callable[["EditSettings", Generator], Change]
    steps: Callable[["EditSettings"], int]
    what: str
    strength: str
    text: Callable[["EditSettings"], str] = lambda settings: settings.edit.text


def load_clips(settings: Subjects) -> list[Clip]:
    """The CLIPs that read the text."""
    return [
        loading.load_clip(model, precision=settings.precision) for model in settings.clip.models
    ]


def load_guides(settings: Subjects, clips: Sequence[Clip], *, faces: bool) -> editing.Guides:
    """The networks that an optimisation listens to; with `faces` that of the identity, too."""
    network = loading.load_identity(settings.identity.weights) if faces else None
    clips = tuple(clip.without_texts() for clip in clips)
    return editing.Guides(clips, settings.clip.weights, network)


def load_optimization(settings: "EditSettings", generator: Generator) -> Change:
    """Latent optimisation, with the CLIPs and the identity network of the config."""
    edit = settings.edit
    clips = load_clips(settings)
    editing.check_view(edit.view, clips, generator.size)
    texts = editing.embed_text(clips, edit.text)
    free = edit.mode == "free"
    guides = load_guides(settings, clips, faces=bool(edit.identity) and not free)

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


def load_global(settings: "EditSettings", generator: Generator) -> Change:
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


def load_directions(settings: "EditSettings", generator: Generator) -> Change:
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
        edited = directions.move(start, generator, found, strengths)
        return edited, {"l2": _moved(generator, start, edited)}

    return change


def load_mapper(settings: "EditSettings", generator: Generator) -> Change:
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
        edited = start.replace(ws=mapper.edit(start.ws, edit.mapper_strength))
        return edited, {"l2": _moved(generator, start, edited)}

    return change


def _moved(generator: Generator, start: Codes, edited: Codes) -> np.ndarray:
    """Squared distance from the start [b], in W+ or, where styles were edited, in StyleSpace."""
    if edited.styles is None:
        return np.asarray(distance(edited.ws, start.ws))
    return np.asarray(distance(edited.styles, start.all_styles(generator)))


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
        "lr",
    ),
    "global": Method(
        load_global,
        lambda settings: 0,
        "StyleCLIP's global direction (section 6), straight from two texts",
        "alpha",
    ),
    "directions": Method(
        load_directions,
        lambda settings: 0,
        "files of configs/find_direction.py, added together",
        "strengths",
        lambda settings: _written(settings.edit.directions, "target"),
    ),
    "mapper": Method(
        load_mapper,
        lambda settings: 0,
        "StyleCLIP's mapper (section 5), converted or of configs/train_mapper.py",
        "mapper_strength",
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


class EditSettings(Subjects):
    """What is edited, and how: fields of `configs/edit.py`."""

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
