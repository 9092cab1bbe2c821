import json

import pytest

from nada_jax.errors import UserError
from nada_jax.models import preprocessing
from nada_jax.models.preprocessing import MEAN, STD, Preprocessing, parse

HALF = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({}, Preprocessing(MEAN, STD)),
        (
            HALF | {"size": 64, "crop_size": 64, "resample": 3},
            Preprocessing((0.5,) * 3, (0.25,) * 3),
        ),
        (
            {"size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 64}},
            Preprocessing(),
        ),
        (
            {"size": {"height": 64, "width": 64}, "do_center_crop": False},
            Preprocessing(squash=True),
        ),
        (HALF | {"do_normalize": False}, Preprocessing((0.0,) * 3, (1.0,) * 3)),
    ],
)
def test_what_is_built_is_read(content, expected):
    assert parse(content, 64) == expected


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"resample": 2}, r"resample is 2; only 3 \(bicubic\) is built"),
        ({"do_resize": False}, "do_resize is False; only True is built"),
        ({"do_rescale": False}, "do_rescale is False"),
        ({"rescale_factor": 1 / 127.5}, "rescale_factor is 0.0078"),
        (
            {"size": {"shortest_edge": 256}},
            "size is .*256.*; the network reads images of 64 pixels",
        ),
        ({"size": {"longest_edge": 64}}, "size is .*longest_edge"),
        ({"size": {"height": 64, "width": 32}}, "size is .*32"),
        ({"crop_size": 32}, "crop_size is 32"),
        ({"size": 64, "do_center_crop": False}, "do_center_crop is False and size is 64"),
        ({"image_mean": [0.5, 0.5]}, r"image_mean is \[0.5, 0.5\]; expected three finite numbers"),
        ({"image_mean": [0.5, "0", 1]}, "image_mean is"),
        ({"image_mean": [0.5, float("nan"), 1]}, "image_mean is"),
        ({"image_std": [1, 0, 1]}, r"image_std is \[1, 0, 1\]; .* from 0.0001"),
        ({"image_std": [1e-300] * 3}, "image_std is .*; expected three finite numbers from 0.0001"),
        ({"image_processor_type": "SiglipImageProcessor"}, "of a SiglipImageProcessor and has no"),
    ],
)
def test_what_is_not_built_is_refused(content, said):
    with pytest.raises(UserError, match=said):
        parse(content, 64)


def test_both_files_of_a_directory_are_read_and_none_warns(tmp_path):
    with pytest.warns(UserWarning, match="has no preprocessor_config.json.*OpenAI's mean"):
        assert preprocessing.read(tmp_path, 64) == Preprocessing()
    newer = tmp_path / "processor_config.json"
    newer.write_text(json.dumps({"image_processor": HALF}))
    assert preprocessing.read(tmp_path, 64).mean == (0.5,) * 3
    (tmp_path / "preprocessor_config.json").write_text('{"resample": 0}')
    with pytest.raises(UserError, match="preprocessor_config.json: resample is 0"):
        preprocessing.read(tmp_path, 64)
