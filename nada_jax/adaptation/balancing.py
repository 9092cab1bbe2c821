"""How the terms of the loss are weighed against each other.

| mode | total of terms L with factors f |
| --- | --- |
| fixed | sum of f L |
| learned | sum of exp(s) L, where s starts at log f and is trained on the same total |
| uncertainty | sum of exp(s) L - s, likewise (Kendall et al. 2018, "Multi-Task Learning Using Uncertainty") |

"learned" is there to be compared, not to be used: every L is positive, so the total falls as long as s does. Its
derivative by s is exp(s) L; the weights go to 0, and the guidance with them. The term -s of "uncertainty" stops that
where exp(s) = 1 / L: large terms are weighed down, and none is weighed away.
"""

from collections.abc import Mapping
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import optax

from nada_jax.settings import Positive, Section, one_of


class Mode(NamedTuple):
    """A row of the table: whether weights train, and whether the sum of s is subtracted."""

    trains: bool
    subtracts: bool


MODES = {
    "fixed": Mode(False, False),
    "learned": Mode(True, False),
    "uncertainty": Mode(True, True),
}


class Balancing(Section, name="balancing"):
    """How loss weights are set; `config.balancing`."""

    mode: Annotated[str, one_of(MODES)]
    lr: Positive

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """That of the logarithms of weights."""
        return optax.adam(self.lr)

    def init(self, factors: Mapping[str, float]) -> dict[str, jax.Array]:
        """The trained logarithms s before the first step; none where weights do not train.

        Args:
          factors: of the terms, above 0, by name.
        """
        if not MODES[self.mode].trains:
            return {}
        return {name: jnp.log(jnp.float32(factor)) for name, factor in factors.items()}

    def total(
        self,
        terms: Mapping[str, jax.Array],
        factors: Mapping[str, float],
        logs: Mapping[str, jax.Array],
    ) -> jax.Array:
        """The weighted sum of scalar terms, as the module's table says.

        Args:
          terms: by name.
          factors: as for `init`.
          logs: what `init` made, or what training made of it.
        """
        weights = {name: jnp.exp(log) for name, log in logs.items()} or factors
        result = sum(weights[name] * term for name, term in terms.items())
        return result - sum(logs.values()) if MODES[self.mode].subtracts else result
