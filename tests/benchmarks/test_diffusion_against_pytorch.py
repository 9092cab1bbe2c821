import json

import jax
import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")
if jax.default_backend() != "cpu":
    pytest.skip("the tolerances are those of CPUs", allow_module_level=True)

from tests.benchmarks import diffusion_against_pytorch as benchmark


def test_both_are_the_same_work_and_are_timed(narrow_networks, tiny_diffusion_directory, tmp_path):
    small = ["--weights", str(narrow_networks["vgg"]), "--models", str(tiny_diffusion_directory)]
    small += ["--kinds", "guided", "--rounds", "1", "--json", str(tmp_path / "report.json")]
    benchmark.main(small)
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    report = report[str(tiny_diffusion_directory)]["guided"]
    assert report["difference"] < 1e-3
    ms = {name: x["rounds"][0] for name, x in report["ms"].items()}
    assert set(ms) == {"1", "pytorch"} and min(ms.values()) > 0
    assert report["ratio"]["1"]["median"] == ms["pytorch"] / ms["1"]


def test_nothing_is_timed_where_the_two_differ(
    narrow_networks, tiny_diffusion_directory, monkeypatch
):
    monkeypatch.setattr(benchmark, "Ours", lambda *_: None)
    monkeypatch.setattr(benchmark, "Twin", lambda *_: None)
    monkeypatch.setattr(benchmark, "differences", lambda *_: float("nan"))
    small = ["--weights", str(narrow_networks["vgg"]), "--models", str(tiny_diffusion_directory)]
    with pytest.raises(SystemExit, match="compute different things"):
        benchmark.main(small)
