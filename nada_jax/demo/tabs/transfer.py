"""Transfer: one image painted in the style of another."""

import functools
from pathlib import Path

import gradio as gr

from nada_jax.demo import figures, painting
from nada_jax.demo.figures import Figure, Picture
from nada_jax.demo.follow import Panel
from nada_jax.demo.job import Job
from nada_jax.demo.site import Site
from nada_jax.demo.tabs import controls
from nada_jax.errors import UserError
from nada_jax.style.colors import COLORS
from nada_jax.weights.registry import ASSETS

EMPTY = "Give an image and a style, and press Transfer."
SIZES = 64, 1024  # pixels
WEIGHTS = 1.0, 1000.0
MOST_STEPS = 1000


def build(site: Site) -> None:
    """Puts the controls here."""
    with gr.Row():
        with gr.Column(scale=3):
            with gr.Row():
                with gr.Column(min_width=240):
                    content = controls.image("Content", ASSETS / "contents", "transfer-content")
                with gr.Column(min_width=240):
                    style = controls.image("Style", ASSETS / "styles", "transfer-style")
            size = gr.Slider(
                *SIZES, 256, step=32, label="Size", info="Longer side in pixels. 256 takes minutes on a processor, seconds on a GPU.",
                elem_id="transfer-size",
            )  # fmt: skip
            strength = gr.Slider(
                0, 1, 1, step=0.05, label="Strength", info="Of the result over the content."
            )
            with gr.Accordion("More", open=False):
                weight = gr.Slider(
                    *WEIGHTS, 100, step=1, label="Weight of the style", info="Against the content."
                )
                colors = gr.Radio(
                    list(COLORS),
                    value="style",
                    label="Colours",
                    info="Of the style; “luminance” keeps the content's hues; “match” recolours the style.",
                )
                first = gr.Slider(
                    1, MOST_STEPS, 150, step=1, label="Steps at the first scale",
                    info="Where the image is found as a whole.", elem_id="transfer-first",
                )  # fmt: skip
                steps = gr.Slider(
                    1, MOST_STEPS, 60, step=1, label="Steps at each further scale",
                    info="Where detail is added.",
                )  # fmt: skip
            panel = Panel(site, "transfer", "Transfer")
        with gr.Column(scale=3):
            result = controls.result(EMPTY, "transfer")
    panel.connect(
        controls.block(),
        [content, style, size, strength, weight, colors, first, steps],
        functools.partial(start, site),
        [result],
        lambda job: (job.result or figures.empty(EMPTY),),
    )


def start(
    site: Site,
    who: str,
    content: str | None,
    style: str | None,
    size: float,
    strength: float,
    weight: float,
    colors: str,
    first: float,
    steps: float,
) -> Job:
    """Submits the transfer; UserError where a field cannot be used."""
    if not content or not style:
        missing = "content" if not content else "style"
        raise UserError(f"there is no {missing}; upload an image, or choose an example")
    if colors not in COLORS:
        raise UserError(f"Colours is {colors!r}; expected one of {', '.join(COLORS)}")
    fields = {
        "size": controls.whole(size, "Size", range(SIZES[0], SIZES[1] + 1)),
        "strength": controls.number(strength, "Strength", 0, 1),
        "style_weight": controls.number(weight, "Weight of the style", *WEIGHTS),
        "colors": colors,
        "first_steps": controls.whole(first, "Steps at the first scale", range(1, MOST_STEPS + 1)),
        "steps": controls.whole(steps, "Steps at each further scale", range(1, MOST_STEPS + 1)),
    }

    def work(job: Job) -> str:
        found = painting.paint(
            site.settings.vgg, Path(content), Path(style), report=job.report, **fields
        )
        alts = {
            "content": "The image as it was given",
            "style": "The style",
            "result": "The image painted in the style",
        }
        cards = [
            Figure([Picture(figures.save(job, name, found[name]), alts[name])], name)
            for name in ("result", "content", "style")
        ]
        return figures.gallery(cards, wide=True)

    return site.jobs.submit(who, "transfer", "work", "style transfer", work)
