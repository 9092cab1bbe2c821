"""Controls that several tabs have: which presets, which image, which part of it."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
import numpy as np
from PIL import Image

from nada_jax.demo import figures, portraits
from nada_jax.demo.job import FAILED, Job
from nada_jax.demo.portraits import BOX, NO_FACE, PLACES, Cut
from nada_jax.demo.site import SOURCE, Site
from nada_jax.demo.visitors import visitor
from nada_jax.errors import UserError
from nada_jax.portraits.subjects import Subject
from nada_jax.settings import SEEDS
from nada_jax.weights.registry import ASSETS

QUIET = {"show_progress": "hidden", "api_visibility": "private"}
PREVIEW = 240  # pixels of the image in which the box is shown
TRUNCATIONS = 0.0, 1.2
SEED = 3  # a clean face of the generator that ships, as those that follow it


def block() -> gr.Blocks:
    """The page that is being built."""
    return gr.context.Context.root_block


def result(sentence: str, tab: str) -> gr.Markdown:
    """Where the results of a tab are shown, as HTML of `figures`; a sentence where there are none yet."""
    # Not gr.HTML, whose templates are evaluated as code, which the guard's policy forbids.
    return gr.Markdown(
        figures.empty(sentence), elem_id=f"{tab}-result", container=False, latex_delimiters=[]
    )


# -- Numbers -------------------------------------------------------------------------------------------


def seed(label: str = "Seed", value: int = SEED, info: str = "", **named: Any) -> gr.Number:
    """A field for a seed."""
    info = info or "A whole number; each is another person, always the same."
    return gr.Number(value, precision=0, label=label, info=info, **named)


def truncation() -> gr.Slider:
    """A slider for the truncation."""
    info = "Lower is more typical and cleaner, higher more varied."
    return gr.Slider(*TRUNCATIONS, 0.7, step=0.05, label="Truncation", info=info)


def whole(value: Any, name: str, numbers: range = SEEDS) -> int:
    """A whole number of a control; UserError where it is none of `numbers`."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and value % 1 == 0
    if not good or int(value) not in numbers:
        shown = "empty" if value is None else repr(value)
        raise UserError(
            f"{name} is {shown}; expected a whole number in {numbers.start}..{numbers.stop - 1:,}"
        )
    return int(value)


def number(value: Any, name: str, low: float, high: float) -> float:
    """A number of a control; UserError where it is not in low..high."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
    if not good:
        shown = "empty" if value is None else repr(value)
        raise UserError(f"{name} is {shown}; expected a number in {low:g}..{high:g}")
    return float(value)


def some(given: Any) -> list[str]:
    """The labels of a group of check boxes."""
    return [x for x in given or () if isinstance(x, str)]


# -- Presets -------------------------------------------------------------------------------------------


def preset(site: Site, label: str, info: str) -> gr.Dropdown:
    """A list of the source and all presets of a visitor, the first preset chosen."""
    names = [SOURCE, *site.presets("")]
    chosen = names[min(1, len(names) - 1)]
    made = gr.Dropdown(names, value=chosen, label=label, info=info)
    return _refreshed(site, made, [SOURCE])


def presets(site: Site, tab: str, info: str, count: int) -> gr.CheckboxGroup:
    """Check boxes of all presets of a visitor, so many of them chosen."""
    names = list(site.presets(""))
    made = gr.CheckboxGroup(
        names, value=names[:count], label="Presets", info=info, elem_id=f"{tab}-presets"
    )
    return _refreshed(site, made, [])


def _refreshed(site: Site, made: Any, first: Sequence[str]) -> Any:
    """What a visitor has adapted joins the list when the page is loaded, and when its tab is opened."""

    def offer(request: gr.Request) -> Any:
        return gr.update(choices=[*first, *site.presets(visitor(request))])

    block().load(offer, None, made, **QUIET)
    around = made.parent
    while not isinstance(around, gr.Tab):
        around = around.parent
    around.select(offer, None, made, **QUIET)
    return made


def generators(site: Site, who: str, labels: Sequence[str]) -> dict[str, Any]:
    """The generators of labels, which anyone may have sent; UserError where there are none."""
    found = {}
    for label in dict.fromkeys(labels):
        given = None if label == SOURCE else site.choose(who, label)
        found[label] = site.models.source() if given is None else site.models.domain(given)
    return found


def caption(label: str) -> str:
    """A label below an image."""
    return "source" if label == SOURCE else label


def word(label: str) -> str:
    """A label in the name of a file."""
    kept = "".join(x if x.isascii() and x.isalnum() else "_" for x in label)
    return "source" if label == SOURCE else kept[:40]


# -- Images --------------------------------------------------------------------------------------------


def image(label: str, examples: Path, tab: str) -> gr.Image:
    """A field for an image of the visitor's, with examples below."""
    made = gr.Image(
        label=label,
        type="filepath",
        image_mode=None,  # or Gradio would write another file
        sources=["upload", "webcam", "clipboard"],
        height=260,
        buttons=[],
        elem_id=f"{tab}-image",
    )
    paths = [str(path) for path in sorted(examples.iterdir())]
    gr.Markdown("Or one of these:", container=False)
    # Not gr.Examples, which asks by a way past the queue that the guard closes; nor gr.Dataset, which shows nothing
    # where another one was mounted before it.
    shown = thumbnails(paths, len(paths), label="Examples", elem_id=f"{tab}-examples")

    def choose(event: gr.SelectData) -> tuple[str, Any]:
        # Nothing stays selected, so that the same one can be taken again.
        return paths[event.index], gr.update(selected_index=None)

    shown.select(choose, None, [made, shown], **QUIET)
    return made


def thumbnails(pictures: Sequence[Any], columns: int, **named: Any) -> gr.Gallery:
    """Small pictures to choose from by its `select`; `named` is what else gr.Gallery takes."""
    return gr.Gallery(
        pictures,
        show_label=False,
        columns=columns,
        object_fit="cover",
        height="auto",
        allow_preview=False,
        interactive=False,
        buttons=[],
        elem_classes="nada-thumbnails",
        **named,
    )


class Portrait:
    """An image of a face: the field, where the face is in it, and how its latents are found.

    Attributes:
      inputs: components whose values `read` takes.
      outputs: components that `shown` fills.
    """

    def __init__(self, site: Site, tab: str):
        settings = site.settings
        self._site = site
        self.image = image("Image", ASSETS / "avatars", tab)
        self.place = gr.Radio(
            PLACES,
            value=portraits.place_of(settings),
            label="Where the face is",
            info="Photographs need the face found; portraits that fill the image do not. "
            "The middle and the box are taken as they are, face or not.",
            elem_id=f"{tab}-place",
        )
        with gr.Column(visible=False, elem_id=f"{tab}-box") as self.group:
            self.preview = gr.Markdown("", container=True, elem_id=f"{tab}-preview")
            x = gr.Slider(0, 100, 50, step=1, label="Left to right (%)", info="Centre of the box.")
            y = gr.Slider(0, 100, 50, step=1, label="Top to bottom (%)", info="Centre of the box.")
            side = gr.Slider(
                10, 100, 80, step=1, label="Size (%)", info="Of the shorter side of the image."
            )
        offered = portraits.methods(settings)
        chosen = {name: label for label, name in offered.items()}.get(settings.invert.method)
        with gr.Accordion("How its latents are found", open=False):
            self.method = gr.Radio(
                list(offered),
                value=chosen or next(iter(offered)),
                label="Method",
                info="How the image becomes latents: closer takes longer, and is harder to change.",
                elem_id=f"{tab}-method",
            )
            self.steps = gr.Slider(
                1,
                max(1000, settings.invert.steps),
                settings.invert.steps,
                step=1,
                label="Steps",
                info="Of the search for the latents; the encoder needs none.",
                elem_id=f"{tab}-search-steps",
            )
        self.inputs = [self.image, self.place, x, y, side, self.method, self.steps]
        self.outputs = [self.place, self.group]
        # Apart from the preview: events may end in another order than they began.
        self.place.change(_offered, self.place, self.group, **QUIET)
        for event in (self.image.change, x.release, y.release, side.release):
            event(_preview, [self.image, x, y, side], self.preview, **QUIET)

    def read(self, who: str, *values: Any) -> "Request":
        """What a visitor asks for; UserError where something is missing."""
        path, place, x, y, side, method, steps = values
        if not path:
            raise UserError("there is no image; upload one, take one, or choose an example")
        offered = portraits.methods(self._site.settings)
        if place not in PLACES or method not in offered:
            raise UserError("the place or the method is none of those of the list; choose one")
        box = number(x, "Left to right", 0, 100), number(y, "Top to bottom", 0, 100)
        cut = Cut(place, *box, number(side, "Size", 1, 100))
        most = max(1000, self._site.settings.invert.steps)
        steps = whole(steps, "Steps", range(1, most + 1))
        return Request(Path(path), cut, offered[method], steps)

    def find(self, job: Job, request: "Request") -> Subject:
        """The latents of an image; once for each image and way of asking."""
        site = self._site
        key = (job.visitor, portraits.digest(request.path), *request[1:])

        def make() -> Subject:
            job.report(0.0, "looks for the face")
            source = site.models.source()
            pixels = portraits.aligned(request.path, request.cut, source.size)
            networks = site.models.get("networks", lambda: portraits.load(site.settings, source))
            settings = portraits.choose(site.settings, request.method, request.steps)
            return portraits.find(networks, pixels, settings, site.settings.seed, job.report)

        return site.models.get("portraits", portraits.Memory).get(key, make)

    def shown(self, job: Job) -> tuple[Any, Any]:
        """Where no face is found, the box is offered."""
        if job.state == FAILED and job.error == NO_FACE:
            return gr.update(value=BOX), gr.update(visible=True)
        return gr.skip(), gr.skip()


class Request(NamedTuple):
    """An image, the part of it, and how its latents are to be found."""

    path: Path
    cut: Cut
    method: str
    steps: int


def _offered(place: str) -> Any:
    """The sliders of the box, where it is asked for."""
    return gr.update(visible=place == BOX)


def _preview(path: str | None, x: float, y: float, side: float) -> str:
    """The box within the image."""
    if not path:
        return ""
    try:
        pixels = portraits.outline(Path(path), Cut(BOX, x, y, side), PREVIEW)
    except UserError:  # the job will say so
        return ""
    return embedded(pixels, "The image, clear within the box")


def embedded(pixels: np.ndarray, alt: str) -> str:
    """A small image within HTML, of which no file is left."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=85)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img src="data:image/jpeg;base64,{data}" alt="{alt}">'
