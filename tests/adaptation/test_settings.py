"""What a config says of itself."""

import pytest


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"ema": 200.0, "steps": 160},
            ["ema halves the source's share in 200 steps: after 160 most"],
        ),
        (
            {"optimizer.decay": 100, "optimizer.warmup": 10, "steps": 160},
            ["optimizer.warmup and optimizer.decay end after 110 steps, and the other 50 change"],
        ),
        ({"batch_size": 1, "loss.angle": 0.25}, ["loss.angle compares the images of a batch"]),
        (
            {"loss.directional": 0.0, "loss.style": 1.0, "style.images": "x", "loss.angle": 1.0},
            ["loss.style alone leads, which sees no text"],
        ),
        ({"ema": 20.0, "optimizer.decay": 160, "loss.angle": 0.25}, []),
    ],
)
def test_what_trains_less_than_it_seems_to_is_remarked_on(make_settings, fields, said):
    remarks = make_settings(fields).remarks()
    assert len(remarks) == len(said)
    assert all(remark.startswith(words) for remark, words in zip(remarks, said, strict=True))
