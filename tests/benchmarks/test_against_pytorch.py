import json

import jax
import pytest

from configs import default
from nada_jax.adaptation.settings import Settings
from nada_jax.models.stylegan2 import Architecture
from nada_jax.performance import workloads
from nada_jax.performance.workloads import Workload

pytest.importorskip("torch")
if jax.default_backend() != "cpu":
    pytest.skip("the tolerances are those of CPUs", allow_module_level=True)

from tests.benchmarks import against_pytorch

ARCHITECTURE = Architecture(channels=(12, 10, 8), z_dim=14, w_dim=16, mapping_layers=2)
CLIP = workloads.CLIPS["avatar-p16"]
CLIP = CLIP | {"vision_config": CLIP["vision_config"] | {"num_hidden_layers": 1}}


@pytest.fixture(autouse=True)
def small_models(monkeypatch):
    """Workloads of 16 pixels, and the clip "small"."""
    monkeypatch.setitem(workloads.ARCHITECTURES, 16, ARCHITECTURE)
    monkeypatch.setitem(workloads.CLIPS, "small", CLIP)


def test_the_twin_computes_what_the_training_step_computes():
    base = Settings.read(default.get_config("ffhq"))
    workload = Workload(base, 16, ("small",), 3, "float32", "adaptive", k=3, low_memory=False)
    apart = against_pytorch.differences(against_pytorch.make_pair(workload, "cpu"))
    assert set(apart) == {"latents", "images", "features", "loss", "gradients", "scores"}
    assert max(apart.values()) < against_pytorch.TOLERANCE["float32"], apart


def test_both_are_timed_and_compared(monkeypatch, tmp_path):
    monkeypatch.setattr(against_pytorch, "differences", lambda _: {"images": 1e-6})
    small = ["--size", "16", "--clips", "small", "--batch", "1", "--rounds", "1", "--steps", "1"]
    against_pytorch.main([*small, "--json", str(tmp_path / "report.json")])
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    ours, pytorch = report["ours_ms"]["rounds"], report["pytorch_ms"]["rounds"]
    assert len(ours) == len(pytorch) == 1 and min(ours + pytorch) > 0
    assert report["ratio"]["median"] == pytorch[0] / ours[0]


@pytest.mark.parametrize("value", [0.5, float("nan")])
def test_nothing_is_timed_where_the_two_differ(monkeypatch, value):
    apart = {"images": 1e-6, "gradients": value}
    monkeypatch.setattr(against_pytorch, "make_pair", lambda *_: None)
    monkeypatch.setattr(against_pytorch, "differences", lambda _: apart)
    with pytest.raises(SystemExit, match="compute different things: .*gradients"):
        against_pytorch.main(["--size", "16"])
