"""Fixtures for all tests; the reference outputs stand beside the checkout, in shared/golden."""

import functools
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def shared():
    """shared("weights/x") -> its path; skips where it is absent."""

    def find(name):
        path = SHARED / name
        if not path.exists():
            pytest.skip(f"shared/{name} is not beside this checkout")
        return path

    return find


@pytest.fixture(scope="session")
def golden(shared):
    """golden("clip_losses.npz") -> its arrays; golden("shapes.json") -> its content."""

    @functools.cache
    def load(name):
        path = shared(f"golden/{name}")
        if path.suffix == ".json":
            return json.loads(path.read_text())
        with np.load(path) as file:
            return dict(file)

    return load


@pytest.fixture(scope="session")
def golden_weights(golden, shared):
    """golden_weights("generator 64 cm2", seed) -> the state dict that the outputs came from."""
    spec = importlib.util.spec_from_file_location("seeded", shared("golden/seeded.py"))
    seeded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(seeded)
    return lambda table, seed: seeded.state_dict(golden("shapes.json")[table], seed)


@pytest.fixture(scope="session")
def assert_close():
    """assert_close(actual, expected, 1e-4): largest difference over the largest expected value."""

    def check(actual, expected, tolerance=1e-4):
        actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
        assert actual.shape == expected.shape
        error = np.abs(actual - expected).max() / np.abs(expected).max()
        assert error <= tolerance, f"relative error {error:.2e}, allowed {tolerance:.0e}"

    return check


@pytest.fixture(scope="session", params=["ViTB32", "ViTB16"])
def golden_clip(request, golden, golden_weights):
    """The two CLIPs of the reference outputs, named as their keys in clip_losses.npz start."""
    from convert import clip as conversion
    from nada_jax.models import clip

    table = {"ViTB32": "clip ViT-B/32", "ViTB16": "clip ViT-B/16"}[request.param]
    seed = int(golden("clip_losses.npz")["seed"]) + 1 + request.param_index
    params, config, _ = conversion.from_openai(golden_weights(table, seed))
    return clip.from_params(params, config, name=request.param)


@pytest.fixture(scope="session")
def avatar_clip(shared):
    """clip-avatar-p8, from its PyTorch directory."""
    from convert import clip as conversion
    from nada_jax.models import clip

    directory = shared("weights/clip-avatar-p8")
    params, _ = conversion.load_torch_directory(directory)
    config = clip.read_json(directory / "config.json")
    return clip.from_params(params, config, directory, name="avatar-p8")
