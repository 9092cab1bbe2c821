"""Sample: images of seeds, by the source and by a preset side by side."""

import functools

import gradio as gr

from nada_jax.demo import drawing, figures
from nada_jax.demo.drawing import Mixing
from nada_jax.demo.figures import Figure, Picture
from nada_jax.demo.follow import Panel
from nada_jax.demo.job import Job
from nada_jax.demo.site import SOURCE, Site
from nada_jax.demo.tabs import controls
from nada_jax.demo.tabs.controls import QUIET

FIRST = 22  # six clean faces in a row, of the generator that ships
MOST = 16  # images of one job
EMPTY = "Choose a preset and press Sample: each seed is drawn by the source and by the preset."


def build(site: Site) -> None:
    """Puts the controls here."""
    layers = site.models.source().num_layers
    with gr.Row():
        with gr.Column(scale=2):
            preset = controls.preset(
                site, "Preset", "The look to draw in; its pictures choose it, too."
            )
            seed = controls.seed(
                "First seed",
                FIRST,
                "Each seed is another person; they count up.",
                elem_id="sample-seed",
            )
            count = gr.Slider(
                1,
                MOST,
                6,
                step=1,
                label="Images",
                info="So many seeds in a row.",
                elem_id="sample-count",
            )
            truncation = controls.truncation()
            with gr.Accordion("Style mixing", open=False):
                layer = gr.Slider(
                    0,
                    layers - 1,
                    0,
                    step=1,
                    label="From layer",
                    info="Finer layers follow another seed from here on; 0 mixes nothing.",
                )
                other = controls.seed("Other seed", 100, "Whose fine layers are taken.")
            panel = Panel(site, "sample", "Sample")
        with gr.Column(scale=3):
            pictures = _pictures(site)
            if pictures:
                gallery = controls.thumbnails(
                    pictures, 5, label="Presets", elem_id="sample-presets"
                )
                labels = [label for _, label in pictures]

                def choose(event: gr.SelectData) -> str:
                    return labels[event.index]

                gallery.select(choose, None, preset, **QUIET)
            result = controls.result(EMPTY, "sample")
    panel.connect(
        controls.block(),
        [preset, seed, count, truncation, layer, other],
        functools.partial(start, site),
        [result],
        show,
    )


def _pictures(site: Site) -> list[tuple[str, str]]:
    """The pictures of the presets that ship, and their labels."""
    shipped = site.pictures()
    return [(str(shipped[x]), label) for label, x in site.presets("").items() if x in shipped]


def start(
    site: Site,
    who: str,
    preset: str,
    seed: float,
    count: float,
    truncation: float,
    layer: float,
    other: float,
) -> Job:
    """Submits the drawing; UserError where a field cannot be used."""
    count = controls.whole(count, "Images", range(1, MOST + 1))
    first = controls.whole(seed, "First seed", range(2**32 - count))
    truncation = controls.number(truncation, "Truncation", *controls.TRUNCATIONS)
    layer = controls.whole(layer, "From layer", range(site.models.source().num_layers))
    mixing = Mixing(controls.whole(other, "Other seed"), layer) if layer else None
    if preset != SOURCE:
        site.choose(who, preset)  # a wrong one is told at once
    seeds = range(first, first + count)

    def work(job: Job) -> str:
        job.report(0.0, "loads the generators")
        drawn_by = controls.generators(site, who, [SOURCE, preset])
        ws = drawing.latents(drawn_by[SOURCE], seeds, truncation, mixing)
        batch = min(site.settings.batch_size, drawing.BATCH)
        drawn = drawing.draw(drawn_by, ws, batch=batch, report=job.report)
        found, paths = [], []
        for i, number in enumerate(seeds):
            shown = []
            for label, images in drawn.items():
                name = f"seed_{number:04d}_{controls.word(label)}"
                shown.append(Picture(figures.save(job, name, images[i]), f"Seed {number}, {label}"))
            paths += [picture.path for picture in shown]
            found.append(Figure(shown, f"seed {number}"))
        return figures.gallery(
            found, whole=figures.pack(job, "samples", paths), wide=len(drawn) > 1
        )

    title = preset if mixing is None else f"{preset}, mixed with seed {mixing.seed}"
    return site.jobs.submit(who, "sample", "draw", title, work)


def show(job: Job) -> tuple[str]:
    """The images, once they are there."""
    return (job.result or figures.empty(EMPTY),)
