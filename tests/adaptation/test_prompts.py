import numpy as np
import pytest

from nada_jax.adaptation import prompts
from nada_jax.errors import UserError

LONG = "pencil sketch of a portrait " * 8


def test_templates_are_the_official_ones(golden):
    official = golden("templates.json")
    assert len(prompts.TEMPLATES) == 79
    assert set(prompts.TEMPLATES) == set(official["imagenet"])
    assert list(prompts.PART_TEMPLATES) == official["part"]


def test_text_features_match_the_official_clip(golden_clip, golden, assert_close):
    features = prompts.text_features(golden_clip, "photo", golden("templates.json")["imagenet"])
    assert_close(features, golden("clip_losses.npz")[f"{golden_clip.name}_text_features_photo"])


def test_text_direction_matches_the_official_one(golden_clip, golden, assert_close):
    direction = prompts.text_direction(golden_clip, "photo", "sketch")
    expected = golden("clip_losses.npz")[f"{golden_clip.name}_text_direction_photo_sketch"]
    assert_close(direction, expected[0])


def test_part_directions_are_directions_between_parts(avatar_clip, assert_close):
    directions = prompts.part_directions(avatar_clip, "avatar", "zombie")
    assert directions.shape == (15, avatar_clip.dim)
    nose = prompts.text_direction(avatar_clip, "the nose of a avatar.", "the nose of a zombie.")
    assert_close(directions[1], nose)


def test_mean_feature_is_the_unit_mean_over_the_templates(avatar_clip, assert_close):
    mean = np.mean(prompts.text_features(avatar_clip, "robot"), axis=0)
    expected = mean / np.linalg.norm(mean)
    assert_close(prompts.mean_feature(avatar_clip, "robot"), expected, 1e-5)


@pytest.mark.parametrize(
    ("source", "target", "said"),
    [
        ("", "sketch", "text.source is blank"),
        ("photo", " ", "text.target is blank"),
        (None, "sketch", "text.source is None; expected a text"),
        ("photo", b"sketch", "text.target is b'sketch'; expected a text"),
        ("photo", "photo", "both 'photo'"),
        (
            "Zombie",
            "zombie",
            "'Zombie' and 'zombie', which clip 'avatar-p8' reads as one text, 'zombie'",
        ),
        ("a  photo", "a photo\n", r"'a  photo' and 'a photo\\n', which .* as one text, 'a photo'"),
        (
            LONG,
            f"{LONG} by a child",
            "text.source and text.target differ only behind the 32 tokens",
        ),
    ],
)
@pytest.mark.parametrize(
    "function", [prompts.text_direction, prompts.part_directions, prompts.targets]
)
def test_texts_without_a_direction_are_refused(avatar_clip, function, source, target, said):
    with pytest.raises(UserError, match=said):
        function(avatar_clip, source, target)


def test_targets_hold_what_each_function_gives_alone(avatar_clip, assert_close):
    targets = prompts.targets(avatar_clip, "avatar", "zombie")
    means = [prompts.mean_feature(avatar_clip, text) for text in ("avatar", "zombie")]
    texts = avatar_clip.embed_texts(["a zombie", "zombie"])
    expected = prompts.text_direction(avatar_clip, "avatar", "zombie")
    assert_close(targets.direction, expected, 1e-5)
    assert_close(targets.cosine, means[0] @ means[1], 1e-5)
    assert_close([targets.target, targets.bare], texts, 1e-5)
    assert targets.parts is None


def test_blended_targets_are_the_unit_sum_of_all_by_weight(avatar_clip, assert_close):
    texts = ("zombie", "robot", "joker")
    wanted = [prompts.targets(avatar_clip, "avatar", text) for text in texts]
    blended = prompts.blend(wanted, (1.0, 0.5, -0.25))
    for field in ("direction", "target", "bare"):
        total = sum(
            f * np.asarray(getattr(t, field)) for f, t in zip((1, 0.5, -0.25), wanted, strict=True)
        )
        assert_close(getattr(blended, field), total / np.linalg.norm(total), 1e-5)
    # Towards the first two, away from the third.
    before = wanted[0].direction
    away = prompts.targets(avatar_clip, "avatar", "joker").direction
    assert blended.direction @ away < before @ away
    assert blended.direction @ wanted[1].direction > before @ wanted[1].direction
    assert_close(blended.cosine, (wanted[0].cosine + 0.5 * wanted[1].cosine) / 1.5, 1e-5)


@pytest.mark.parametrize("factors", [(1.0, -1.0), (1.0, -0.9995), (1e6, -1e6), (1.0, 1e30)])
def test_texts_that_cancel_each_other_out_are_refused(avatar_clip, factors):
    wanted = prompts.targets(avatar_clip, "avatar", "zombie")
    with pytest.raises(UserError, match="have no direction in common by their weights"):
        prompts.blend([wanted, wanted], factors)


def test_example_images_give_the_direction_between_their_means(avatar_clip, assert_close):
    random = np.random.default_rng(0)
    batches = [random.uniform(-1, 1, (n, 8, 8, 3)).astype(np.float32) for n in (3, 3, 2)]
    (mean,) = prompts.mean_features([avatar_clip], batches)
    features = avatar_clip.embed_images(np.concatenate(batches), antialias=True)
    assert_close(mean, features.mean(axis=0), 1e-5)
    other = features[0]
    targets = prompts.image_targets(avatar_clip, mean, other, parts=True)
    expected = np.asarray(other - mean)
    assert_close(targets.direction, expected / np.linalg.norm(expected), 1e-5)
    assert_close(targets.parts, targets.direction[None])
    assert_close(targets.cosine, other @ mean / np.linalg.norm(mean), 1e-5)


@pytest.mark.parametrize("other", [0.0, 1e-5, np.nan])
def test_example_images_that_are_the_same_are_refused(avatar_clip, other):
    mean = np.full(avatar_clip.dim, 0.05, np.float32)
    with pytest.raises(
        UserError, match="clip 'avatar-p8' sees no difference between the images of the source and"
    ):
        prompts.image_targets(avatar_clip, mean, mean + np.float32(other))


def test_templates_that_leave_the_texts_out_are_refused(avatar_clip):
    with pytest.raises(UserError, match="sees no difference between text.source and text.target"):
        prompts.text_direction(avatar_clip, "photo", "sketch", ["a photo"])
