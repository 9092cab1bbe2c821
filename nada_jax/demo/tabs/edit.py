"""Edit: a sample or an image of the visitor's, changed by a sentence or along directions."""

import dataclasses
import functools
from typing import Any

import gradio as gr
import numpy as np

from nada_jax.demo import drawing, edits, figures
from nada_jax.demo.figures import Figure, Picture
from nada_jax.demo.follow import Panel
from nada_jax.demo.job import Job
from nada_jax.demo.portraits import Memory
from nada_jax.demo.site import Site
from nada_jax.demo.tabs import controls
from nada_jax.demo.tabs.controls import QUIET, Portrait
from nada_jax.errors import UserError
from nada_jax.latents import editing
from nada_jax.latents.codes import Codes
from nada_jax.portraits.subjects import Subject
from nada_jax.runs.items import Item
from nada_jax.weights import loading

NUMBER = 30  # a clean face with black hair, on which the usual sentence shows
SEED, IMAGE = "a seed", "an image"
WORDS, SLIDERS = "by a sentence", "by sliders"
EMPTY = "Choose who is edited and how, and press Edit."
LONGEST = 200  # characters of a sentence, more than the CLIPs read
FARTHEST = 6.0  # strength of a direction, beyond which faces break
MOST_STEPS = 1000
L2S, IDENTITIES = (0.0, 0.05), (0.0, 0.1)


def build(site: Site) -> None:
    """Puts the controls here."""
    usual = site.settings.edit
    with gr.Row():
        with gr.Column(scale=2):
            subject = gr.Radio(
                [SEED, IMAGE], value=SEED, label="Who is edited", info="A sample, or your image.",
                elem_id="edit-subject",
            )  # fmt: skip
            with gr.Column() as of_seed:
                seed, truncation = controls.seed(value=NUMBER), controls.truncation()
            with gr.Column(visible=False) as of_image:
                portrait = Portrait(site, "edit")
            how = gr.Radio(
                [WORDS, SLIDERS], value=WORDS, label="How", info="One sentence, or known directions.",
                elem_id="edit-how",
            )  # fmt: skip
            with gr.Column() as by_words:
                text = gr.Textbox(
                    usual.text,
                    label="Sentence",
                    info="What the image should show afterwards.",
                    max_length=LONGEST,
                    elem_id="edit-text",
                )
                l2 = gr.Slider(
                    *L2S, usual.l2, step=0.001, label="Stay close (l2)",
                    info="More changes less; the knob that matters.",
                )  # fmt: skip
                has_faces, network = bool(site.settings.identity.weights), keeper(site)
                identity = gr.Slider(
                    *IDENTITIES, usual.identity, step=0.005, label="Keep the person (identity)",
                    interactive=bool(network),
                    info="More keeps the face, as a network of faces sees it." if has_faces else
                    "More keeps the person, as another CLIP sees them." if network else
                    "Needs a network of faces: identity.weights.",
                )  # fmt: skip
                steps = gr.Slider(
                    1, MOST_STEPS, usual.steps, step=1, label="Steps", info="More go further.",
                    elem_id="edit-steps",
                )  # fmt: skip
            with gr.Column(visible=False) as by_sliders:
                strengths = [
                    gr.Slider(
                        -FARTHEST, FARTHEST, 0, step=0.25, label=name.capitalize(),
                        info=f"Right: {target}. Left: the opposite.", elem_id=f"edit-{i}",
                    )
                    for i, (name, (_, target)) in enumerate(edits.DIRECTIONS.items())
                ]  # fmt: skip
            panel = Panel(site, "edit", "Edit")
        with gr.Column(scale=3):
            result = controls.result(EMPTY, "edit")

    # Each by itself: events may end in another order than they began.
    for control, groups in (
        (subject, {SEED: of_seed, IMAGE: of_image}),
        (how, {WORDS: by_words, SLIDERS: by_sliders}),
    ):
        control.change(
            lambda chosen, names=tuple(groups): [gr.update(visible=chosen == x) for x in names],
            control,
            list(groups.values()),
            **QUIET,
        )
    panel.connect(
        controls.block(),
        [subject, seed, truncation, how, text, l2, identity, steps, *strengths, *portrait.inputs],
        functools.partial(start, site, portrait),
        [result, *portrait.outputs],
        lambda job: (job.result or figures.empty(EMPTY), *portrait.shown(job)),
    )


def keeper(site: Site) -> str:
    """The network whose features an edit may keep: of faces, or else the CLIP that judges; "" for none."""
    return site.settings.identity.weights or site.settings.judge


def start(
    site: Site,
    portrait: Portrait,
    who: str,
    subject: str,
    seed: float,
    truncation: float,
    how: str,
    text: str,
    l2: float,
    identity: float,
    steps: float,
    *values: Any,
) -> Job:
    """Submits the edit; UserError where a field cannot be used."""
    if subject not in (SEED, IMAGE) or how not in (WORDS, SLIDERS):
        raise UserError("who is edited or how is none of those of the list; choose one")
    count = len(edits.DIRECTIONS)
    strengths = [
        controls.number(x, name.capitalize(), -FARTHEST, FARTHEST)
        for name, x in zip(edits.DIRECTIONS, values[:count], strict=True)
    ]
    request = portrait.read(who, *values[count:]) if subject == IMAGE else None
    number = truncated = None
    if request is None:
        number = controls.whole(seed, "Seed")
        truncated = controls.number(truncation, "Truncation", *controls.TRUNCATIONS)
    text = " ".join(text.split()) if isinstance(text, str) else ""
    settings = site.settings.edit
    if how == WORDS:
        if not 0 < len(text) <= LONGEST:
            raise UserError(
                f"the sentence has {len(text)} characters; expected 1 to {LONGEST}, such as {settings.text!r}"
            )
        settings = dataclasses.replace(
            settings,
            text=text,
            l2=controls.number(l2, "Stay close", *L2S),
            identity=controls.number(identity, "Keep the person", *IDENTITIES),
            steps=controls.whole(steps, "Steps", range(1, MOST_STEPS + 1)),
        )
    elif not any(strengths):
        raise UserError("all sliders are at 0, which changes nothing; move one of them")

    def work(job: Job) -> str:
        source = site.models.source()
        if request is None:
            ws = drawing.latents(source, range(number, number + 1), truncated)
            given = Subject(Item(f"seed {number}"), Codes(ws=ws))
        else:
            given = portrait.find(job, request)
        if how == WORDS:
            before, after = _by_words(site, job, given, settings)
        else:
            found = _directions(site, job)
            before, after = edits.by_sliders(given, source, found, strengths)
        return _shown(job, before, after, title)

    moved = [f"{k} {x:+g}" for k, x in zip(edits.DIRECTIONS, strengths, strict=True) if x]
    title = text if how == WORDS else ", ".join(moved)
    return site.jobs.submit(who, "edit", "work", title, work)


def _by_words(
    site: Site, job: Job, subject: Subject, settings: editing.Edit
) -> tuple[np.ndarray, np.ndarray]:
    """Images before and after an optimisation, by networks that are loaded once."""
    job.report(0.0, "loads the networks")
    clips = _clips(site)
    weights = site.settings.identity.weights
    network = None
    if settings.identity and weights:
        network = site.models.get("identity", lambda: loading.load_identity(weights))
    elif settings.identity and keeper(site):
        network = site.models.get(
            "judge", lambda: loading.load_clip(keeper(site), field="judge").without_texts()
        )
    guides = editing.Guides(
        tuple(clip.without_texts() for clip in clips), site.settings.clip.weights, network
    )
    return edits.by_words(
        subject,
        site.models.source(),
        guides,
        clips,
        settings.text,
        settings=settings,
        report=job.report,
    )


def _clips(site: Site) -> list[Any]:
    given = site.settings
    return site.models.get(
        "clips",
        lambda: [loading.load_clip(x, precision=given.precision) for x in given.clip.models],
    )


def _directions(site: Site, job: Job) -> dict[str, Any]:
    """Found by the first job that needs them; one that is cancelled leaves them to the next."""

    def make() -> dict[str, Any]:
        batch = min(site.settings.batch_size * 4, 32)
        clip = _clips(site)[0]
        return edits.find_directions(site.models.source(), clip, batch=batch, report=job.report)

    return site.models.get("directions", Memory).get((), make)


def _shown(job: Job, before: np.ndarray, after: np.ndarray, title: str) -> str:
    pairs = {"before": before, "after": after}
    saved = {name: figures.save(job, name, pixels) for name, pixels in pairs.items()}
    words = {"before": "before", "after": title}
    cards = [
        Figure([Picture(path, f"{name.capitalize()} the edit: {title}")], words[name])
        for name, path in saved.items()
    ]
    return figures.gallery(cards, wide=True)
