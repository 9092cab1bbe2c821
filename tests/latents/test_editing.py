"""StyleCLIP's latent optimisation: the official numbers, and what edits do to images."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convert import clip as clip_conversion
from convert import irse50, stylegan2
from nada_jax.latents import descent, editing
from nada_jax.latents.codes import Codes
from nada_jax.latents.spaces import distance
from nada_jax.models import clip as clips
from nada_jax.weights.loading import load_clip, load_generator

# -- against the official implementation --------------------------------------------------------------


@pytest.fixture(scope="module")
def reference(golden):
    return golden("styleclip.npz")


@pytest.fixture(scope="module")
def official_clip(golden, golden_weights, reference):
    """A CLIP that reads 224 pixels."""
    table = golden("shapes_styleclip.json")["clip 224"]
    found = clip_conversion.from_openai(golden_weights(table, int(reference["seed"]) + 1))
    return clips.from_params(found.params, found.config, name="224")


def test_the_official_image_path_and_loss_match(official_clip, reference, assert_close):
    images = reference["image"].astype(np.float32).transpose(0, 2, 3, 1)
    pixels = editing.official_pixels(official_clip, images)
    assert_close(pixels[:, ::4, ::4].transpose(0, 3, 1, 2), reference["styleclip_pixels"])
    (text,) = editing.embed_text([official_clip], str(reference["edit_text"]))
    features = jax.jit(clips.Clip.embed_pixels)(official_clip, pixels)
    assert_close(1 - features @ text.T, reference["styleclip_loss"])


@pytest.mark.slow
def test_the_first_six_of_forty_steps_match(
    full_compile, official_clip, golden, golden_weights, reference, assert_close
):
    table, seed = golden("shapes_styleclip.json"), int(reference["seed"])
    weights = golden_weights(table["generator 64 cm2"], seed + 10)
    weights = {k: x * 0 if k.endswith("noise.weight") else x for k, x in weights.items()}
    weights["latent_avg"] = np.zeros(512, np.float32)
    generator = stylegan2.to_native(weights, "golden")[0]
    faces = irse50.to_native(golden_weights(table["irse50"], seed), "golden")[0]
    guides = editing.Guides((official_clip.without_texts(),), (1.0,), faces)
    text = editing.embed_text([official_clip], str(reference["edit_text"]))
    start = Codes(ws=jnp.asarray(reference["edit_w0"]))
    context = editing.prepare(generator, guides, start, text, "w+", l2=0.008, identity=0.005)
    one = editing.descent_of("w+", "official")
    state = descent.State(
        context.variables, one._adam.init(context.variables), jnp.zeros(1, bool), jnp.int32(0)
    )
    losses = []
    for stop in range(1, 7):
        peaks, totals = jnp.full(1, 0.1), jnp.full(1, 40)
        keys = jax.random.split(jax.random.key(0), 1)
        state, figures = descent._advance(one, state, context, peaks, totals, keys, stop)
        losses.append([float(figures[name][0]) for name in ("loss", "clip", "l2", "identity")])
    expected = reference["edit_losses_total_clip_l2_id"]
    # The first step that moves divides each gradient by its own size, so that numbers whose gradient is almost 0 move by
    # the whole rate in a direction that rounding decides, and from the third step on all depends on these.
    assert_close(np.asarray(losses)[:2], expected[:2])
    assert_close(np.asarray(losses)[:3], expected[:3], 1e-3)
    assert_close(np.asarray(losses)[:, 0], expected[:, 0], 3e-3)
    moved = np.asarray(state.variables) - reference["edit_w0"]
    apart = moved - (reference["edit_w_after_6_of_40"] - reference["edit_w0"])
    assert np.linalg.norm(apart) < 0.1 * np.linalg.norm(moved)


# -- behaviour ----------------------------------------------------------------------------------------


COUNTS = {0.0: 16, 0.008: 16, 1.0: 8}  # L2 -> portraits
TEXT = "a person with red hair"


@pytest.fixture(scope="module")
def red_hair():
    """Portraits that avatar-p16 edits with each of three L2, all as one batch, and that avatar-p8 judges.

    Three arrays for each: how far the latents moved, how much the images changed, and the gain in cosine.
    """
    generator, clip = load_generator("avatar64"), load_clip("avatar-p16")
    judge = load_clip("avatar-p8")
    z = jax.random.normal(jax.random.key(0), (16, generator.architecture.z_dim))
    ws = generator.broadcast(generator.truncate(generator.map(z), 0.7))
    start = Codes(ws=jnp.concatenate([ws[:count] for count in COUNTS.values()]))
    quick = os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1"
    jax.config.update("jax_disable_most_optimizations", False)  # for many steps, as `full_compile`
    edited, _, _ = editing.edit(
        generator,
        editing.Guides((clip.without_texts(),), (1.0,)),
        start,
        editing.embed_text([clip], TEXT),
        lr=0.04,
        steps=16,
        l2=np.repeat(list(COUNTS), list(COUNTS.values())),
    )
    jax.config.update("jax_disable_most_optimizations", quick)
    draw = jax.jit(lambda generator, codes: codes.draw(generator))
    before, after = draw(generator, start), draw(generator, edited)
    embed = jax.jit(lambda judge, images, text: judge.embed_images(images) @ text)
    (text,) = judge.embed_texts([TEXT])
    found = {
        "moved": distance(edited.ws, start.ws),
        "changed": jnp.mean((after - before) ** 2, axis=(1, 2, 3)),
        "gained": embed(judge, after, text) - embed(judge, before, text),
    }
    ends = np.cumsum(list(COUNTS.values()))[:-1]
    return {name: np.split(np.asarray(x), ends) for name, x in found.items()}


def test_edits_raise_what_the_text_says_for_a_clip_that_took_no_part(red_hair):
    official = red_hair["gained"][1]
    assert np.mean(official > 0) >= 0.8
    assert official.mean() > 0.1


def test_the_official_l2_leaves_the_rest_nearer_than_free_optimisation(red_hair):
    free, official, _ = red_hair["changed"]
    assert official.mean() < 0.7 * free.mean()


def test_an_l2_of_one_leaves_the_images_as_they_were(red_hair):
    assert red_hair["changed"][2].mean() < 0.01 and red_hair["changed"][2].max() < 0.04


def test_a_larger_l2_moves_no_latent_farther(red_hair):
    free, official, fixed = red_hair["moved"]
    assert np.all(fixed <= official[: len(fixed)]) and np.all(official <= free)
