"""Sections that tasks on images and their latents share."""

from typing import Annotated

import numpy as np

from nada_jax.latents.inversion import Invert
from nada_jax.photos.align import Align
from nada_jax.settings import Count, Precision, Rule, Section, Seed


class Source(Section, name="generator"):
    """The generator; `config.generator`."""

    weights: str


class Encoding(Section, name="encoder"):
    """The encoder, and its passes where it is iterative; `config.encoder`. "" leaves it out."""

    weights: str
    steps: Count


class Perception(Section, name="lpips"):
    """The perceptual distance; `config.lpips`. "" leaves it out."""

    weights: str


class Identity(Section, name="identity"):
    """The network that tells faces apart; `config.identity`. "" leaves it out."""

    weights: str


class Clips(Section, name="clip"):
    """The CLIPs that read the text; `config.clip`."""

    models: Annotated[tuple[str, ...], Rule(bool, "at least one name")]
    weights: Annotated[
        tuple[float, ...], Rule(lambda x: all(0 < y < np.inf for y in x), "numbers above 0")
    ]

    def check(self) -> None:
        """One weight for each model."""
        good = len(self.weights) == len(self.models)
        self.need(good, "weights", f"a number for each of the {len(self.models)} clip.models")


class Text(Section, name="text"):
    """What images show before and after the edit; `config.text`."""

    source: str
    target: str


class InversionSettings(Section):
    """All of `configs/invert.py`, and what other tasks that start from images share with it."""

    task: str
    images: str
    overwrite: bool
    seed: Seed
    precision: Precision
    batch_size: Count
    generator: Source
    encoder: Encoding
    lpips: Perception
    identity: Identity
    judge: str
    align: Align
    invert: Invert
