import json
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from nada_jax.errors import UserError
from nada_jax.models import clip as models
from nada_jax.models import convolution
from tests.models.reference import random


def nhwc(images):
    return jnp.asarray(images.transpose(0, 2, 3, 1))


@pytest.mark.parametrize("antialias", [False, True])
def test_pixels_match_the_official_preprocessing(golden_clip, golden, assert_close, antialias):
    reference = golden("clip_losses.npz")
    pixels = golden_clip.pixels(nhwc(reference["source"]), antialias)
    expected = reference[f"{golden_clip.name}_pixels" + "_antialias" * antialias]
    assert_close(pixels, nhwc(expected))


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("size", [(50, 83), (83, 50), (64, 90), (150, 200), (64, 64)])
def test_pixels_match_torch_on_any_size(avatar_clip, assert_close, size, antialias):
    torch = pytest.importorskip("torch")
    r, short = 64, min(size)
    images = np.random.default_rng(0).uniform(-1, 1, (2, *size, 3)).astype(np.float32)
    resized = torch.nn.functional.interpolate(
        torch.from_numpy(images.transpose(0, 3, 1, 2)) / 2 + 0.5,
        [int(r * side / short) for side in size],
        mode="bicubic",
        antialias=antialias,
    ).numpy()
    top, left = (round((side - r) / 2) for side in resized.shape[2:])
    cropped = resized[:, :, top : top + r, left : left + r].transpose(0, 2, 3, 1)
    expected = (cropped - np.array(models.MEAN)) / np.array(models.STD)
    assert_close(avatar_clip.pixels(images, antialias), expected)


def test_image_features_match_the_official_clip(golden_clip, golden, assert_close):
    reference = golden("clip_losses.npz")
    features = golden_clip.embed_images(nhwc(reference["source"]))
    assert_close(features, reference[f"{golden_clip.name}_image_features"])
    assert_close(jnp.linalg.norm(features, axis=-1), np.ones(3), 1e-6)


def test_tokens_match_openai(golden_clip, golden):
    reference, frames = golden("clip_losses.npz"), golden("templates.json")["imagenet"]
    for text in ("photo", "sketch"):
        ids = golden_clip.tokenize([frame.format(text) for frame in frames])
        assert (ids == reference[f"tokens_79_{text}"]).all()


def test_features_match_hugging_face_torch(avatar_clip, shared, assert_close):
    torch = pytest.importorskip("torch")
    from transformers import CLIPModel

    model = CLIPModel.from_pretrained(shared("weights/clip-avatar-p8"), dtype=torch.float32)
    images = np.random.default_rng(0).uniform(-1, 1, (2, 64, 64, 3)).astype(np.float32)
    texts = ["a sketch of the zombie.", "avatar"]
    pixels = torch.from_numpy(np.asarray(avatar_clip.pixels(images)).transpose(0, 3, 1, 2).copy())
    ids = torch.from_numpy(avatar_clip.tokenize(texts)).long()
    with torch.no_grad():
        of_images = model.get_image_features(pixel_values=pixels).numpy()
        of_texts = model.get_text_features(input_ids=ids).numpy()
    for actual, expected in (
        (avatar_clip.embed_images(images), of_images),
        (avatar_clip.embed_texts(texts), of_texts),
    ):
        assert_close(actual, expected / np.linalg.norm(expected, axis=-1, keepdims=True))


def test_avatars_are_nearest_to_their_own_style(avatar_clip, shared):
    styles = {"real": "avatar", "pencil-sketch": "pencil sketch", "pixel-art": "pixel art"}
    texts = avatar_clip.embed_texts([f"a {text}" for text in styles.values()])
    for i, name in enumerate(styles):
        files = sorted(shared(f"weights/avatars/{name}").glob("*.png"))[:12]
        images = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
        features = avatar_clip.embed_images(jnp.asarray(images / np.float32(127.5) - 1))
        assert (jnp.argmax(features @ texts.T, axis=-1) == i).mean() >= 0.9


def test_features_do_not_depend_on_the_batch(avatar_clip, assert_close):
    texts = [f"a photo of {n} robots" for n in range(83)]
    together = avatar_clip.embed_texts(texts)
    assert together.shape == (83, avatar_clip.dim)
    assert_close(together[-2:], avatar_clip.embed_texts(texts[-2:]), 1e-5)


def test_without_texts_and_for_accelerators_it_computes_the_same(avatar_clip, monkeypatch):
    images = random(2, 64, 64, 3)

    def embed(clip):
        gradient = jax.grad(lambda images: clip.embed_images(images)[:, :5].sum())
        return jax.jit(lambda images: (clip.embed_images(images), gradient(images)))(images)

    expected = embed(avatar_clip)
    monkeypatch.setattr(convolution, "on_cpu", lambda: False)
    looped = avatar_clip.without_texts()
    assert len(jax.tree.leaves(looped.params)) < 30  # of all layers together
    for actual, right in zip(embed(looped), expected, strict=True):
        np.testing.assert_allclose(actual, right, atol=2e-6)


def test_weights_without_texts_are_rounded_once_where_they_were_in_each_step(avatar_clip):
    low = avatar_clip.replace(precision="bfloat16")
    images = random(2, 64, 64, 3)
    embed = jax.jit(lambda clip: clip.embed_images(images))
    np.testing.assert_array_equal(embed(low.without_texts()), embed(low))


def test_equal_clips_share_one_compilation(avatar_clip):
    embed = jax.jit(models.Clip.embed_images)
    images = jnp.zeros((1, 64, 64, 3))
    embed(avatar_clip, images)
    twin = jax.tree.map(lambda x: x + 0, avatar_clip)
    embed(twin.replace(config=models.canonical(json.loads(twin.config))), images)
    assert embed._cache_size() == 1


def test_bfloat16_keeps_float32_parameters_and_features(avatar_clip, assert_close):
    images = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (1, 64, 64, 3)), jnp.float32)
    low = avatar_clip.replace(precision="bfloat16")
    embed = jax.jit(models.Clip.embed_images)
    features, expected = embed(low, images), embed(avatar_clip, images)
    assert features.dtype == jnp.float32
    assert_close(features, expected, 0.05)
    assert (features != expected).any()


def test_long_text_is_cut_with_a_warning_that_shows_what_is_left(avatar_clip):
    text = "pencil sketch " * 40
    with pytest.warns(UserWarning, match=r"82 tokens .* 'avatar-p8' reads \(32\); kept: \"pencil"):
        ids = avatar_clip.tokenize([text])
    assert ids[0, -1] == avatar_clip.tokenizer.end
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        avatar_clip.tokenize(["pencil sketch " * 15])
        avatar_clip.tokenize([text])  # it is said once


@pytest.mark.parametrize(
    "texts",
    [
        [""], ["a", " \n"], [], "a sketch", ["\ufeff"], ["\x1b[31m"], ["&nbsp;"],
        None, 3, b"a sketch", {"a"}, [b"a"], [3], ["a", None],
    ],
)  # fmt: skip
def test_texts_that_cannot_be_embedded_are_refused(avatar_clip, texts):
    with pytest.raises(UserError, match="text"):
        avatar_clip.embed_texts(texts)


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (
            np.zeros((1, 8, 8, 3), np.uint8),
            r"images are uint8 of the shape \(1, 8, 8, 3\); expected",
        ),
        (np.zeros((1, 8, 8, 3), bool), "images are bool of"),
        (np.zeros((1, 3, 8, 8), np.float32), r"images are float32 of the shape \(1, 3, 8, 8\)"),
        (
            np.zeros((8, 8, 3), np.float32),
            r"of the shape \(8, 8, 3\); expected floats \[b, h, w, 3",
        ),
    ],
)
def test_what_cannot_be_images_is_refused_with_its_type_and_shape(avatar_clip, images, said):
    with pytest.raises(ValueError, match=said):
        avatar_clip.embed_images(images)


def test_arrays_that_do_not_fit_are_all_named(avatar_clip):
    params = {"logit_scale": np.zeros(3), "extra.array": np.zeros(2)}
    with pytest.raises(
        UserError, match=r"extra.array.*logit_scale has shape \(3,\).*and \d+ more$"
    ):
        models.from_params(params, json.loads(avatar_clip.config))


def test_a_config_of_another_model_is_refused():
    with pytest.raises(UserError, match="'siglip' model"):
        models.param_shapes({"model_type": "siglip"})


@pytest.mark.parametrize(
    ("tower", "field", "value", "said"),
    [
        ("text_config", "num_hidden_layers", 2**70, "num_hidden_layers=118.*; expected 1 to 100"),
        ("vision_config", "num_hidden_layers", 0, "vision_config.num_hidden_layers=0; expected 1"),
        ("vision_config", "hidden_act", "mish", "hidden_act='mish'; expected one of gelu, "),
        ("vision_config", "image_size", 65, "image_size=65 is no multiple of patch_size=8"),
        ("vision_config", "image_size", 2**40, "does not describe a CLIP"),
        ("vision_config", "num_attention_heads", 7, "must be divisible by num_heads"),
    ],
)
def test_a_config_that_describes_no_network_is_refused_at_once(
    avatar_clip, tower, field, value, said
):
    config = json.loads(avatar_clip.config)
    config[tower][field] = value
    with pytest.raises(UserError, match=said):
        models.param_shapes(config)


def test_a_number_of_classes_costs_no_time(avatar_clip):
    claimed = json.loads(avatar_clip.config) | {"num_labels": 2**60}
    claimed["text_config"] = claimed["text_config"] | {"num_labels": 2**60}
    assert models.canonical(claimed) == avatar_clip.config


def test_a_tokenizer_of_another_vocabulary_is_refused(avatar_clip):
    tokenizer = models.Tokenizer("other", 5000, 1613, encode=list, decode=str)
    with pytest.raises(UserError, match="knows 1614 tokens, but its tokenizer has number 5000"):
        params = models.trees.flatten(avatar_clip.params)
        models.from_params(params, json.loads(avatar_clip.config), tokenizer=tokenizer)


def test_squashing_resizes_both_sides(avatar_clip, assert_close):
    torch = pytest.importorskip("torch")
    images = np.random.default_rng(0).uniform(-1, 1, (1, 50, 90, 3)).astype(np.float32)
    resized = torch.nn.functional.interpolate(
        torch.from_numpy(images.transpose(0, 3, 1, 2)) / 2 + 0.5, [64, 64], mode="bicubic"
    )
    expected = (resized.numpy().transpose(0, 2, 3, 1) - models.MEAN) / np.array(models.STD)
    assert_close(avatar_clip.replace(squash=True).pixels(images), expected)
    square = images[:, :, :50]
    assert (avatar_clip.replace(squash=True).pixels(square) == avatar_clip.pixels(square)).all()
