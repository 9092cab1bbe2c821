"""The config of an adaptation in sections; `configs/default.py` explains every field."""

from collections.abc import Callable
from typing import Annotated, Any

import jax

from nada_jax.adaptation.balancing import Balancing
from nada_jax.adaptation.freezing.optimizer import Optimizer
from nada_jax.adaptation.freezing.table import Freeze
from nada_jax.adaptation.steering import Text
from nada_jax.adaptation.terms import LEADING, OF_CLIPS, TERMS, Term
from nada_jax.adaptation.views import ClipSettings
from nada_jax.adaptation.watch import Stop
from nada_jax.devices.mesh import MeshShape
from nada_jax.devices.processes import Distributed
from nada_jax.errors import UserError
from nada_jax.runs.grids import Samples
from nada_jax.runs.training import Schedule
from nada_jax.settings import Count, NonNegative, Precision, Section, Seed, Share, one_of

# Noise of the source and of the adapted generator, from two keys.
NOISES: dict[str, Callable[[jax.Array, jax.Array], tuple[Any, Any]]] = {
    "independent": lambda a, b: (a, b),  # as the official twin generators
    "shared": lambda a, b: (a, a),
    "const": lambda a, b: ("const", "const"),
    "none": lambda a, b: ("none", "none"),
}


class Loss(Section, name="loss"):
    """The factor lambda of each term, a field for each row of the table; 0 leaves the term out."""

    @property
    def factors(self) -> dict[str, float]:
        """The factors above 0, by term."""
        factors = {name: getattr(self, name) for name in TERMS}
        return {name: factor for name, factor in factors.items() if factor}

    def active(self, *kinds: str) -> dict[str, Term]:
        """The terms with a factor above 0 that see one of these kinds."""
        return {name: TERMS[name] for name in self.factors if TERMS[name].sees in kinds}

    @property
    def reads_texts(self) -> bool:
        """Whether a term that leads sees the target's text, through the CLIPs or by a network of its own."""
        networks = [x.network for x in self.active("network").values() if x.leads]
        through_clips = any(term.leads for term in self.active(*OF_CLIPS).values())
        return through_clips or any("text" in network.reads for network in networks)

    def check(self) -> None:
        """At least one term has to lead."""
        if not any(name in self.factors for name in LEADING):
            raise UserError(
                f"{', '.join(map(self.path, LEADING))} are 0; expected one above 0: the other terms only "
                "keep images as they are"
            )


class TermSettings(Section):
    """What the terms need of a config: their factors, and the sections of those that have one."""

    def check(self) -> None:
        """Networks have to be given where they are needed."""
        for name, term in self.loss.active("network").items():
            section = getattr(self, name)
            for field, what in term.network.needs.items():
                good = getattr(section, field) != ""
                section.need(good, field, f"{what}, which loss.{name} needs")

    def load_networks(self) -> dict[str, Any]:
        """The networks of the active terms, by term; UserError where one cannot be loaded."""
        found = {}
        for name, term in self.loss.active("network").items():
            beside = {field: getattr(self, field) for field in term.network.reads}
            found[name] = term.network.load(getattr(self, name), **beside)
        return found


# The table of terms says which factors and sections there are: a new row needs no change here.
Loss = Loss.extended(dict.fromkeys(TERMS, NonNegative))
TermSettings = TermSettings.extended(
    {"loss": Loss} | {name: term.section for name, term in TERMS.items() if term.section}
)


class GeneratorSettings(Section, name="generator"):
    """The source generator, and how it draws; `config.generator`."""

    weights: str
    noise: Annotated[str, one_of(NOISES)]
    mixing: Share


class StepSettings(TermSettings):
    """All of a config that the step reads: static choices, explained in `configs/default.py`."""

    batch_size: Count
    ema: NonNegative
    low_memory: bool
    generator: GeneratorSettings
    clip: ClipSettings
    balancing: Balancing
    freeze: Freeze
    optimizer: Optimizer


class Settings(StepSettings, Schedule):
    """All of `configs/default.py`."""

    task: str
    seed: Seed
    precision: Precision
    text: Text
    stop: Stop
    mesh: MeshShape
    distributed: Distributed
    samples: Samples

    def remarks(self) -> list[str]:
        """What is allowed and trains less than it seems to, in words."""
        schedule = self.optimizer.warmup + self.optimizer.decay
        found = {
            f"ema halves the source's share in {self.ema:g} steps: after {self.steps} most of what is saved is "
            "the source": self.ema > self.steps,
            f"optimizer.warmup and optimizer.decay end after {schedule} steps, and the other "
            f"{self.steps - schedule} change nothing": self.optimizer.decay
            and schedule < self.steps,
            "loss.angle compares the images of a batch: with batch_size=1 it is 0": self.batch_size
            == 1
            and self.loss.angle,
            "loss.style alone leads, which sees no text: text.target only says what the result is called and "
            "measured by": not self.loss.reads_texts,
        }
        return [remark for remark, holds in found.items() if holds]

    @property
    def batches(self) -> dict[str, int]:
        """The batches that the devices share, by field."""
        chosen = {"freeze.batch_size": self.freeze.batch_size} if self.freeze.chooses else {}
        return {"batch_size": self.batch_size} | chosen
