import json

import jax
import pytest

pytest.importorskip("torch")
if jax.default_backend() != "cpu":
    pytest.skip("the tolerances are those of CPUs", allow_module_level=True)

from tests.benchmarks import style_against_pytorch as benchmark


def test_both_are_the_same_work_and_are_timed(narrow_networks, tmp_path, capsys):
    small = ["--weights", str(narrow_networks["vgg"]), "--sizes", "32", "--batches", "1,2"]
    benchmark.main([*small, "--rounds", "1", "--json", str(tmp_path / "report.json")])
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["32"]
    assert set(report["differences"]) == {"loss", "gradient"}
    ms = {name: x["rounds"][0] for name, x in report["ms"].items()}
    assert set(ms) == {"1", "2", "pytorch"} and min(ms.values()) > 0
    assert report["ratio"]["2"]["median"] == ms["pytorch"] / ms["2"]
    assert report["temporary"]["2"] > report["temporary"]["1"] > 0
    assert "2 at once: compiled in" in capsys.readouterr().out


@pytest.mark.parametrize("value", [0.5, float("nan")])
def test_nothing_is_timed_where_the_two_differ(narrow_networks, monkeypatch, value):
    monkeypatch.setattr(benchmark, "Ours", lambda *_: None)
    monkeypatch.setattr(benchmark, "Twin", lambda *_: None)
    monkeypatch.setattr(benchmark, "differences", lambda *_: {"loss": 1e-6, "gradient": value})
    with pytest.raises(SystemExit, match="compute different things: .*gradient"):
        benchmark.main(["--weights", str(narrow_networks["vgg"]), "--sizes", "32"])
