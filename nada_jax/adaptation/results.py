"""The results of a finished adaptation: weights and plots."""

from typing import Any

import jax
import numpy as np

from nada_jax.adaptation.freezing.strategy import FROZEN
from nada_jax.adaptation.freezing.table import STRATEGIES
from nada_jax.adaptation.settings import Settings
from nada_jax.adaptation.state import TrainState
from nada_jax.adaptation.terms import TERMS
from nada_jax.adaptation.watch import MEASUREMENTS
from nada_jax.errors import UserError
from nada_jax.models.stylegan2 import Generator
from nada_jax.runs import plots
from nada_jax.runs.training import TrainingRun
from nada_jax.weights import native
from nada_jax.weights.lineage import Lineage

# Patterns of all that a run writes beside config.json; `overwrite` deletes these and nothing else.
FILES = (
    "metrics.jsonl", "loss.png", "layers.png", "generator.safetensors", "samples/step_[0-9]*.png",
    "checkpoints/[0-9]*", *(name for strategy in STRATEGIES.values() for name in strategy.results),
)  # fmt: skip

# Share of an array's largest weight: a first step of Adam at any useful rate moves it by 100 times as much, and images of
# 8 bits do not show it.
STILL = 1e-6
SMALLEST = 1e-8  # weight that such a share is taken of


def summary(settings: Settings, source: Generator, labels: Any, state: TrainState) -> str:
    """What is adapted to what, and how many numbers train, for people."""
    sizes = jax.tree.map(lambda label, x: x.size * (label != FROZEN), labels, state.trained)
    trained = sum(jax.tree.leaves(sizes))
    whole = sum(x.size for x in jax.tree.leaves(source.params))
    title = " -> ".join(settings.text.described())
    line = (
        f"{title}: {source.size} pixels, {trained:,} trained parameters, {whole:,} in the generator"
    )
    return "\n".join([line, *(f"note: {remark}" for remark in settings.remarks())])


def refuse_source(settings: Settings, source: Generator, adapted: Generator) -> None:
    """Refuses a result that is still the source, whatever the reason; UserError."""
    # By numpy: JAX would compile for every shape.
    both = (jax.tree.leaves(jax.device_get(model.params)) for model in (source, adapted))
    moves = [
        # What is zero in the source, such as a bias, moves by any change.
        float(np.max(np.abs(after - before)) / max(np.max(np.abs(before)), SMALLEST))
        for before, after in zip(*both, strict=True)
    ]
    if max(moves) < STILL:
        raise UserError(
            f"nothing has trained: no weight has moved by more than {max(moves):.1g} of the largest beside it, and the "
            f"generator draws what its source draws; optimizer.lr ({settings.optimizer.lr:g}), the factors of loss, "
            f"clip.weights or optimizer.clip may be too small, ema ({settings.ema:g}) too large, or clip.shift so large "
            "that no image is seen"
        )


def write(run: TrainingRun, settings: Settings, source: Generator, adapted: Generator) -> None:
    """Writes weights and plots of a finished run; the generators are whole on every process.

    Raises:
      UserError: nothing has trained; nothing is written then.
    """
    refuse_source(settings, source, adapted)
    text, freeze = settings.text, settings.freeze
    texts = (
        (run.rows or [{}])[-1].get("source_text", text.source),
        "" if text.target_images else text.target,
    )
    facts = Lineage(settings.generator.weights, texts, settings.clip.models).header()
    models = {"generator.safetensors": ("adapted generator", adapted)} | {
        name: (words, make(source, adapted)) for name, (words, make) in freeze.row.results.items()
    }
    for name, (words, model) in models.items():
        path = run.write(name, lambda path, model=model: native.save_model(model, path, **facts))
        run.say(f"{words}: {path}")
    if run.rows:
        title = " -> ".join(text.described())
        drawn = {"title": title, "terms": list(TERMS), "held_out": list(MEASUREMENTS)}
        run.draw("loss.png", lambda path: plots.plot_losses(run.rows, path, **drawn))
    if choices := [row for row in run.rows if "chosen" in row]:
        names = freeze.row.candidates(source.params)
        run.draw("layers.png", lambda path: plots.plot_choice(choices, names, path))
