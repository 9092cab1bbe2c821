"""Compare: one person in all presets."""

import functools
from typing import Any

import gradio as gr

from nada_jax.demo import drawing, figures
from nada_jax.demo.figures import Figure, Picture
from nada_jax.demo.follow import Panel
from nada_jax.demo.job import Job
from nada_jax.demo.site import SOURCE, Site
from nada_jax.demo.tabs import controls
from nada_jax.errors import UserError

EMPTY = "Press Compare: one seed is drawn by the source and by every preset."


def build(site: Site) -> None:
    """Puts the controls here."""
    with gr.Row():
        with gr.Column(scale=2):
            seed, truncation = controls.seed(), controls.truncation()
            presets = controls.presets(
                site,
                "compare",
                "Those that the page began with are ticked; tick what was adapted since.",
                99,
            )
            panel = Panel(site, "compare", "Compare")
        with gr.Column(scale=3):
            result = controls.result(EMPTY, "compare")
    panel.connect(
        controls.block(),
        [seed, truncation, presets],
        functools.partial(start, site),
        [result],
        lambda job: (job.result or job.partial or figures.empty(EMPTY),),
    )


def start(site: Site, who: str, seed: float, truncation: float, presets: Any) -> Job:
    """Submits the drawing; UserError where a field cannot be used."""
    number = controls.whole(seed, "Seed")
    truncation = controls.number(truncation, "Truncation", *controls.TRUNCATIONS)
    labels = controls.some(presets)
    if not labels:
        raise UserError("no preset is chosen; expected at least one to compare with the source")
    for label in labels:
        site.choose(who, label)

    def work(job: Job) -> str:
        paths, cards = [], []
        ws = drawing.latents(site.models.source(), range(number, number + 1), truncation)
        for i, label in enumerate([SOURCE, *labels]):
            # One at a time: of large generators there is no room for all.
            drawn_by = controls.generators(site, who, [label])
            job.report(i / (len(labels) + 1), f"draws {label}")
            drawn = drawing.draw(drawn_by, ws, batch=1, report=lambda *_: job.check())
            path = figures.save(job, f"{i:02d}_{controls.word(label)}", drawn[label][0])
            paths.append(path)
            cards.append(
                Figure([Picture(path, f"Seed {number}, {label}")], controls.caption(label))
            )
            job.report((i + 1) / (len(labels) + 1), f"draws {label}", figures.gallery(cards))
        return figures.gallery(cards, whole=figures.pack(job, f"seed_{number:04d}", paths))

    return site.jobs.submit(who, "compare", "draw", f"seed {number}", work)
