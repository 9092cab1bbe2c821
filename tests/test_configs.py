"""Every config starts, and every variant says what it needs."""

import dataclasses
import importlib
from pathlib import Path

import pytest

from nada_jax.errors import UserError
from nada_jax.weights import registry

CONFIGS = sorted(path.stem for path in (Path(__file__).parents[1] / "configs").glob("*.py"))


# configs/scaling.py has to be the first that starts JAX: see tests/tasks/test_scaling.py. The recipes are run whole
# by tests/tasks/test_recipes.py.
@pytest.mark.parametrize(
    "name", [name for name in CONFIGS if name != "scaling" and not name.startswith("nada_")]
)
def test_every_config_starts(name, tmp_path, tiny_file, tiny_clip, quick_compile):
    config = importlib.import_module(f"configs.{name}").get_config()
    if config.task == "adapt":
        config.steps = config.batch_size = config.samples.count = 1
    elif config.task == "sample":
        config.rows = config.columns = 1
    elif config.task == "evaluate":
        config.samples = config.batch_size = 8
        config.clusters, config.bootstrap = 2, 10
    elif config.task == "compare":
        config.only = "late"
        config.adapt.steps = config.adapt.batch_size = config.adapt.samples.count = 1
        config.adapt.generator.weights, config.adapt.clip.models = str(tiny_file), (str(tiny_clip),)
        config.evaluate.samples = config.evaluate.batch_size = 8
        config.evaluate.clusters, config.evaluate.bootstrap = 2, 10
    elif config.task == "benchmark":
        config.minutes = 0.0
    task = importlib.import_module(f"nada_jax.tasks.{config.task}")
    assert task.run(config, tmp_path) == 0
    results = {
        "weights": "weights.json",
        "benchmark": "benchmark.json",
        "evaluate": "evaluation.json",
        "compare": "compare.html",
    }
    result = results.get(config.task, "samples/*.png")
    assert list(tmp_path.glob(result))


@pytest.mark.parametrize(
    "name", [name for name in CONFIGS if name == "default" or name.startswith("nada_")]
)
def test_the_ffhq_variant_asks_for_the_official_generator(name, tmp_path, monkeypatch):
    monkeypatch.setenv("NADA_JAX_CACHE", str(tmp_path))
    monkeypatch.setattr(registry, "ATTEMPTS", 1)
    offline = dataclasses.replace(
        registry.GENERATORS["ffhq1024"], url="http://127.0.0.1:9/ffhq.pkl"
    )
    monkeypatch.setitem(registry.GENERATORS, "ffhq1024", offline)
    config = importlib.import_module(f"configs.{name}").get_config("ffhq")
    assert all(model.startswith("openai/clip-vit-base-patch") for model in config.clip.models)
    task = importlib.import_module(f"nada_jax.tasks.{config.task}")
    with pytest.raises(UserError, match=f"put it at {tmp_path}/ffhq.pkl"):
        task.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", CONFIGS)
def test_an_unknown_variant_is_refused(name):
    with pytest.raises(ValueError, match="variant is 'moon'"):
        importlib.import_module(f"configs.{name}").get_config("moon")
