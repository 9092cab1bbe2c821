import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nada_jax import trees
from nada_jax.adaptation.freezing import adaptive
from nada_jax.adaptation.freezing.fixed import latent_of_layer
from nada_jax.adaptation.freezing.optimizer import masked, schedule, when_chosen
from nada_jax.adaptation.freezing.strategy import ALWAYS, FROZEN
from nada_jax.errors import UserError
from nada_jax.models.stylegan2_networks import Architecture, init_params

LATENTS = 18  # of the 1024-pixel generator
CONVS = [f"conv_{i}" for i in range(17)]
RGBS = [f"to_rgb_{i}" for i in range(9)]


def official(*convs):
    """Our names of the official convs[j]; the official conv1 is our conv_0."""
    return {f"conv_{j + 1}" for j in convs}


@pytest.fixture(scope="module")
def labels_of(make_settings):
    """labels_of(params, strategy="late", k=2) -> the label of every array."""

    def label(params, **fields):
        freeze = make_settings({f"freeze.{name}": value for name, value in fields.items()}).freeze
        return freeze.row.labels(params, freeze)

    return label


@pytest.fixture(scope="module")
def layers_of(labels_of):
    """layers_of(strategy="late", k=2) -> the label of each layer of the 1024-pixel generator that may train."""
    architecture = Architecture(channels=(1,) * 9, z_dim=1, w_dim=1, mapping_layers=1)
    shapes = jax.eval_shape(lambda: init_params(architecture, jax.random.key(0)))

    def label(**fields):
        layers = labels_of(shapes, **fields)["synthesis"]
        found = {name: set(jax.tree.leaves(tree)) for name, tree in layers.items()}
        assert all(len(labels) == 1 for labels in found.values())
        return {name: labels.pop() for name, labels in found.items() if labels != {FROZEN}}

    return label


# -- which layers ---------------------------------------------------------------------------------------


def test_the_corrected_map_follows_the_wiring(tiny_generator):
    """A layer belongs to the latent that alone changes its style."""
    layers = latent_of_layer(6, "corrected")
    changes = jax.jit(jax.jacrev(tiny_generator.styles))(jnp.zeros((1, 6, 8)))
    driven = {
        name: np.flatnonzero(np.abs(change).sum(axis=(0, 1, 2, 4))).tolist()
        for name, change in changes.items()
    }
    assert driven == {name: [latent] for name, latent in layers.items()}


def test_the_official_map_is_that_of_the_official_code():
    layers = latent_of_layer(LATENTS, "official")
    expected = {"conv_0": 0, "to_rgb_0": 1}  # conv1 and to_rgb1
    expected |= {name: j for j in range(2, LATENTS) for name in official(j - 2)}
    assert layers == expected


@pytest.mark.parametrize(
    ("phase", "expected"),
    [
        ("texture", {"conv_0"} | official(*range(2, 10))),
        ("shape", {"conv_0"} | official(0, 1)),
        ("shape_expanded", {"conv_0"} | official(0, 1, 2)),
        ("no_fine", {"conv_0"} | official(*range(10))),
        ("all", {*CONVS, *RGBS}),
    ],
)
def test_each_phase_trains_the_official_layers(phase, expected, layers_of):
    trained = layers_of(strategy="phase", phase=phase)
    assert trained == dict.fromkeys({"constant"} | expected, ALWAYS)


def test_none_trains_the_constant_and_every_convolution(layers_of):
    assert layers_of(strategy="none") == dict.fromkeys(["constant", *CONVS], ALWAYS)


def test_late_trains_what_the_last_latents_drive(layers_of):
    last = {"conv_15", "conv_16", "to_rgb_7", "to_rgb_8"}
    assert layers_of(strategy="late", k=3) == dict.fromkeys(last, ALWAYS)
    assert set(layers_of(strategy="late", k=LATENTS)) == {*CONVS, *RGBS}
    assert set(layers_of(strategy="late", k=2, parity="official")) == official(14, 15)


def test_adaptive_labels_each_layer_with_its_latent(layers_of):
    trained = layers_of(strategy="adaptive", k=3)
    assert trained["conv_4"] == 4
    assert trained["to_rgb_2"] == trained["conv_5"] == 5
    assert "constant" not in trained


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"strategy": "some"}, "freeze.strategy is 'some'; expected one of none, phase, late"),
        ({"strategy": "phase", "phase": "hair"}, "freeze.phase is 'hair'; expected one of texture"),
        ({"strategy": "late", "k": 0}, "freeze.k is 0; expected a whole number from 1"),
        ({"strategy": "late", "k": 19}, "freeze.k is 19; expected 1..18, the latents"),
        ({"strategy": "adaptive", "k": 19}, "freeze.k is 19; expected 1..18, the latents"),
        (
            {"strategy": "adaptive_parameters", "k": 200},
            "freeze.k is 200; expected 1..122, the tensors",
        ),
        (
            {"strategy": "late", "parity": "exact"},
            "freeze.parity is 'exact'; expected one of corrected",
        ),
    ],
)
def test_unknown_values_are_named_with_the_known_ones(arguments, said, layers_of):
    with pytest.raises(UserError, match=said):
        layers_of(**arguments)


def test_labels_cover_every_parameter_and_freeze_the_mapping(tiny_generator, labels_of):
    labels = labels_of(tiny_generator.params, strategy="phase", phase="all")
    assert jax.tree.structure(labels) == jax.tree.structure(tiny_generator.params)
    assert set(jax.tree.leaves(labels["mapping"])) == {FROZEN}
    assert set(jax.tree.leaves(labels["synthesis"])) == {ALWAYS}


def test_modulation_labels_leave_the_weights_and_biases_of_convolutions(tiny_generator, labels_of):
    whole, part = (
        trees.flatten(labels_of(tiny_generator.params, strategy=strategy, k=2))
        for strategy in ("adaptive", "adaptive_modulation")
    )
    frozen = {path for path, label in part.items() if label == FROZEN != whole[path]}
    layers = [f"conv_{i}" for i in range(5)] + [f"to_rgb_{i}" for i in range(3)]
    assert frozen == {
        f"synthesis.{layer}.{part}" for layer in layers for part in ("weight", "bias")
    }
    assert all(label == whole[path] for path, label in part.items() if path not in frozen)
    assert part["synthesis.conv_3.noise_strength"] == 3
    assert part["synthesis.to_rgb_1.modulation.weight"] == 3


# -- optimisers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "strategy",
    [{"strategy": "none"}, {"strategy": "phase", "phase": "shape"}, {"strategy": "late", "k": 2}],
)
def test_frozen_parameters_hold_no_optimiser_state_and_rest(tiny_generator, strategy, labels_of):
    params = tiny_generator.params
    labels = labels_of(params, **strategy)
    optimizer = masked(lambda: optax.adam(0.1, 0.0, 0.99), labels)
    state = optimizer.init(params)
    moments = [leaf for leaf in jax.tree.leaves(state) if leaf.dtype != jnp.int32]
    trained = [
        leaf
        for leaf, label in zip(jax.tree.leaves(params), jax.tree.leaves(labels), strict=True)
        if label == ALWAYS
    ]
    assert sum(leaf.size for leaf in moments) == 2 * sum(leaf.size for leaf in trained)
    chosen = jnp.zeros(6, bool)
    updates, _ = optimizer.update(jax.tree.map(jnp.ones_like, params), state, params, chosen=chosen)
    moves = jax.tree.map(
        lambda update, label: bool(update.any()) == (label == ALWAYS), updates, labels
    )
    assert all(jax.tree.leaves(moves))


def test_unchosen_layers_rest_bit_for_bit_and_a_new_choice_compiles_nothing(
    tiny_generator, labels_of
):
    labels = labels_of(tiny_generator.params, strategy="adaptive", k=2)
    optimizer = masked(lambda: optax.adam(0.1, 0.0, 0.99), labels)
    traces = 0

    @jax.jit
    def step(params, state, grads, chosen):
        nonlocal traces
        traces += 1
        updates, state = optimizer.update(grads, state, params, chosen=chosen)
        return optax.apply_updates(params, updates), state

    def same(one, other):
        pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
        return [bool((a == b).all()) for a, b in pairs]

    params = tiny_generator.params
    state = optimizer.init(params)
    for i, choice in enumerate(([0, 5], [3, 5], [0, 1], [2, 4])):
        grads = jax.tree.map(lambda x, i=i: x + i + 0.5, params)
        chosen = jnp.zeros(6, bool).at[jnp.array(choice)].set(True)
        new_params, new_state = step(params, state, grads, chosen)
        for label, still in zip(jax.tree.leaves(labels), same(params, new_params), strict=True):
            assert still == (label not in choice)
        for label in range(6):
            before, after = (s.inner_states[label] for s in (state, new_state))
            # Moments of every array, and the count of steps.
            assert set(same(before, after)) == {label not in choice}
        params, state = new_params, new_state
    assert traces == 1


def test_clipping_measures_what_trains_alone(tiny_generator, labels_of):
    labels = labels_of(tiny_generator.params, strategy="adaptive", k=2)
    optimizer = masked(lambda: optax.sgd(1.0), labels, clip=0.5)
    params = tiny_generator.params
    chosen = jnp.zeros(6, bool).at[jnp.array([1, 4])].set(True)
    grads = jax.tree.map(
        lambda x, label: jnp.full_like(x, 3.0 if label in (1, 4) else 1e6),
        params, labels,
    )  # fmt: skip
    updates, _ = optimizer.update(grads, optimizer.init(params), params, chosen=chosen)
    assert optax.tree.norm(updates) == pytest.approx(0.5, rel=1e-5)
    small = jax.tree.map(lambda x: x * 1e-6, grads)
    updates, _ = optimizer.update(small, optimizer.init(params), params, chosen=chosen)
    assert float(updates["synthesis"]["conv_1"]["bias"][0]) == pytest.approx(-3e-6)


def test_the_schedule_counts_all_steps(tiny_generator, labels_of):
    labels = labels_of(tiny_generator.params, strategy="adaptive", k=1)
    falling = optax.linear_schedule(1.0, 0.0, 4)
    optimizer = masked(lambda: optax.sgd(1.0), labels, schedule=falling)
    params, lengths = tiny_generator.params, []
    state = optimizer.init(params)
    for latent in (0, 1, 1, 0, 0):
        chosen = jnp.arange(6) == latent
        grads = jax.tree.map(jnp.ones_like, params)
        updates, state = optimizer.update(grads, state, params, chosen=chosen)
        lengths.append(float(updates["synthesis"][f"conv_{latent}"]["bias"][0]))
    assert lengths == [-1.0, -0.75, -0.5, -0.25, 0.0]


def test_the_schedule_rises_and_falls():
    factor = schedule(warmup=3, decay=4)
    lengths = [float(factor(step)) for step in range(9)]
    assert lengths[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert lengths[5] == pytest.approx((1 + np.cos(np.pi * 2 / 4)) / 2)
    assert lengths[7:] == pytest.approx([0.0, 0.0], abs=1e-6)
    assert [float(schedule(2, 0)(step)) for step in (0, 2, 99)][1:] == [1.0, 1.0]
    assert schedule(0, 0) is None


def test_a_layer_trains_as_if_the_steps_without_it_had_not_been():
    gated, plain = when_chosen(optax.adam(0.1), 1), optax.adam(0.1)
    one = other = jnp.array([1.0, -2.0])
    gated_state, plain_state = gated.init(one), plain.init(other)
    for i, keep in enumerate([False, True, True, False, False, True]):
        grads = jnp.array([i + 1.0, -0.5 * i])
        chosen = jnp.array([not keep, keep])
        updates, gated_state = gated.update(grads, gated_state, one, chosen=chosen)
        one = optax.apply_updates(one, updates)
        if keep:
            updates, plain_state = plain.update(grads, plain_state, other)
            other = optax.apply_updates(other, updates)
    np.testing.assert_array_equal(one, other)


# -- the choice -----------------------------------------------------------------------------------------


def test_scores_are_how_far_gradient_descent_moves_each_latent(make_settings, assert_close):
    ws = jax.random.normal(jax.random.key(0), (2, 4, 3))
    pull = jnp.array([0.0, 1.0, 2.0, 3.0])[:, None]
    loss = lambda params, w: jnp.sum(pull * w**2) / 2  # noqa: E731
    shrunk = (1 - 0.01 * pull) ** 3
    expected = jnp.abs(ws - shrunk * ws).mean(axis=(0, 2))
    freeze = make_settings({"freeze.iterations": 3}).freeze
    assert_close(adaptive.latent_scores(loss, {}, ws, freeze), expected, 1e-5)


@pytest.mark.parametrize("relative", [False, True])
def test_scores_of_tensors_are_how_far_a_copy_moves_them(relative, make_settings, assert_close):
    values = jnp.array([[4.0, -2.0], [0.5, 0.1]])
    params = {"synthesis": {"b": values[0], "a": {"c": values[1]}}, "mapping": jnp.ones(3)}
    pull = {"synthesis": {"b": 1.0, "a": {"c": 3.0}}, "mapping": 0.0}

    def loss(params, ws):
        halves = jax.tree.map(lambda pull, p: pull * jnp.sum(p**2) / 2, pull, params)
        return sum(jax.tree.leaves(halves))

    assert adaptive.tensors(params) == ["a.c", "b"]
    moved = 1 - (1 - 0.01 * np.array([3.0, 1.0])) ** 2
    lengths = np.array([1.0, 1.0]) if relative else np.array([0.3, 3.0])
    measure = "relative" if relative else "absolute"
    freeze = make_settings({"freeze.iterations": 2, "freeze.measure": measure}).freeze
    scores = adaptive.tensor_scores(loss, params, jnp.zeros(1), freeze)
    assert_close(scores, moved * lengths, 1e-5)
    assert adaptive.choose(scores, 1).tolist() == ([True, False] if relative else [False, True])


def test_choose_takes_the_k_highest():
    chosen = adaptive.choose(jnp.array([0.1, 0.5, 0.2, 0.4]), 2)
    assert chosen.tolist() == [False, True, False, True]
    assert adaptive.choose(jnp.zeros(5), 3).sum() == 3
