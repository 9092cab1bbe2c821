import numpy as np
import pytest
from PIL import Image

import nada_jax
from nada_jax import images
from nada_jax.errors import UserError
from nada_jax.models.vgg import Vgg
from nada_jax.style import colors, painting
from nada_jax.style.settings import Loss, Network, Optimizer, Painting, Scales
from nada_jax.style.transfer import scales, transfer
from nada_jax.weights.loading import load_model

SIZES = {"smallest": 24, "first_steps": 6, "steps": 4}


def drawn(seed, width=48, height=36):
    """A smooth colourful image."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (height // 12, width // 12, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def vgg(narrow_networks):
    return load_model(Vgg, narrow_networks["vgg"])


@pytest.fixture(scope="module")
def make():
    """make(method=...) -> settings of a small painting."""

    def settings(**changes):
        loss = {
            "kind": "gram",
            "content": 1.0,
            "style": (100.0,),
            "total_variation": 0.0,
            "content_layers": ("relu2_2",),
            "style_layers": ("relu1_1", "relu2_1"),
            "style_layer_weights": (),
        }
        optimizer = {"method": "adam", "lr": 0.04, "averaging": 0.5}
        own = {"size": 48, "seed": 0, "tile": 1024, "blend": (), "style_scale": 1.0}
        own |= {"colors": "style", "strength": 1.0}
        for group in (loss, optimizer, own):
            group |= {name: changes[name] for name in group if name in changes}
        return Painting(
            **own,
            vgg=Network(weights="some", pooling="max"),
            loss=Loss(**loss),
            scales=Scales(**SIZES),
            optimizer=Optimizer(**optimizer),
        )

    return settings


def paint(vgg, settings, *rows, **options):
    """rows: (content, styles, style weight, start)."""
    objective, minimizer = painting.make(settings)
    made = [
        painting.prepare(vgg, content, styles, settings, style_weight=w, masks=(), start=start)
        for content, styles, w, start in rows
    ]
    return transfer(vgg, objective, minimizer, [row for row, _ in made], made[0][1], **options)


def test_sizes_double_their_pixels_and_end_with_that_asked_for():
    found = scales(300, 400, smallest=100, first_steps=9, steps=5, least=16)
    assert [(x.height, x.width) for x in found] == [
        (75, 100),
        (106, 141),
        (150, 200),
        (212, 283),
        (300, 400),
    ]
    assert [x.steps for x in found] == [9, 5, 5, 5, 5]
    assert len(scales(90, 80, smallest=100, first_steps=9, steps=5, least=16)) == 1


def test_narrow_images_begin_at_a_scale_that_the_layers_can_look_at():
    found = scales(20, 400, smallest=100, first_steps=9, steps=5, least=16)
    assert [(x.height, x.width) for x in found] == [(20, 400)]
    with pytest.raises(UserError, match="400 x 10 pixels is too small"):
        scales(10, 400, smallest=100, first_steps=9, steps=5, least=16)


def test_rows_of_a_batch_are_painted_as_alone(vgg, make, assert_close):
    settings = make()
    rows = [
        (drawn(0), [drawn(1)], 100.0, "content"),
        (drawn(2), [drawn(3)], 1.0, "noise"),
    ]
    together = paint(vgg, settings, *rows)
    for i, row in enumerate(rows):
        alone = paint(vgg, settings, row)
        assert_close(together.scales[-1][i], alone.scales[-1][0], 1e-3)
        assert_close(together.figures["loss"][i], alone.figures["loss"][0], 1e-3)


@pytest.mark.parametrize("method", ["adam", "lbfgs"])
def test_a_run_that_is_continued_is_that_which_was_not_interrupted(vgg, make, method):
    settings, row = make(method=method), (drawn(0), [drawn(1)], 100.0, "noise")
    kept = []
    whole = paint(vgg, settings, row, keep=lambda snapshot: kept.append(snapshot()))
    for snapshot in kept:
        again = paint(vgg, settings, row, snapshot=snapshot)
        assert (again.scales[-1] == whole.scales[-1]).all()
    assert len(kept) == 3  # one for each scale


@pytest.mark.parametrize("method", ["adam", "lbfgs"])
def test_steps_bring_content_and_style_nearer(vgg, make, method):
    row = (drawn(0), [drawn(1)], 100.0, "noise")
    losses = []
    for steps in (1, 40):
        settings = make(method=method, averaging=0.0)
        objective, minimizer = painting.make(settings)
        made, _ = painting.prepare(
            vgg, row[0], row[1], settings, style_weight=row[2], masks=(), start="noise"
        )
        size = scales(36, 48, smallest=48, first_steps=steps, steps=1, least=16)
        losses.append(transfer(vgg, objective, minimizer, [made], size).figures)
    assert losses[1]["loss"] < 0.5 * losses[0]["loss"]


def test_a_mask_paints_its_region_alone(vgg, make):
    """Without content, what no style belongs to stays as it began."""
    settings = make(content=0.0, averaging=0.0)
    objective, minimizer = painting.make(settings)
    mask = np.zeros((36, 48, 3), np.uint8)
    mask[:, :12] = 255
    row, sizes = painting.prepare(
        vgg,
        drawn(0),
        [drawn(1)],
        settings,
        style_weight=100.0,
        masks=[Image.fromarray(mask)],
        start="content",
    )
    found = transfer(vgg, objective, minimizer, [row], sizes[-1:]).scales[-1][0]
    before = images.from_uint8(drawn(0))
    assert np.abs(found - before)[:, :10].mean() > 0.02
    np.testing.assert_allclose(found[:, 30:], before[:, 30:], atol=1e-6)


def test_the_function_takes_arrays_files_and_several_styles(narrow_networks, tmp_path):
    drawn(1).save(tmp_path / "style.png")
    options = {"size": 48, "weights": narrow_networks["vgg"], **SIZES}
    found = nada_jax.style_transfer(images.from_uint8(drawn(0)), tmp_path / "style.png", **options)
    assert found.shape == (36, 48, 3) and np.abs(found).max() <= 1
    blended = nada_jax.style_transfer(
        drawn(0),
        [drawn(1), drawn(2)],
        blend=(0.2, 0.8),
        strength=0.5,
        colors="luminance",
        **options,
    )
    assert blended.shape == found.shape and (blended != found).any()
    with pytest.raises(
        UserError, match=r"blend is \(1.0,\); expected a share for each of the 2 styles"
    ):
        nada_jax.style_transfer(drawn(0), [drawn(1), drawn(2)], blend=(1.0,), **options)


def test_defaults_of_the_function_are_those_of_the_config():
    import inspect

    from configs import style_transfer

    config = style_transfer.get_config()
    fields = {**config, **config.loss, **config.scales, **config.optimizer, **config.vgg}
    fields |= {"content_weight": config.loss.content, "style_weight": config.loss.style[0]}
    own = inspect.signature(nada_jax.style_transfer).parameters
    compared = [x for x in own.values() if x.name in fields and x.default is not x.empty]
    assert len(compared) > 18
    for parameter in compared:
        if parameter.name != "masks":  # names there, images here
            assert parameter.default == fields[parameter.name], parameter.name


def test_hues_are_the_contents_and_brightness_the_results():
    found = colors.with_colors(drawn(0), drawn(1)).convert("YCbCr")
    for channel, image in enumerate((drawn(0), drawn(1), drawn(1))):
        wanted = np.asarray(image.convert("YCbCr"), int)[..., channel]
        # Few of these colours have no place in RGB.
        assert np.median(np.abs(np.asarray(found, int)[..., channel] - wanted)) < 4


@pytest.mark.parametrize(
    "content", [drawn(0), Image.new("RGB", (8, 8), "gray"), drawn(0).convert("L")]
)
def test_a_matched_style_has_the_colours_of_the_content(content):
    style = drawn(1, 96, 72).point(lambda x: 64 + x // 2)  # so that few are cut off
    found, wanted = (
        np.asarray(x.convert("RGB"), float).reshape(-1, 3)
        for x in (colors.matched(style, content), content)
    )
    np.testing.assert_allclose(found.mean(axis=0), wanted.mean(axis=0), atol=6)
    np.testing.assert_allclose(found.std(axis=0), wanted.std(axis=0), atol=12)
