"""Adapt: a generator learns a new look from two texts, or from a few images."""

import functools
import shutil
from pathlib import Path
from typing import Any

import gradio as gr

from nada_jax.demo import training, uploads
from nada_jax.demo.follow import Panel
from nada_jax.demo.job import Job
from nada_jax.demo.site import SOURCE, Site
from nada_jax.demo.training import OWN, Seen
from nada_jax.demo.visitors import visitor
from nada_jax.errors import UserError
from nada_jax.weights import domains

MOST_STEPS = 1000
LONGEST = 200  # characters of a text, more than the CLIPs read
STRATEGIES = ("none", "phase", "late", "adaptive", "low_rank")
# Fields of a recipe that have a control, in the order of the controls.
FIELDS = (
    "text.source", "text.target", "steps", "optimizer.lr", "loss.angle", "loss.global_", "loss.l2", "freeze.strategy",
    "seed",
)  # fmt: skip


def build(site: Site) -> None:
    """Puts the controls here."""
    first = "sketch"
    shown = values(site, first)
    with gr.Row():
        with gr.Column(scale=2):
            recipe = gr.Dropdown(
                [(name.replace("_", " "), name) for name in (*domains.RECIPES, OWN)],
                value=first,
                label="Recipe",
                info="Fills in what gave the best images; “default” suits words of your own.",
            )
            source = gr.Textbox(
                shown[0],
                label="From",
                info="What the generator draws now, in words.",
                max_length=LONGEST,
            )
            target = gr.Textbox(
                shown[1], label="To", info="What it shall draw, in words.", max_length=LONGEST
            )
            steps = gr.Slider(
                1,
                MOST_STEPS,
                shown[2],
                step=1,
                label="Steps",
                info="More of them go further from the source; too many lose the faces.",
                elem_id="adapt-steps",
            )
            panel = Panel(site, "adapt", "Adapt")
        with gr.Column(scale=3):
            gr.Markdown("Samples: the source above, adapted below; then the loss over the steps.")
            grid = gr.Image(
                show_label=False,  # which would lie upon the faces
                interactive=False,
                type="filepath",
                buttons=["download", "fullscreen"],
                elem_id="adapt-grid",
            )
            loss = gr.Image(
                show_label=False,
                interactive=False,
                type="filepath",
                buttons=["fullscreen"],
                elem_id="adapt-loss",
            )
            file = gr.DownloadButton(
                "Download the generator, which is now among your presets",
                visible=False,
                elem_id="adapt-download",
            )
    with gr.Accordion("More", open=False):
        with gr.Row():
            generator = gr.Dropdown(
                [SOURCE],
                value=SOURCE,
                label="Generator",
                info="What learns: the source, or a preset, which then goes on from there.",
            )
            with gr.Column():
                demo_settings = site.settings.demo
                gr.Markdown(
                    f"Images in place of “To”: up to {uploads.MOST} at a time, {uploads.KNOWN}, each of at most "
                    f"{demo_settings.upload_megabytes:g} MB and {demo_settings.pixels:,} pixels."
                )
                pictures = gr.Gallery(
                    show_label=False,
                    file_types=["image"],
                    type="filepath",
                    interactive=True,
                    columns=4,
                    height=180,
                    buttons=[],
                )
        with gr.Row():
            lr = gr.Number(shown[3], label="Learning rate", info="Larger is faster and rougher.")
            angle = gr.Slider(
                0, 3, shown[4], label="Variety", info="loss.angle: keeps people unlike each other."
            )
            near = gr.Slider(
                0,
                3,
                shown[5],
                label="Nearness",
                info="loss.global_: pulls each image to the text; much of it makes all alike.",
            )
            l2 = gr.Slider(
                0, 10, shown[6], label="Likeness", info="loss.l2: keeps the pixels of the source."
            )
        with gr.Row():
            strategy = gr.Dropdown(
                STRATEGIES,
                value=shown[7],
                label="Freezing",
                info="Which layers train: “none” freezes none, “late” keeps shapes.",
            )
            seed = gr.Number(
                shown[8], precision=0, label="Seed", info="Of all chance; equal seeds repeat a run."
            )

    def fill(name: str) -> list[Any]:
        return values(site, name)

    def offer(request: gr.Request) -> Any:
        return gr.update(choices=[SOURCE, *site.presets(visitor(request))])

    knobs = [source, target, steps, lr, angle, near, l2, strategy, seed]
    quiet = {"show_progress": "hidden", "api_visibility": "private"}
    recipe.input(fill, recipe, knobs, **quiet)
    demo = gr.context.Context.root_block
    demo.load(offer, None, generator, **quiet)
    followed = panel.connect(
        demo,
        [recipe, generator, pictures, *knobs],
        functools.partial(start, site),
        [grid, loss, file],
        show,
    )
    for event in followed:
        event.then(offer, None, generator, **quiet)


def values(site: Site, name: str) -> list[Any]:
    """What a recipe says for each of `FIELDS`."""
    if name not in (*domains.RECIPES, OWN):
        raise UserError(f"{name!r} is no recipe; choose one of the list")
    _, config = training.recipe(name, site.settings.demo.variant)
    return [functools.reduce(lambda x, key: x[key], field.split("."), config) for field in FIELDS]


def start(
    site: Site,
    who: str,
    recipe: str,
    generator: str,
    pictures: list[tuple[str, str]] | None,
    *chosen: Any,
) -> Job:
    """Submits an adaptation; UserError where a field cannot be used."""
    usual = dict(zip(FIELDS, values(site, recipe), strict=True))
    fields = {name: _like(x, usual[name], name) for name, x in zip(FIELDS, chosen, strict=True)}
    for name in ("text.source", "text.target"):
        # Control characters are none of a text, and no argument of a command has a zero byte.
        words = "".join(c if c.isprintable() else " " for c in fields[name]).split()
        text = fields[name] = " ".join(words)
        if not text and not (pictures and name == "text.target"):
            raise UserError(f"{name} is empty; expected a few words, such as {usual[name]!r}")
        if len(text) > LONGEST:
            raise UserError(f"{name} has {len(text)} characters; expected at most {LONGEST}")
    if not 1 <= fields["steps"] <= MOST_STEPS:
        raise UserError(f"steps is {fields['steps']}; expected 1 to {MOST_STEPS}")
    title = fields["text.target"]
    fields["generator.weights"] = (
        site.settings.generator.weights if generator == SOURCE else site.choose(who, generator)
    )
    given = [Path(path) for path, _ in pictures or ()]
    if given:
        title = f"like {len(given)} images" if len(given) > 1 else "like an image"
        # Which the run does not read then, but wants.
        fields["text.target"] = fields["text.target"] or usual["text.target"]
    variant = site.settings.demo.variant
    training.check(recipe, variant, fields)

    def work(job: Job) -> Seen:
        if not given:
            return training.train(job, recipe, variant, fields)
        folder = job.directory / "targets"
        folder.mkdir()
        for number, path in enumerate(given):
            shutil.copyfile(path, folder / f"{number:03d}{path.suffix}")
        return training.train(job, recipe, variant, fields | {"text.target_images": str(folder)})

    return site.jobs.submit(who, "adapt", "train", title, work)


def _like(value: Any, usual: Any, name: str) -> Any:
    """A value of a control with the type of its field."""
    if isinstance(usual, str):
        if not isinstance(value, str):
            raise UserError(f"{name} is {value!r}; expected a text")
        return value
    whole = isinstance(usual, int)
    if isinstance(value, bool) or not isinstance(value, int | float) or (whole and value % 1):
        raise UserError(f"{name} is {value!r}; expected a {'whole ' if whole else ''}number")
    return type(usual)(value)


def show(job: Job) -> tuple[Any, Any, Any]:
    """The grid, the loss, and at the end the file."""
    seen: Seen = job.result or job.partial or Seen()
    grid, loss, generator = (x and str(x) for x in seen)
    return grid, loss, gr.update(value=generator, visible=generator is not None)
