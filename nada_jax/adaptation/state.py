"""What the training step reads and changes."""

from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax

from nada_jax.adaptation.freezing.strategy import Trained
from nada_jax.adaptation.freezing.table import Freeze
from nada_jax.adaptation.prompts import Targets
from nada_jax.adaptation.settings import StepSettings
from nada_jax.models.clip import Clip
from nada_jax.models.stylegan2 import Generator


@flax.struct.dataclass
class TrainState:
    """All that changes from step to step.

    Attributes:
      step: number of finished steps, int32.
      trained: what the optimiser moves; the strategy of freezing makes it (`prepare`) and draws with it (`merge`).
      opt_state: the optimiser's state; empty for frozen arrays.
      chosen: bool [n], the candidates that train now, or None where the choice is fixed.
      log_weights: what `balancing` trains; empty where weights are fixed.
      log_weights_opt: the state of its optimiser.
      ema: the exponential moving average of `trained`, or None where none is kept.
    """

    step: jax.Array
    trained: Trained
    opt_state: Any
    chosen: jax.Array | None
    log_weights: dict[str, jax.Array]
    log_weights_opt: Any
    ema: Trained | None

    def adapted(self, source: Generator, freeze: Freeze) -> Generator:
        """The adapted generator as it is drawn and saved, given its source."""
        trained = self.trained if self.ema is None else self.ema
        return source.replace(params=freeze.row.merge(source.params, trained))


@flax.struct.dataclass
class Frozen:
    """All that the step reads and never changes: arguments of the step, not captured constants."""

    generator: Generator
    clips: tuple[Clip, ...]
    targets: tuple[Targets, ...]
    networks: dict[str, Any] = flax.struct.field(default_factory=dict)  # of terms, by their name


def init_state(
    generator: Generator,
    optimizer: optax.GradientTransformation,
    settings: StepSettings,
    seed: int = 0,
) -> TrainState:
    """The state before the first step: the adapted generator draws as the source does."""
    freeze, balancing = settings.freeze, settings.balancing
    # A copy where it is the parameters themselves: the step takes over the memory of its state.
    trained = freeze.row.prepare(generator.params, freeze, jax.random.key(seed))
    chosen = None
    if freeze.chooses:
        chosen = jnp.zeros(len(freeze.row.candidates(generator.params)), bool)
    logs = balancing.init(settings.loss.factors)
    return TrainState(
        step=jnp.int32(0),
        trained=trained,
        opt_state=optimizer.init(trained),
        chosen=chosen,
        log_weights=logs,
        log_weights_opt=balancing.optimizer.init(logs),
        ema=jax.tree.map(jnp.copy, trained) if settings.ema else None,
    )
