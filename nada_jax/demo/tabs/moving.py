"""Moving: walks between seeds, the way through the presets, and one walk in all of them at once."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from nada_jax.demo import figures
from nada_jax.demo.figures import Figure, Picture
from nada_jax.demo.follow import Panel
from nada_jax.demo.job import Job
from nada_jax.demo.site import SOURCE, Site
from nada_jax.demo.tabs import controls
from nada_jax.errors import UserError
from nada_jax.models.stylegan2 import Generator
from nada_jax.motion import drawing, scenes
from nada_jax.motion.scenes import Identity, Scene
from nada_jax.motion.settings import EASINGS, Timing, Video

EMPTY = "Choose what moves, and press Draw."
MOST_STOPS, MOST_TILES = 8, 9
SECONDS = 0.5, 5.0  # from one stop to the next
FPS = {"mp4": 30.0, "gif": 20.0}
SIDE = 256  # pixels of a tile

Make = Callable[
    [dict[str, Generator], list[Identity]], Scene
]  # (generators, the source first; who)


def _walk(drawn_by: dict[str, Generator], people: list[Identity]) -> Scene:
    return scenes.walk(drawn_by[SOURCE], people)


def _domains(drawn_by: dict[str, Generator], people: list[Identity]) -> Scene:
    adapted = {label: x for label, x in drawn_by.items() if label != SOURCE}
    return scenes.through_domains(drawn_by[SOURCE], adapted, people[:1])


def _grid(drawn_by: dict[str, Generator], people: list[Identity]) -> Scene:
    return scenes.side_by_side(_walk(drawn_by, people), drawn_by[SOURCE], drawn_by)


WALK = "one look, from person to person"
KINDS: dict[str, Make] = {
    WALK: _walk,
    "one person, from look to look": _domains,
    "all looks together, from person to person": _grid,
}


def build(site: Site) -> None:
    """Puts the controls here."""
    with gr.Row():
        with gr.Column(scale=2):
            kind = gr.Radio(
                list(KINDS), value=list(KINDS)[1], label="What moves", elem_id="moving-kind",
                info="The person changes, or the weights of the generator, or both are seen.",
            )  # fmt: skip
            presets = controls.presets(
                site,
                "Presets",
                "The looks on the way, or beside each other; of one look, the first.",
                3,
            )
            seed = controls.seed("First seed", info="Who is shown first.")
            stops = gr.Slider(
                2,
                MOST_STOPS,
                4,
                step=1,
                label="People",
                info="Seeds on the way, counted up; from look to look it is one person.",
            )
            truncation = controls.truncation()
            with gr.Accordion("More", open=False):
                seconds = gr.Slider(
                    *SECONDS, 1.5, step=0.5, label="Seconds", info="From each stop to the next.",
                    elem_id="moving-seconds",
                )  # fmt: skip
                easing = gr.Radio(
                    list(EASINGS), value="smooth", label="Pace", info="Smooth rests at every stop."
                )
                form = gr.Radio(
                    list(FPS), value="mp4", label="File", info="GIF is larger, and plays anywhere."
                )
            panel = Panel(site, "moving", "Draw")
        with gr.Column(scale=3):
            result = controls.result(EMPTY, "moving")
    panel.connect(
        controls.block(),
        [kind, presets, seed, stops, truncation, seconds, easing, form],
        functools.partial(start, site),
        [result],
        lambda job: (job.result or figures.empty(EMPTY),),
    )


def start(
    site: Site,
    who: str,
    kind: str,
    presets: Any,
    seed: float,
    stops: float,
    truncation: float,
    seconds: float,
    easing: str,
    form: str,
) -> Job:
    """Submits the drawing; UserError where a field cannot be used."""
    if kind not in KINDS or easing not in EASINGS or form not in FPS:
        raise UserError("what moves, the pace or the file is none of those of the list; choose one")
    labels = controls.some(presets)
    count = controls.whole(stops, "People", range(2, MOST_STOPS + 1))
    first = controls.whole(seed, "First seed", range(2**32 - count))
    truncation = controls.number(truncation, "Truncation", *controls.TRUNCATIONS)
    timing = Timing(controls.number(seconds, "Seconds", *SECONDS), easing, True)
    if kind != WALK and not labels:
        raise UserError("no preset is chosen; expected at least one look")
    if len(labels) >= MOST_TILES:
        raise UserError(f"{len(labels)} presets are chosen; expected at most {MOST_TILES - 1}")
    for label in labels:
        site.choose(who, label)

    def work(job: Job) -> str:
        job.report(0.0, "loads the generators")
        drawn_by = controls.generators(site, who, [SOURCE, *labels])
        if kind == WALK and labels:
            drawn_by[SOURCE] = drawn_by[labels[0]]
        people = [
            scenes.identity(site.models.source(), first + i, truncation) for i in range(count)
        ]
        scene = KINDS[kind](drawn_by, people)
        video = Video(form, FPS[form], SIDE, 0, True)
        path = job.directory / f"moving.{form}"
        batch = min(site.settings.batch_size, 8)

        def advance(done: int, total: int) -> None:
            job.report(done / total, f"draws frame {done} of {total}")

        drawing.write(path, scene, timing, video, batch=batch, report=advance)
        return _shown(path, kind)

    return site.jobs.submit(who, "moving", "work", kind, work)


def _shown(path: Path, kind: str) -> str:
    return figures.gallery([Figure([Picture(path, f"Moving: {kind}")], kind)], wide=True)
