import numpy as np
import pytest
from PIL import Image

from nada_jax.weights.registry import EXAMPLES
from tests.assets.canvas import BYTES
from tests.assets.draw_images import FOLDERS, image


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_ships_is_what_the_script_draws_and_small(folder):
    files = sorted(EXAMPLES[folder].iterdir())
    assert [x.name for x in files] == sorted(f"{draw.__name__}.jpg" for draw in FOLDERS[folder])
    for file in files:
        assert file.stat().st_size <= BYTES
        with Image.open(file) as opened:
            assert opened.mode == "RGB" and 512 <= max(opened.size) <= 640


@pytest.mark.parametrize("name", ["engraving", "wood"])  # the quick ones
def test_a_drawing_is_the_image_that_ships(name):
    with Image.open(EXAMPLES["styles"] / f"{name}.jpg") as opened:
        shipped = np.asarray(opened, np.float32) / 255
    # JPEG at the qualities that fit costs about 0.02 of contrast; another seed, more than 0.1.
    assert np.abs(np.clip(image(name), 0, 1) - shipped).mean() < 0.04
