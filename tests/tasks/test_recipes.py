"""What the recipes make of the embedded generator, judged by a CLIP that took no part in training."""

import importlib
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nada_jax import images
from nada_jax.adaptation import prompts
from nada_jax.adaptation.freezing.strategy import FROZEN
from nada_jax.adaptation.settings import Settings
from nada_jax.latents.codes import Codes
from nada_jax.latents.inversion import encode
from nada_jax.latents.projection import Networks, see
from nada_jax.latents.tuning import tune
from nada_jax.models.blending import transfer
from nada_jax.models.stylegan2 import draw_latents
from nada_jax.tasks import adapt
from nada_jax.weights import loading as weights
from nada_jax.weights.registry import EXAMPLES

# The share of its steps that each trains here, after which it is clearly there.
RECIPES = {
    "nada_sketch": 0.5, "nada_zombie": 0.8, "nada_joker": 0.8, "nada_golden_statue": 0.5, "nada_robot": 0.5,
}  # fmt: skip
ALWAYS = "nada_sketch"  # the others take a minute each; what they came to in presets is judged in tests/weights
TRAINER, JUDGE = "avatar-p16", "avatar-p8"


def pairwise(x):
    """Mean Euclidean distance of all pairs of rows."""
    x = np.asarray(x, np.float64).reshape(len(x), -1)
    return np.mean([np.linalg.norm(a - b) for a, b in itertools.combinations(x, 2)])


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(x, marks=[pytest.mark.long] if x != ALWAYS else []) for x in RECIPES]
)
def test_another_clip_sees_the_target_in_fresh_samples(name, tmp_path, full_compile):
    config = importlib.import_module(f"configs.{name}").get_config()
    config.clip.models, config.clip.weights = (TRAINER,), (1.0,)
    config.steps = int(RECIPES[name] * config.steps)
    config.sample_every = config.checkpoint_every = config.steps
    assert adapt.run(config, tmp_path) == 0

    judge = weights.load_clip(JUDGE)
    source = weights.load_generator(config.generator.weights)
    adapted = weights.load_generator(tmp_path / "generator.safetensors")
    draw = jax.jit(lambda generator, ws: generator.synthesize(ws))
    look = jax.jit(lambda judge, images: judge.embed_images(images))
    texts = jnp.stack(
        [prompts.mean_feature(judge, text) for text in (config.text.source, config.text.target)]
    )
    ws = draw_latents(source, jax.random.key(1234), 64)
    pictures = {"source": draw(source, ws), "adapted": draw(adapted, ws)}
    features = {kind: look(judge, batch) for kind, batch in pictures.items()}
    share = {
        kind: float(jnp.mean(jnp.diff(feature @ texts.T, axis=1) > 0))
        for kind, feature in features.items()
    }
    diversity = {
        space: pairwise(values["adapted"]) / pairwise(values["source"])
        for space, values in (("pictures", pictures), ("features", features))
    }
    print(f"{name}: nearer to the target: {share}; diversity kept: {diversity}")
    assert share["adapted"] >= 0.9 and share["source"] <= 0.1
    assert diversity["pictures"] >= 0.5 and diversity["features"] >= 0.5

    if name == "nada_sketch":
        check_that_portraits_become_sketches(source, adapted, judge, texts)

    # What the recipe freezes is still the source's, bit by bit.
    freeze = Settings.read(config).freeze
    labels = freeze.row.labels(source.params, freeze)
    kept = jax.tree.map(
        lambda label, a, b: label != FROZEN or np.array_equal(a, b),
        labels, source.params, adapted.params,
    )  # fmt: skip
    assert all(jax.tree.leaves(kept))


def check_that_portraits_become_sketches(source, adapted, judge, texts):
    """Portraits that ship are drawn as sketches, and more like themselves by generators tuned for them.

    Args:
      source, adapted: the embedded generator, and what the recipe has made of it.
      judge: the CLIP that took no part in the training.
      texts: its features of the recipe's texts, source and target, [2, d].
    """
    portraits = [images.read(path, source.size) for path in sorted(EXAMPLES["avatars"].iterdir())]
    portraits = np.stack(portraits)
    networks = Networks(source, encoder=weights.load_encoder("encoder-avatar64"))
    codes = Codes(ws=encode(networks, portraits))
    draw = jax.jit(lambda generator, codes: codes.draw(generator))
    look = jax.jit(lambda judge, drawn: judge.embed_images(drawn))
    features = {
        kind: look(judge, draw(generator, codes))
        for kind, generator in (("source", source), ("adapted", adapted))
    }
    nearer = {
        kind: np.asarray(x @ texts.T)[:, 1] > (x @ texts.T)[:, 0] for kind, x in features.items()
    }
    assert nearer["adapted"].all() and not nearer["source"].any()

    one, codes = portraits[:1], codes[:1]  # of long hair, which the encoder cuts
    numbers = {"steps": 30, "lr": 1e-3, "enough": 0.0, "locality": 0.0, "radius": 1.0}
    keys = jax.random.split(jax.random.key(0), 1)
    (tuned,) = tune(networks, see(networks, one), codes, **numbers, keys=keys)
    drawn = {
        "untuned": draw(adapted, codes),
        "tuned": draw(transfer(adapted, source, tuned), codes),
    }
    apart = {kind: float(np.mean((np.asarray(x) - one) ** 2)) for kind, x in drawn.items()}
    features = {kind: look(judge, x)[0] for kind, x in (drawn | {"portrait": one}).items()}
    alike = {kind: float(features[kind] @ features["portrait"]) for kind in drawn}
    sketched = {kind: float(x @ (texts[1] - texts[0])) for kind, x in features.items()}
    print(f"tuned: mse to the portrait {apart}, cosine {alike}, towards sketch {sketched}")
    assert apart["tuned"] < 0.7 * apart["untuned"]
    assert alike["tuned"] > alike["untuned"] + 0.05
    assert sketched["tuned"] > sketched["portrait"] + 0.2  # it is drawn in the domain still
