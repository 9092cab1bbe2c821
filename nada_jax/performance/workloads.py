"""Training steps on random weights of the published shapes: what speed and memory are measured on.

No file is read but those of networks that the config asks for. The cost of a step does not depend on what its weights
have learnt.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nada_jax import trees
from nada_jax.adaptation.freezing.table import STRATEGIES
from nada_jax.adaptation.prompts import PART_TEMPLATES, Targets
from nada_jax.adaptation.settings import Settings
from nada_jax.adaptation.state import Frozen, TrainState, init_state
from nada_jax.models import clip as clips
from nada_jax.models.clip import Clip
from nada_jax.models.stylegan2 import Architecture, Generator
from nada_jax.models.stylegan2_networks import init_params
from nada_jax.settings import need

# Side -> architecture. 64 is that of avatar64; the others have the published widths, 256 as the official
# repository's channel multiplier 1, 512 and 1024 as its 2.
ARCHITECTURES = {
    64: Architecture(channels=(128, 128, 128, 96, 48), z_dim=256, w_dim=256, mapping_layers=4),
    256: Architecture(channels=(512, 512, 512, 512, 256, 128, 64)),
    512: Architecture(channels=(512, 512, 512, 512, 512, 256, 128, 64)),
    1024: Architecture(channels=(512, 512, 512, 512, 512, 256, 128, 64, 32)),
}


def _vision(side: int, patch: int, width: int, layers: int, dim: int) -> dict[str, Any]:
    vision = {
        "image_size": side, "patch_size": patch, "hidden_size": width, "num_hidden_layers": layers,
        "num_attention_heads": width // 64, "intermediate_size": 4 * width,
    }  # fmt: skip
    text = {
        "num_hidden_layers": 1, "hidden_size": 64, "num_attention_heads": 1, "vocab_size": 8,
        "eos_token_id": 2,
    }  # fmt: skip
    return {"projection_dim": dim, "vision_config": vision, "text_config": text}


# Name -> config.json. The step never reads texts, so the text towers are small.
CLIPS = {
    "avatar-p8": _vision(64, 8, 192, 6, 128),
    "avatar-p16": _vision(64, 16, 192, 6, 128),
    "b32": _vision(224, 32, 768, 12, 512),
    "b16": _vision(224, 16, 768, 12, 512),
    "l14": _vision(224, 14, 1024, 24, 768),
}


@dataclasses.dataclass(frozen=True)
class Workload:
    """One training step to measure.

    Attributes:
      base: the config of an adaptation; the other attributes take the place of its fields.
      size: side of the images, a key of `ARCHITECTURES`.
      clips: names out of `CLIPS`.
      batch_size: images of each of the two generators.
      precision: "float32" or "bfloat16".
      strategy: of freezing, a row of `freezing.table.STRATEGIES`.
      k: candidates that the strategy chooses; 0: all.
      low_memory: see `configs/default.py`.
    """

    base: Settings = dataclasses.field(repr=False)
    size: int
    clips: tuple[str, ...]
    batch_size: int
    precision: str
    strategy: str
    k: int
    low_memory: bool

    def __post_init__(self):
        need(self.size in ARCHITECTURES, "size", self.size, f"one of {_names(ARCHITECTURES)}")
        for name in self.clips:
            need(name in CLIPS, "clip", name, f"one of {_names(CLIPS)}")

    def __str__(self) -> str:
        counts = STRATEGIES[self.strategy].candidates is not None
        frozen = f"{self.strategy} {self.k or 'all'}" if counts and self.k else self.strategy
        low = ", low memory" if self.low_memory else ""
        return (
            f"{self.size} px, batch {self.batch_size}, {'+'.join(self.clips)}, {self.precision}, "
            f"{frozen}{low}"
        )

    @property
    def architecture(self) -> Architecture:
        """That of the generator."""
        return ARCHITECTURES[self.size]

    @functools.cached_property
    def settings(self) -> Settings:
        """The config of the step."""
        base, row = self.base, STRATEGIES[self.strategy]
        shapes = _shapes(self.architecture)
        k = self.k or (len(row.candidates(shapes)) if row.candidates else base.freeze.k)
        return dataclasses.replace(
            base,
            batch_size=self.batch_size,
            precision=self.precision,
            low_memory=self.low_memory,
            clip=dataclasses.replace(
                base.clip, models=self.clips, weights=(1.0,) * len(self.clips)
            ),
            freeze=dataclasses.replace(base.freeze, strategy=self.strategy, k=k),
        )

    @functools.cached_property
    def labels(self) -> Any:
        """The label of every array that may train; see `freezing.strategy`."""
        return self.settings.freeze.row.labels(_shapes(self.architecture), self.settings.freeze)

    @functools.cached_property
    def optimizer(self) -> optax.GradientTransformationExtraArgs:
        """The optimiser of the config, for these labels."""
        return self.settings.optimizer.make(self.labels)

    def build(self, seed: int = 0) -> tuple[TrainState, Frozen, jax.Array]:
        """Makes the arguments of the step: state, frozen, run key."""

        random = np.random.default_rng(seed)
        generator = random_generator(self.architecture, random, self.precision)
        models = [random_clip(name, random, self.precision) for name in self.clips]
        targets = tuple(random_targets(clip, random) for clip in models)
        clips = tuple(clip.without_texts() for clip in models)
        frozen = Frozen(generator, clips, targets, self.settings.load_networks())
        state = init_state(generator, self.optimizer, self.settings)
        return state, frozen, jax.random.key(seed)


@functools.cache  # a grid has many cells of one architecture
def _shapes(architecture: Architecture) -> Any:
    """Shapes of the parameters, like `Generator.params`."""
    return jax.eval_shape(lambda: init_params(architecture, jax.random.key(0)))


# NumPy draws the models: programs that draw them, array by array, took XLA half a minute to compile for a GPU.


def random_generator(
    architecture: Architecture, random: np.random.Generator, precision: str = "float32"
) -> Generator:
    """A generator as before its training, with noise in its buffers."""
    params = {}
    for path, leaf in trees.flatten(_shapes(architecture)).items():
        # As `stylegan2_networks` initialises them; mapping weights are stored divided by their rate of 0.01.
        if path.endswith(("bias", "noise_strength")):
            params[path] = np.full(leaf.shape, path.endswith("modulation.bias"), np.float32)
        else:
            spread = np.float32(100 if path.startswith("mapping") else 1)
            params[path] = spread * random.standard_normal(leaf.shape, np.float32)
    noise = {
        name: random.standard_normal((side, side), np.float32)
        for name, side in architecture.noise_sizes().items()
    }
    made = jax.tree.map(jnp.asarray, (trees.unflatten(params), noise))
    return Generator(*made, jnp.zeros(architecture.w_dim), architecture, precision)


def random_clip(name: str, random: np.random.Generator, precision: str = "float32") -> Clip:
    """One of `CLIPS`, with normal weights of a spread that keeps activations in order; it reads no texts."""
    flat = {
        path: np.ones(shape, np.float32)
        if path.endswith("scale")
        else np.float32(0.02) * random.standard_normal(shape, np.float32)
        for path, shape in sorted(clips.param_shapes(CLIPS[name]).items())
    }
    # The step reads targets, no texts.
    silent = clips.Tokenizer("none", 0, 1, encode=lambda text: [], decode=str)
    return clips.from_params(flat, CLIPS[name], name=name, precision=precision, tokenizer=silent)


def random_targets(clip: Clip, random: np.random.Generator) -> Targets:
    """Random unit directions, those of the parts included."""
    drawn = random.standard_normal((3 + len(PART_TEMPLATES), clip.dim), np.float32)
    direction, target, bare, *parts = clips.unit(drawn)
    return Targets(direction, target, bare, direction @ target, jnp.stack(parts))


def _names(names) -> str:
    return ", ".join(map(str, names))
