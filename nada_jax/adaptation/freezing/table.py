"""The table of freezing strategies, and the section `freeze` of the config.

| strategy | trains |
| --- | --- |
| none | the constant and every convolution (the official default) |
| phase | one of `fixed.PHASES`, named as in the official code |
| late | the layers that the last k latents drive |
| adaptive | at every selection, the layers of the k latents that a short W+ optimisation moved most |
| adaptive_modulation | of these layers only the modulation (w -> style) and the strength of the noise |
| adaptive_parameters | at every selection, the k tensors that a short training of a copy moved most |
| style_space | what is added to the styles of convolutions, the same for every image |
| low_rank | factors of what is added to the weights of convolutions |
"""

from collections.abc import Mapping
from typing import Annotated

from nada_jax.adaptation.freezing import adaptive, fixed, low_rank, style_space
from nada_jax.adaptation.freezing.strategy import Strategy
from nada_jax.settings import Count, Section, one_of

STRATEGIES: Mapping[str, Strategy] = (
    fixed.STRATEGIES | adaptive.STRATEGIES | style_space.STRATEGIES | low_rank.STRATEGIES
)


class Freeze(Section, name="freeze"):
    """Which layers train; `config.freeze`."""

    strategy: Annotated[str, one_of(STRATEGIES)]
    phase: Annotated[str, one_of(fixed.PHASES)]
    k: Count
    iterations: Count
    batch_size: Count
    every: Count
    measure: Annotated[str, one_of(adaptive.MEASURES)]
    parity: Annotated[str, one_of(fixed.PARITIES)]
    rank: Count

    @property
    def row(self) -> Strategy:
        """The strategy itself."""
        return STRATEGIES[self.strategy]

    @property
    def chooses(self) -> bool:
        """Whether what trains is chosen again and again."""
        return self.row.scores is not None
