"""The table of metrics, and which of several results leads."""

from configs import evaluate as configs
from nada_jax.evaluation import comparisons, features
from nada_jax.evaluation.comparisons import METRICS

BETTER = {"similarity": "higher", "kid": "", "bad": "lower"}


def measured(**values):
    return {name: {"value": x, "low": x - 0.1, "high": x + 0.1} for name, x in values.items()}


def test_a_result_leads_where_its_interval_lies_apart():
    first, near = measured(similarity=0.9, bad=0.1, kid=1), measured(similarity=0.75)
    far = measured(similarity=0.5, bad=0.5, kid=0)
    found = {"first": first, "near": near, "far": far}
    assert comparisons.leaders(found, BETTER) == {"bad": "first"}
    two = {"far": far, "first": first}
    assert comparisons.leaders(two, BETTER) == {"bad": "first", "similarity": "first"}
    assert comparisons.leaders({"first": first}, BETTER) == {}


def test_every_metric_states_its_direction_and_its_network():
    config = configs.get_config()
    for name, metric in METRICS.items():
        assert metric.better in ("higher", "lower", "")
        assert "{" not in comparisons.meaning(name, folder="x")
        assert not metric.network or (
            metric.network in features.NETWORKS and metric.network in config
        )
    assert comparisons.meaning("kid", folder="").endswith("the source's")
    assert comparisons.meaning("kid", folder="x").endswith("those of the folder")
