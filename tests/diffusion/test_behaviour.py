"""What guidance does to images of the embedded model, over 16 seeds."""

import os

import jax
import numpy as np
import pytest

from nada_jax import images
from nada_jax.diffusion.objectives import Guide
from nada_jax.diffusion.sampling import prepare
from nada_jax.losses.style import KINDS
from nada_jax.weights.loading import load_clip, load_diffusion
from nada_jax.weights.registry import ASSETS

WEIGHTS = "avatar-diffusion"
PROMPT, OTHER = "a person with red hair and glasses", "a bald man with a beard"
SEEDS, STEPS = range(16), 10
LAYERS = ("relu1_1", "relu2_1")  # deeper ones take most of the time
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def reference():
    return images.read(ASSETS / "styles" / "mosaic.jpg", 64)[None]


@pytest.fixture(scope="module")
def drawn(make_sampling, make_guidance, reference):
    """drawn["free"] -> images [16, 64, 64, 3]: of the prompt, of the other one, guided, and guided after more free steps."""
    model = load_diffusion(WEIGHTS)
    sampling = make_sampling(steps=STEPS, scale=4.0)
    # Some steps are free in both, so that one program draws both; without any, so few steps lose the prompt.
    fields = {
        "loss": {"gram": 1.0}, "vgg": "lpips", "layers": LAYERS, "through": "estimate", "weight": 0.6,
        "boost": 1.5, "boost_from": 0.5,
    }  # fmt: skip
    guided, free = (make_guidance(free=share, **fields) for share in (0.2, 0.5))
    prepared = prepare(model, sampling, guided, [PROMPT, OTHER], reference=reference, chunk=STEPS)

    def draw(row, guidance):
        guide = None if guidance is None else prepared.guide
        contexts = prepared.contexts[row : row + 1]
        drawing = prepared.replace(contexts=contexts, guide=guide, guidance=guidance)
        state, _ = drawing.advance(drawing.start(SEEDS), 0)
        return np.asarray(drawing.decode(state.carry.x))

    ways = {"plain": (0, None), "other": (1, None), "guided": (0, guided), "free": (0, free)}
    quick = os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1"
    jax.config.update("jax_disable_most_optimizations", False)  # for many steps, as `full_compile`
    found = {way: draw(*how) for way, how in ways.items()}
    jax.config.update("jax_disable_most_optimizations", quick)
    return found


@pytest.fixture(scope="module")
def styles(drawn, make_guidance, reference):
    """styles["free"] -> mean distances from the style, by kind."""
    section = make_guidance(dict.fromkeys(KINDS, 1.0), vgg="lpips", layers=LAYERS)
    losses = jax.jit(Guide.load(section, 64, reference=reference).losses)
    return {
        way: {kind: float(x.mean()) for kind, x in losses(made).items()}
        for way, made in drawn.items()
    }


def test_guidance_halves_the_distance_from_the_style_and_the_prompt_is_still_seen(drawn, styles):
    """One test, since fixtures of a module are made again by each process of pytest."""
    # By the measure that guides, and by one that does not.
    assert styles["guided"]["gram"] < 0.5 * styles["plain"]["gram"]
    assert styles["guided"]["wasserstein"] < 0.7 * styles["plain"]["wasserstein"]

    # To a CLIP that took no part, guided images are nearer to what the prompt gives than to what another one does.
    judge = load_clip("avatar-p8")
    text = judge.embed_texts([PROMPT])[0]
    embed = jax.jit(judge.embed_images)
    fit = {way: float((embed(made) @ text).mean()) for way, made in drawn.items()}
    assert fit["guided"] - fit["other"] > 0.5 * (fit["plain"] - fit["other"]) > 0

    # Free steps at the start keep the images nearer to those of the same seeds that nothing guides.
    apart = {x: ((drawn[x] - drawn["plain"]) ** 2).mean(axis=(1, 2, 3)) for x in ("guided", "free")}
    assert apart["free"].mean() < 0.7 * apart["guided"].mean()
    assert (apart["free"] < apart["guided"]).mean() > 0.8
    assert styles["free"]["gram"] < styles["plain"]["gram"]
