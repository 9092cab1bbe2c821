"""Messages between devices, read from compiled programs. A run needs a process that JAX has not started in."""

import json
import subprocess
import sys
import types
from pathlib import Path

import jax
import pytest

from configs import scaling as configs
from nada_jax.errors import UserError
from nada_jax.performance import messages
from nada_jax.tasks import scaling

ROOT = Path(__file__).parents[2]


def test_devices_exchange_the_gradient_once_and_nothing_else(tmp_path):
    line = [
        "main.py", "--config=configs/scaling.py", f"--workdir={tmp_path}",
        '--config.clips=("avatar-p16",)', "--config.devices=(1, 4)",
    ]  # fmt: skip
    subprocess.run([sys.executable, *line], cwd=ROOT, check=True)
    alone, four = json.loads((tmp_path / "scaling.json").read_text())
    assert alone["messages"] == 0 and alone["efficiency"] == 1
    trained = 1_255_065  # numbers of avatar64 that train with freeze.strategy "none"
    assert 4 * trained <= 1e6 * four["all-reduce MB"] <= 4 * trained * 1.2
    assert four["others MB"] == four["all-gather MB"] == 0
    assert four["received MB"] == pytest.approx(2 * 3 / 4 * four["all-reduce MB"], rel=1e-3)
    assert four["efficiency"] < 1
    assert 0.03 < four["memory GiB"] == pytest.approx(alone["memory GiB"], rel=0.2)
    assert len((tmp_path / "scaling.md").read_text().splitlines()) == 4


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("devices", (0,), r"devices is \(0,\); expected numbers in 1..4096"),
        ("devices", (6,), r"devices is \(6,\); expected powers of 2 where tpu is given"),
        ("fsdp", 3, "fsdp is 3; expected at least 1, and a divisor of each of the devices"),
        ("size", 100, "size is 100; expected one of 64, 256, 512, 1024"),
    ],
)
def test_wrong_fields_are_told(field, value, sentence, tmp_path):
    config = configs.get_config()
    config[field], config.tpu = value, "v5e"
    with pytest.raises(UserError, match=sentence):
        scaling.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_process_that_has_used_jax_is_refused(tmp_path):
    jax.devices()
    with pytest.raises(UserError, match="this process has used JAX before"):
        scaling.run(configs.get_config(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_tpus_form_rectangles_and_a_missing_compiler_is_told(monkeypatch):
    names = []

    def describe(platform, topology_name):
        if topology_name.startswith("v9"):
            raise RuntimeError("no such TPU")
        names.append(topology_name)
        return types.SimpleNamespace(devices=[platform])

    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    monkeypatch.setattr(messages.topologies, "get_topology_desc", describe)
    for name, value in messages.OFFLINE_TPU.items():
        monkeypatch.setenv(name, value)
    assert messages.pretend((1, 2, 8, 256), "v5e") == [["tpu"]] * 4
    assert names == ["v5e:1x1", "v5e:1x2", "v5e:2x4", "v5e:16x16"]
    with pytest.raises(
        UserError, match="tpu is 'v9', .*no such TPU.*expected v5e or v6e, and `pip"
    ):
        messages.pretend((4,), "v9")


def test_messages_are_read_from_the_program():
    program = """
%body.1 (p: f32[2]) -> f32[2] {
}
ENTRY %main (p: f32[2]) -> f32[2] {
  %a = (f32[3,4]{1,0}, bf16[5]{0}) all-reduce(%x, %y), replica_groups=[2,4]<=[8], to_apply=%add
  %b = f32[8]{0} all-gather-start(%z), replica_groups={{0,1},{2,3}}, dimensions={0}
  %c = f32[8]{0} add(%b, %b)
}
"""
    expected = [("all-reduce", 3 * 4 * 4 + 5 * 2, 4), ("all-gather", 32, 2)]
    assert messages.collectives(program) == expected
