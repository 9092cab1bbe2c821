"""Refuses configs that no adaptation can work with, before anything is loaded or written."""

import math

from ml_collections import ConfigDict

from nada_jax import trees
from nada_jax.adaptation import balancing, prompts, views
from nada_jax.adaptation.freezing import strategies as freezing
from nada_jax.errors import UserError

COUNTS = (
    "steps", "batch_size", "checkpoint_every", "sample_every", "log_every",
    "freeze.iterations", "freeze.batch_size", "freeze.every", "freeze.rank", "samples.count", "mesh.fsdp",
)  # fmt: skip
CHOICES = {
    "balancing.mode": balancing.MODES,
    "clip.background": views.BACKGROUNDS,
    "freeze.parity": freezing.PARITIES,
    "freeze.measure": freezing.MEASURES,
    "generator.noise": ("independent", "shared", "const", "none"),
}
LEADING = ("directional", "global_", "manifold", "patch")  # the other terms hold pictures back


def check(config: ConfigDict) -> None:
    """Refuses values that no run can work with; UserError names the field."""

    values = trees.flatten(config.to_dict())

    def need(good: bool, field: str, expected: str) -> None:
        if not good:
            raise UserError(f"{field} is {values.get(field)!r}; expected {expected}")

    for field in COUNTS:
        need(values[field] >= 1, field, "at least 1")
    for field, known in CHOICES.items():
        need(values[field] in known, field, f"one of {', '.join(known)}")

    def numbers(values) -> bool:
        return all(isinstance(v, int | float) and math.isfinite(v) and v >= 0 for v in values)

    need(0 <= config.seed < 2**63, "seed", "a whole number in 0..2^63 - 1")
    need(0 <= config.samples.seed < 2**63, "samples.seed", "a whole number in 0..2^63 - 1")
    need(math.isfinite(config.samples.truncation), "samples.truncation", "a number")
    for term, factor in config.loss.items():
        need(numbers([factor]), f"loss.{term}", "a number from 0")
    need(0 < config.loss.patch_fraction <= 1, "loss.patch_fraction", "a share above 0, up to 1")
    if not any(config.loss[term] for term in LEADING):
        told = ", ".join(f"loss.{term}" for term in LEADING)
        raise UserError(f"{told} are 0; expected one above 0: the others lead nowhere")
    need(numbers([config.balancing.lr]) and config.balancing.lr > 0, "balancing.lr", "above 0")
    models, factors = config.clip.models, config.clip.weights
    need(models and all(isinstance(m, str) for m in models), "clip.models", "at least one name")
    good = len(factors) == len(models) and numbers(factors) and sum(factors) > 0
    need(good, "clip.weights", f"one number from 0 for each of the {len(models)} clip.models")
    need(numbers([config.clip.zoom]) and config.clip.zoom >= 1, "clip.zoom", "a number from 1")
    need(numbers([config.clip.rotate]), "clip.rotate", "degrees from 0")
    need(numbers([config.clip.shift]), "clip.shift", "a share of a side from 0")
    for field, what in (("lpips", "a VGG-16 with the layers of LPIPS"), ("identity", "an irse50")):
        given = config[field].weights or not config.loss[field]
        need(given, f"{field}.weights", f"{what}, which loss.{field} needs")
    need(config.stop.every >= 0, "stop.every", "steps from 0")
    for field in ("diversity", "similarity"):
        need(numbers([config.stop[field]]), f"stop.{field}", "a number from 0")
        used = config.stop.every or not config.stop[field]
        need(used, f"stop.{field}", "0 as long as stop.every is 0")
    need(numbers([config.optimizer.lr]) and config.optimizer.lr > 0, "optimizer.lr", "above 0")
    need(numbers([config.ema]), "ema", "a number from 0")
    for field in ("clip", "warmup", "decay"):
        need(numbers([config.optimizer[field]]), f"optimizer.{field}", "a number from 0")
    betas = config.optimizer.betas
    good = numbers(betas) and len(betas) == 2 and max(betas) < 1
    need(good, "optimizer.betas", "two numbers from 0, below 1")
    need(0 <= config.generator.mixing <= 1, "generator.mixing", "a share in 0..1")
    need(config.mesh.data >= 0, "mesh.data", "a number from 0")
    check_text(config.text)


def check_text(text: ConfigDict) -> None:
    """Refuses texts and pictures that do not go together; UserError names the field."""
    prompts.check(**{f"text.{field}": text[field] for field in ("source", "target")})
    factors = text.weights
    good = all(isinstance(f, int | float) and math.isfinite(f) for f in factors)
    if len(factors) != len(text.others) or not good:
        raise UserError(
            f"text.weights is {factors!r}; expected a number for each of the {len(text.others)} text.others"
        )
    if not all(isinstance(other, str) and other.strip() for other in text.others):
        raise UserError(f"text.others is {text.others!r}; expected texts, such as ('robot',)")
    if text.source in text.others:
        raise UserError(f"text.others holds text.source, {text.source!r}; expected other texts")
    if text.source_images and not text.target_images:
        raise UserError(
            f"text.source_images is {text.source_images!r}, but text.target_images is empty; expected both, "
            "for CLIP's features of pictures and of texts are not to be subtracted"
        )
    if text.read_every < 0:
        raise UserError(f"text.read_every is {text.read_every}; expected steps, or 0 for never")
    if text.read_every and text.target_images:
        raise UserError(
            "text.read_every goes with a target text; with text.target_images no source text is used"
        )
