"""NVIDIA's networks that are no supported generators, made by `official.py`."""

import numpy as np
import pytest

from nada_jax import load_generator
from nada_jax.errors import UserError
from tests.convert import official

pytest.importorskip("torch")


@pytest.mark.parametrize(
    ("network", "changes", "said"),
    [
        ("torch", {"c_dim": 10}, "conditional, with labels"),
        ("torch", {"architecture": "resnet"}, "'resnet' or 'orig'"),
        ("torch", {"architecture": "orig"}, "'resnet' or 'orig'"),
        ("torch", {"activation": "relu"}, "activation is 'relu'"),
        ("torch", {"conv_clamp": -3}, "conv_clamp is .*-3"),
        ("tensorflow", {"architecture": "resnet"}, "'resnet' or 'orig'"),
        ("tensorflow", {"label_size": 5}, "conditional, with labels"),
        ("tensorflow", {"num_channels": 1}, "not of RGB"),
        ("tensorflow", {"resample_kernel": [1, 2, 1]}, "resample_kernel is"),
        ("tensorflow", {"extra": {"8x8/Skip/weight": np.ones(1)}}, "'resnet' or 'orig'"),
        ("tensorflow", {"extra": {"4x4/StyleMod/weight": np.ones(1)}}, "the first one"),
        ("tensorflow", {"extra": {"more": np.ones(1)}}, "synthesis/more .*no rule takes it"),
    ],
)
def test_other_networks_are_refused_by_name(tiny_generator, network, changes, said, tmp_path):
    (tmp_path / "g.pkl").write_bytes(official.release(tiny_generator, network, **changes))
    with pytest.raises(UserError, match=f"g.pkl.*{said}"):
        load_generator(tmp_path / "g.pkl")


def test_a_stylegan3_is_refused_by_name(tmp_path):
    part = official.Persistent("SynthesisInput", {"weight": np.ones((2, 2), np.float32)})
    synthesis = official.Persistent("SynthesisNetwork", {}, {"input": part})
    module = official.Persistent("Generator", {}, {"synthesis": synthesis})
    (tmp_path / "g.pkl").write_bytes(official.torch_pickle({"G_ema": module}))
    with pytest.raises(UserError, match="a StyleGAN3; expected an unconditional StyleGAN2"):
        load_generator(tmp_path / "g.pkl")


@pytest.mark.parametrize(
    "content", [{"D": None}, {}, [], (1, 2, 3), 7, {"G_ema": {"weight": 1}}, None]
)
def test_a_pickle_without_a_generator_is_refused(tmp_path, content):
    (tmp_path / "g.pkl").write_bytes(official.torch_pickle(content))
    with pytest.raises(UserError, match=r"g.pkl holds no generator: expected a table with G_ema"):
        load_generator(tmp_path / "g.pkl")
