"""metrics.jsonl."""

import os

import pytest

from nada_jax.errors import UserError
from nada_jax.runs import metrics


def test_half_a_line_of_metrics_is_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    metrics.write(path, [{"step": 1}])
    metrics.append(path, [{"step": 2}])
    with path.open("a") as file:
        file.write('{"step": 3, "lo')
    assert metrics.read(path) == [{"step": 1}, {"step": 2}]
    assert metrics.read(tmp_path / "missing") == []


@pytest.mark.parametrize(
    "line",
    [b"5", b'{"a": 1}', b'{"step": "x"}', b'{"step": null}', b"\xff", b'{"st', b"", b"[" * 9999],
)
def test_a_line_that_is_no_row_is_named_and_nothing_is_lost(line, tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n' + line + b'\n{"step": 3}\n')
    said = "line 2 of .*metrics.jsonl is .*; expected a JSON object with step; remove that line"
    with pytest.raises(UserError, match=said):
        metrics.read(path, "step")
    path.write_bytes(b'{"step": 1}\n' + line)  # what a killed run leaves
    assert metrics.read(path, "step") == [{"step": 1}]


def test_metrics_that_cannot_be_read_are_named(tmp_path):
    os.mkdir(tmp_path / "metrics.jsonl")
    with pytest.raises(UserError, match="cannot read .*metrics.jsonl: Is a directory"):
        metrics.read(tmp_path / "metrics.jsonl")
