"""Statistics of StyleSpace: what they say of channels, and that they are computed once."""

import dataclasses

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nada_jax.errors import UserError
from nada_jax.latents import statistics
from nada_jax.latents.statistics import Statistics, StatisticsArchitecture, StatisticsSettings
from nada_jax.models.clip import unit
from nada_jax.models.stylegan2 import Architecture, draw_latents

SETTINGS = StatisticsSettings(samples=2, seed=3)


@flax.struct.dataclass
class Eye:
    """In place of a CLIP: a linear function of the mean colours of quarters of an image."""

    params: dict
    config: str = flax.struct.field(pytree_node=False, default="{}")
    name: str = flax.struct.field(pytree_node=False, default="eye")
    precision: str = flax.struct.field(pytree_node=False, default="float32")
    mean = std = squash = None
    dim = 5

    def without_texts(self):
        return self

    def embed_images(self, images, antialias):
        quarters = images.reshape(len(images), 2, images.shape[1] // 2, 2, -1, 3).mean((2, 4))
        return unit(1 + quarters.reshape(len(images), 12) @ self.params["vision_model"]["kernel"])


@pytest.fixture(scope="module")
def eye():
    kernel = np.random.default_rng(0).standard_normal((12, 5), np.float32)
    return Eye({"vision_model": {"kernel": kernel}, "visual_projection": {}})


@pytest.fixture(scope="module")
def deep(random_generator):
    """128 pixels and eleven convolutions, whose names are not in the order of letters."""
    return random_generator(Architecture((2,) * 6, z_dim=4, w_dim=4, mapping_layers=1))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NADA_JAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "statistics"


@pytest.fixture(scope="module")
def found(deep, eye):
    return statistics.measure(deep, eye, SETTINGS, batch_size=7)


def test_effects_are_unit_mean_changes_of_the_feature_when_one_channel_moves(deep, eye, found):
    assert found.architecture == StatisticsArchitecture((2,) * 11, 5)
    ws = draw_latents(deep, jax.random.key(3), statistics.SPREAD)[:, 0]
    all_styles = deep.styles(ws)
    draw = jax.jit(lambda styles: eye.embed_images(deep.synthesize_styles(styles), True))
    for layer, channel in (("conv_2", 1), ("conv_10", 0)):
        spread = float(np.std(all_styles[layer][:, channel]))
        assert found.spreads[layer][channel] == pytest.approx(spread, rel=1e-4)
        changes = []
        for i in range(2):
            one = {name: s[i : i + 1] for name, s in all_styles.items()}
            ends = [
                draw(one | {layer: one[layer].at[0, channel].add(sign * 5 * spread)})[0]
                for sign in (-1, 1)
            ]
            changes.append(unit(ends[1] - ends[0]))
        expected = unit(sum(changes))
        np.testing.assert_allclose(found.effects[layer][channel], expected, atol=1e-3)


def test_a_direction_moves_channels_by_relevance_and_spread_and_leaves_others(found):
    aim = np.asarray(found.effects["conv_3"][0])
    direction, figures = found.toward(aim, 0.9)
    assert figures["relevance"] == pytest.approx(1, abs=1e-5)
    step = direction.steps["conv_3"][0]
    assert step == pytest.approx(float(found.spreads["conv_3"][0]), rel=1e-5)
    moved = sum(int(np.count_nonzero(x)) for x in direction.steps.values())
    assert 1 <= moved == figures["channels"]
    for name, effect in found.effects.items():
        np.testing.assert_array_equal(direction.steps[name] != 0, np.abs(effect @ aim) >= 0.9)
    assert found.toward(aim, 0.0)[1]["channels"] == 22
    with pytest.raises(UserError, match=r"find.beta is 1.5; expected at most 1, the relevance"):
        found.toward(aim, 1.5, field="find.beta")


def test_statistics_are_computed_once_for_a_generator_and_a_clip(deep, eye, cache, monkeypatch):
    computed = []

    def measure(generator, clip, settings, **_):
        computed.append(settings)
        return made(generator, clip)

    def made(generator, clip):
        ones = {f"conv_{i}": jnp.ones((2, 5)) for i in range(11)}
        spreads = {name: jnp.full(2, float(len(computed))) for name in ones}
        return Statistics(ones, spreads, StatisticsArchitecture((2,) * 11, 5))

    monkeypatch.setattr(statistics, "measure", measure)

    def load(generator=deep, clip=eye, settings=SETTINGS):
        return float(statistics.load(generator, clip, settings, batch_size=2).spreads["conv_0"][0])

    assert [load(), load(), len(list(cache.iterdir()))] == [1, 1, 1]
    # Whatever they follow from makes other ones.
    assert load(settings=dataclasses.replace(SETTINGS, samples=3)) == 2
    assert load(generator=deep.replace(latent_avg=deep.latent_avg + 1)) == 3
    other = {"vision_model": {"kernel": eye.params["vision_model"]["kernel"] * 2}}
    assert load(clip=eye.replace(params=eye.params | other)) == 4
    assert load() == 1


def test_a_damaged_cache_is_computed_anew_and_a_closed_one_does_no_harm(
    deep, eye, found, cache, monkeypatch, capsys
):
    computed = []
    monkeypatch.setattr(statistics, "measure", lambda *_, **__: computed.append(1) or found)
    path = statistics.file(deep, eye, SETTINGS)
    for content in (b"", b"\0" * 100):
        cache.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        statistics.load(deep, eye, SETTINGS, batch_size=2)
        assert "the statistics are computed anew" in capsys.readouterr().out
    statistics.load(deep, eye, SETTINGS, batch_size=2)
    assert len(computed) == 2
    monkeypatch.setenv("NADA_JAX_CACHE", str(path))  # a file in place of a directory
    statistics.load(deep, eye, SETTINGS, batch_size=2)
    assert len(computed) == 3 and "the statistics are not kept" in capsys.readouterr().out
