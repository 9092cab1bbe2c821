"""What a finished run may leave."""

import jax
import pytest

from nada_jax.adaptation import results
from nada_jax.errors import UserError


@pytest.mark.parametrize("share", [0.0, 1e-8, 1e-4])
def test_weights_that_rest_are_no_result(share, tiny_generator, make_settings):
    moved = jax.tree.map(lambda x: x * (1 + share), jax.device_get(tiny_generator.params))
    adapted, settings = tiny_generator.replace(params=moved), make_settings()
    if share < results.STILL:
        with pytest.raises(UserError, match=r"nothing has trained: .* optimizer.lr \(0.001\)"):
            results.refuse_source(settings, tiny_generator, adapted)
    else:
        results.refuse_source(settings, tiny_generator, adapted)
