import json

import jax
import numpy as np
import pytest

from nada_jax.performance import workloads
from nada_jax.weights.loading import load_lpips

pytest.importorskip("torch")
if jax.default_backend() != "cpu":
    pytest.skip("the tolerances are those of CPUs", allow_module_level=True)

from tests.benchmarks import inversion_against_pytorch as benchmark


@pytest.fixture
def small_models(monkeypatch, tiny_generator, narrow_networks):
    """Models of 16 pixels in place of the embedded ones."""
    config = workloads.CLIPS["avatar-p16"]
    vision = config["vision_config"] | {"num_hidden_layers": 1}
    monkeypatch.setitem(workloads.CLIPS, "small", config | {"vision_config": vision})
    clip = workloads.random_clip("small", np.random.default_rng(0))
    vgg = load_lpips(narrow_networks["vgg"], field="lpips.weights")
    models = benchmark.Models(tiny_generator, vgg, clip)
    monkeypatch.setattr(benchmark, "load", lambda *_: models)
    return models


def test_both_are_the_same_work_and_are_timed(small_models, tmp_path, capsys):
    small = ["--batches", "1,2", "--steps", "2", "--rounds", "1"]
    benchmark.main([*small, "--json", str(tmp_path / "report.json")])
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert set(report["projector"]["differences"]) == {"loss", "noise", "latents"}
    assert set(report["edit"]["differences"]) == {"loss", "latents"}
    for work in report.values():
        ms = {name: x["rounds"][0] for name, x in work["ms"].items()}
        assert set(ms) == {"1", "2", "pytorch"} and min(ms.values()) > 0
        assert work["ratio"]["2"]["median"] == ms["pytorch"] / ms["2"]
    assert "2 at once" in capsys.readouterr().out


@pytest.mark.parametrize("value", [0.5, float("nan")])
def test_nothing_is_timed_where_the_two_differ(small_models, monkeypatch, value):
    monkeypatch.setattr(benchmark, "differences", lambda *_: {"loss": 1e-6, "latents": value})
    with pytest.raises(SystemExit, match="compute different things: .*latents"):
        benchmark.main(["--work", "edit", "--batches", "1"])
