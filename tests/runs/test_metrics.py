"""metrics.jsonl."""

from nada_jax.runs import metrics


def test_half_a_line_of_metrics_is_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    metrics.write(path, [{"step": 1}])
    metrics.append(path, [{"step": 2}])
    with path.open("a") as file:
        file.write('{"step": 3, "lo')
    assert metrics.read(path) == [{"step": 1}, {"step": 2}]
    assert metrics.read(tmp_path / "missing") == []
