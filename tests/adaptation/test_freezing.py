import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nada_jax import trees
from nada_jax.adaptation.freezing import strategies as freezing
from nada_jax.errors import UserError

LATENTS = 18  # of the 1024-pixel generator
CONVS = [f"conv_{i}" for i in range(17)]
RGBS = [f"to_rgb_{i}" for i in range(9)]


def official(*convs):
    """Our names of the official convs[j]; the official conv1 is our conv_0."""
    return {f"conv_{j + 1}" for j in convs}


# -- which layers ---------------------------------------------------------------------------------------


def test_the_corrected_map_follows_the_wiring(tiny_generator):
    """A layer belongs to the latent that alone changes its style."""
    layers = freezing.latent_of_layer(6, "corrected")
    changes = jax.jit(jax.jacrev(tiny_generator.styles))(jnp.zeros((1, 6, 8)))
    driven = {
        name: np.flatnonzero(np.abs(change).sum(axis=(0, 1, 2, 4))).tolist()
        for name, change in changes.items()
    }
    assert driven == {name: [latent] for name, latent in layers.items()}


def test_the_official_map_is_that_of_the_official_code():
    layers = freezing.latent_of_layer(LATENTS, "official")
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
def test_each_phase_trains_the_official_layers(phase, expected):
    trained = freezing.trained_layers(LATENTS, "phase", phase=phase)
    assert trained == dict.fromkeys({"constant"} | expected, "train")


def test_none_trains_the_constant_and_every_convolution():
    trained = freezing.trained_layers(LATENTS, "none")
    assert trained == dict.fromkeys(["constant", *CONVS], "train")


def test_late_trains_what_the_last_latents_drive():
    assert set(freezing.trained_layers(LATENTS, "late", k=3)) == {"conv_15", "conv_16"} | {
        "to_rgb_7",
        "to_rgb_8",
    }
    everything = freezing.trained_layers(LATENTS, "late", k=LATENTS)
    assert set(everything) == {*CONVS, *RGBS}
    late = freezing.trained_layers(LATENTS, "late", k=2, parity="official")
    assert set(late) == official(14, 15)


def test_adaptive_labels_each_layer_with_its_latent():
    trained = freezing.trained_layers(LATENTS, "adaptive", k=3)
    assert trained["conv_4"] == "latent_4"
    assert trained["to_rgb_2"] == trained["conv_5"] == "latent_5"
    assert "constant" not in trained


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"strategy": "some"}, "freeze.strategy is 'some'; expected one of none, phase, late"),
        ({"strategy": "phase", "phase": "hair"}, "freeze.phase is 'hair'; expected one of texture"),
        ({"strategy": "late", "k": 0}, "freeze.k is 0; .* 18 latents, give 1..18"),
        ({"strategy": "adaptive", "k": 19}, "freeze.k is 19; .* 18 latents, give 1..18"),
        (
            {"strategy": "late", "parity": "exact"},
            "freeze.parity is 'exact'; expected one of corrected",
        ),
    ],
)
def test_unknown_values_are_told_with_the_known_ones(arguments, said):
    with pytest.raises(UserError, match=said):
        freezing.trained_layers(LATENTS, **arguments)


def test_labels_cover_every_parameter_and_freeze_the_mapping(tiny_generator):
    labels = freezing.labels(tiny_generator.params, 6, "phase", phase="all")
    assert jax.tree.structure(labels) == jax.tree.structure(tiny_generator.params)
    assert set(jax.tree.leaves(labels["mapping"])) == {"frozen"}
    assert set(jax.tree.leaves(labels["synthesis"])) == {"train"}


def test_modulation_labels_leave_the_weights_and_biases_of_convolutions(tiny_generator):
    whole, part = (
        trees.flatten(freezing.labels(tiny_generator.params, 6, strategy, k=2))
        for strategy in ("adaptive", "adaptive_modulation")
    )
    frozen = {path for path, label in part.items() if label == "frozen" != whole[path]}
    layers = [f"conv_{i}" for i in range(5)] + [f"to_rgb_{i}" for i in range(3)]
    assert frozen == {
        f"synthesis.{layer}.{part}" for layer in layers for part in ("weight", "bias")
    }
    assert all(label == whole[path] for path, label in part.items() if path not in frozen)
    assert part["synthesis.conv_3.noise_strength"] == "latent_3"
    assert part["synthesis.to_rgb_1.modulation.weight"] == "latent_3"


# -- optimisers -----------------------------------------------------------------------------------------


def make(generator, **strategy):
    labels = freezing.labels(generator.params, 6, **strategy)
    return freezing.optimizer(lambda: optax.adam(0.1, 0.0, 0.99), labels), labels


@pytest.mark.parametrize(
    "strategy",
    [{"strategy": "none"}, {"strategy": "phase", "phase": "shape"}, {"strategy": "late", "k": 2}],
)
def test_frozen_parameters_hold_no_optimiser_state_and_rest(tiny_generator, strategy):
    params = tiny_generator.params
    optimizer, labels = make(tiny_generator, **strategy)
    state = optimizer.init(params)
    moments = [leaf for leaf in jax.tree.leaves(state) if leaf.dtype != jnp.int32]
    trained = [
        leaf
        for leaf, label in zip(jax.tree.leaves(params), jax.tree.leaves(labels), strict=True)
        if label == "train"
    ]
    assert sum(leaf.size for leaf in moments) == 2 * sum(leaf.size for leaf in trained)
    chosen = jnp.zeros(6, bool)
    updates, _ = optimizer.update(jax.tree.map(jnp.ones_like, params), state, params, chosen=chosen)
    moves = jax.tree.map(
        lambda update, label: bool(update.any()) == (label == "train"), updates, labels
    )
    assert all(jax.tree.leaves(moves))


def test_unchosen_layers_rest_bit_for_bit_and_a_new_choice_compiles_nothing(tiny_generator):
    optimizer, labels = make(tiny_generator, strategy="adaptive", k=2)
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
        train = {f"latent_{j}" for j in choice}
        for label, still in zip(jax.tree.leaves(labels), same(params, new_params), strict=True):
            assert still == (label not in train)
        for label in (f"latent_{j}" for j in range(6)):
            before, after = (s.inner_states[label] for s in (state, new_state))
            # Moments of every array, and the count of steps.
            assert set(same(before, after)) == {label not in train}
        params, state = new_params, new_state
    assert traces == 1


def test_clipping_measures_what_trains_alone(tiny_generator):
    labels = freezing.labels(tiny_generator.params, 6, "adaptive", k=2)
    optimizer = freezing.optimizer(lambda: optax.sgd(1.0), labels, clip=0.5)
    params = tiny_generator.params
    chosen = jnp.zeros(6, bool).at[jnp.array([1, 4])].set(True)
    grads = jax.tree.map(
        lambda x, label: jnp.full_like(x, 3.0 if label in ("latent_1", "latent_4") else 1e6),
        params, labels,
    )  # fmt: skip
    updates, _ = optimizer.update(grads, optimizer.init(params), params, chosen=chosen)
    assert optax.tree.norm(updates) == pytest.approx(0.5, rel=1e-5)
    small = jax.tree.map(lambda x: x * 1e-6, grads)
    updates, _ = optimizer.update(small, optimizer.init(params), params, chosen=chosen)
    assert float(updates["synthesis"]["conv_1"]["bias"][0]) == pytest.approx(-3e-6)


def test_the_schedule_counts_all_steps(tiny_generator):
    labels = freezing.labels(tiny_generator.params, 6, "adaptive", k=1)
    schedule = optax.linear_schedule(1.0, 0.0, 4)
    optimizer = freezing.optimizer(lambda: optax.sgd(1.0), labels, schedule=schedule)
    params, lengths = tiny_generator.params, []
    state = optimizer.init(params)
    for latent in (0, 1, 1, 0, 0):
        chosen = jnp.arange(6) == latent
        grads = jax.tree.map(jnp.ones_like, params)
        updates, state = optimizer.update(grads, state, params, chosen=chosen)
        lengths.append(float(updates["synthesis"][f"conv_{latent}"]["bias"][0]))
    assert lengths == [-1.0, -0.75, -0.5, -0.25, 0.0]


def test_a_layer_trains_as_if_the_steps_without_it_had_not_been():
    gated, plain = freezing.when_chosen(optax.adam(0.1), 1), optax.adam(0.1)
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


def test_scores_are_how_far_gradient_descent_moves_each_latent(assert_close):
    ws = jax.random.normal(jax.random.key(0), (2, 4, 3))
    pull = jnp.array([0.0, 1.0, 2.0, 3.0])[:, None]
    loss = lambda w: jnp.sum(pull * w**2) / 2  # noqa: E731
    shrunk = (1 - 0.01 * pull) ** 3
    expected = jnp.abs(ws - shrunk * ws).mean(axis=(0, 2))
    assert_close(freezing.latent_scores(jax.grad(loss), ws, iterations=3), expected, 1e-5)


@pytest.mark.parametrize("relative", [False, True])
def test_scores_of_tensors_are_how_far_a_copy_moves_them(relative, assert_close):
    values = jnp.array([[4.0, -2.0], [0.5, 0.1]])
    params = {"synthesis": {"b": values[0], "a": {"c": values[1]}}, "mapping": jnp.ones(3)}
    pull = {"synthesis": {"b": 1.0, "a": {"c": 3.0}}, "mapping": 0.0}
    gradient = lambda p: jax.tree.map(jnp.multiply, pull, p)  # noqa: E731
    assert freezing.tensors(params) == ["a.c", "b"]
    moved = 1 - (1 - 0.01 * np.array([3.0, 1.0])) ** 2
    lengths = np.array([1.0, 1.0]) if relative else np.array([0.3, 3.0])
    scores = freezing.tensor_scores(gradient, params, 2, relative)
    assert_close(scores, moved * lengths, 1e-5)
    assert freezing.choose(scores, 1).tolist() == ([True, False] if relative else [False, True])


def test_choose_takes_the_k_highest():
    chosen = freezing.choose(jnp.array([0.1, 0.5, 0.2, 0.4]), 2)
    assert chosen.tolist() == [False, True, False, True]
    assert freezing.choose(jnp.zeros(5), 3).sum() == 3
