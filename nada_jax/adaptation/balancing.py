"""How the terms of the loss are weighed against each other.

| mode | total of terms L with factors f |
| --- | --- |
| fixed | sum of f L |
| learned | sum of exp(s) L, where s starts at log f and is trained on the same total |
| uncertainty | sum of exp(s) L - s, likewise (Kendall et al. 2018, "Multi-Task Learning Using Uncertainty") |

"learned" is there to be compared, not to be used: every L is positive, so the total falls as long as s does. Its
derivative by s is exp(s) L; the weights go to 0 and with them all that the picture is asked for. The term -s of
"uncertainty" stops that where exp(s) = 1 / L: large terms are weighed down, and none is weighed away.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

MODES = ("fixed", "learned", "uncertainty")


def init(mode: str, factors: Mapping[str, float]) -> dict[str, jax.Array]:
    """The trained logarithms of weights before the first step: none for "fixed".

    Args:
      mode: one of `MODES`.
      factors: of the terms, above 0, by name.
    """
    return {} if mode == "fixed" else {n: jnp.log(jnp.float32(f)) for n, f in factors.items()}


def weights(
    factors: Mapping[str, float], logs: Mapping[str, jax.Array]
) -> dict[str, float | jax.Array]:
    """What each term is multiplied by.

    Args:
      factors: as for `init`.
      logs: what `init` made, or what training made of it.
    """
    return {name: jnp.exp(log) for name, log in logs.items()} or dict(factors)


def total(
    mode: str,
    terms: Mapping[str, jax.Array],
    factors: Mapping[str, float],
    logs: Mapping[str, jax.Array],
) -> jax.Array:
    """The weighted sum of scalar terms, as the module's table says."""
    by_name = weights(factors, logs)
    result = sum(by_name[name] * term for name, term in terms.items())
    return result - sum(logs.values()) if mode == "uncertainty" else result
