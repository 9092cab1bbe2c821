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


def test_what_was_zero_and_trained_is_a_result(tiny_generator, make_settings):
    params = jax.device_get(tiny_generator.params)
    still = params | {
        "synthesis": params["synthesis"] | {"constant": 0 * params["synthesis"]["constant"]}
    }
    moved = still | {
        "synthesis": still["synthesis"] | {"constant": still["synthesis"]["constant"] + 0.01}
    }
    before, after = (tiny_generator.replace(params=tree) for tree in (still, moved))
    results.refuse_source(make_settings(), before, after)
    with pytest.raises(UserError, match="nothing has trained"):
        results.refuse_source(make_settings(), before, before)
