"""What cannot be steered towards is refused, by the names of the fields."""

import numpy as np
import pytest

from nada_jax import images
from nada_jax.adaptation.steering import Steering
from nada_jax.errors import UserError
from nada_jax.weights.loading import load_clip


@pytest.fixture(scope="module")
def steer(make_settings, tiny_generator, tiny_clip):
    """steer({"text.target": "zombie"}) -> its steering, by one clip."""
    clip = load_clip(tiny_clip)

    def make(fields):
        fields = {f"text.{name}": value for name, value in fields.items()}
        text = make_settings({"text.source": "cartoon portrait"} | fields).text
        return Steering(text, tiny_generator, [clip], [1.0], parts=False, seed=0)

    return make


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"target": "Cartoon  Portrait"}, "text.source and text.target are 'cartoon portrait' and"),
        (
            {"others": ("CARTOON portrait",), "weights": (1.0,)},
            "text.source and text.others are 'cartoon portrait' and 'CARTOON portrait', which",
        ),
        (
            {"others": ("Pencil Sketch",), "weights": (-1.0,)},
            r"text.target and text.others have no direction in common by their weights \(1.0, -1.0\)",
        ),
    ],
)
def test_texts_without_a_direction_are_named_by_their_fields(steer, fields, said):
    with pytest.raises(UserError, match=said):
        steer(fields).targets("cartoon portrait")


@pytest.mark.parametrize("fields", [{}, {"others": ("zombie",), "weights": (0.5,)}])
def test_a_folder_beside_itself_has_no_direction(steer, fields, tmp_path):
    images.save(np.zeros((8, 8, 3), np.uint8), tmp_path / "a.png")
    fields = fields | {"source_images": str(tmp_path), "target_images": str(tmp_path)}
    said = (
        "sees no difference between images of text.source_images='.*' and those of text.target_im"
    )
    with pytest.raises(UserError, match=said):
        steer(fields)


def test_no_description_is_read_off_that_a_clip_reads_as_a_target(steer, tmp_path):
    file = tmp_path / "words.txt"
    fields = {"target": "zombie", "others": ("robot",), "weights": (0.5,)}
    fields |= {"read_every": 1, "vocabulary": str(file)}
    file.write_text("Zombie\ncartoon  portrait\nROBOT\nmosaic\n")
    assert steer(fields).words == ["cartoon  portrait", "mosaic"]
    file.write_text("Zombie\nROBOT\n")
    with pytest.raises(
        UserError, match="text.vocabulary='.*' holds nothing but what CLIP reads as a"
    ):
        steer(fields)
