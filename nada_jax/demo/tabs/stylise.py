"""Stylise: an image of the visitor's, drawn in adapted domains."""

import functools
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from nada_jax import images
from nada_jax.demo import figures, portraits
from nada_jax.demo.figures import Figure, Picture
from nada_jax.demo.follow import Panel
from nada_jax.demo.job import Job
from nada_jax.demo.site import Site
from nada_jax.demo.tabs import controls
from nada_jax.demo.tabs.controls import QUIET, Portrait
from nada_jax.demo.visitors import visitor
from nada_jax.errors import UserError

EMPTY = "Give an image, choose presets, and press Stylise."
STRENGTHS = 0.0, 1.5


class Result(NamedTuple):
    """What a job found: the page's HTML, the image as it was cut out, and each drawn image by its label."""

    html: str
    before: Path
    after: dict[str, Path]


def build(site: Site) -> None:
    """Puts the controls here."""
    with gr.Row():
        with gr.Column(scale=2):
            portrait = Portrait(site, "stylise")
            chosen = controls.presets(site, "stylise", "The looks to draw it in.", 3)
            strength = gr.Slider(
                *STRENGTHS, 1.0, step=0.05, label="Strength", info="0 is the source, 1 the preset."
            )
            panel = Panel(site, "stylise", "Stylise")
        with gr.Column(scale=3):
            slider = gr.ImageSlider(
                label="Before and after",
                type="filepath",
                interactive=False,
                buttons=["fullscreen"],
                visible=False,
                elem_id="stylise-slider",
            )
            which = gr.Radio(
                [],
                label="After",
                info="Which image the slider shows on its right.",
                visible="hidden",  # not False: its first choices would not show
                elem_id="stylise-which",
            )
            result = controls.result(EMPTY, "stylise")

    def pick(request: gr.Request, label: str) -> Any:
        job = site.jobs.latest(visitor(request), "stylise")
        found: Result | None = job and job.result
        return (found.before, found.after[label]) if found and label in found.after else gr.skip()

    which.input(pick, which, slider, **QUIET)

    def show(job: Job) -> tuple[Any, ...]:
        found: Result | None = job.result
        if found is None:
            waiting = gr.update(visible=False), gr.update(visible="hidden"), figures.empty(EMPTY)
            return *waiting, *portrait.shown(job)
        labels = list(found.after)
        first = labels[min(1, len(labels) - 1)]
        return (
            gr.update(value=(str(found.before), str(found.after[first])), visible=True),
            gr.update(choices=labels, value=first, visible=True),
            found.html,
            *portrait.shown(job),
        )

    panel.connect(
        controls.block(),
        [chosen, strength, *portrait.inputs],
        functools.partial(start, site, portrait),
        [slider, which, result, *portrait.outputs],
        show,
    )


def start(
    site: Site, portrait: Portrait, who: str, chosen: Any, strength: float, *values: Any
) -> Job:
    """Submits the work; UserError where a field cannot be used."""
    request, labels = portrait.read(who, *values), controls.some(chosen)
    strength = controls.number(strength, "Strength", *STRENGTHS)
    if not labels:
        raise UserError("no preset is chosen; expected at least one look to draw it in")
    for label in labels:
        site.choose(who, label)

    def work(job: Job) -> Result:
        subject = portrait.find(job, request)
        domains = controls.generators(site, who, labels)
        source = site.models.source()
        drawn = portraits.stylise(subject, source, domains, strength, job.report)
        before = figures.save(job, "aligned", images.to_uint8(subject.image))
        after = {
            label: figures.save(job, f"{i}_{controls.word(label)}", pixels)
            for i, (label, pixels) in enumerate(drawn.items())
        }
        shown = {"the image": before} | after
        cards = [Figure([Picture(x, f"Your image: {label}")], label) for label, x in shown.items()]
        whole = figures.pack(job, "stylised", list(shown.values()))
        return Result(figures.gallery(cards, whole=whole), before, after)

    title = ", ".join(labels) if len(labels) <= 3 else f"{len(labels)} presets"
    return site.jobs.submit(who, "stylise", "work", title, work)
