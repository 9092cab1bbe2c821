"""Which parameters train: strategies -> labels for `optax.multi_transform`.

A layer is `constant`, `conv_i` or `to_rgb_i` of the synthesis network. The mapping network never trains: both
generators draw the same w from it.

| strategy | trains |
| --- | --- |
| none | the constant and every convolution (the official default) |
| phase | one of `PHASES`, named as in the official code |
| late | the layers that the last k latents drive |
| adaptive | at every selection, the layers of the k latents that a short W+ optimisation moved most |
| adaptive_modulation | of these layers only the modulation (w -> style) and the strength of the noise |
| adaptive_parameters | at every selection, the k tensors that a short training of a copy moved most |
| style_space | what is added to the styles of convolutions, the same for every picture: `models.style_delta` |
| low_rank | factors of what is added to the weights of convolutions: `low_rank` |
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from nada_jax import trees
from nada_jax.adaptation.freezing import low_rank
from nada_jax.errors import UserError

ADAPTIVE = ("adaptive", "adaptive_modulation", "adaptive_parameters")  # choose again and again
STRATEGIES = ("none", "phase", "late", *ADAPTIVE, "style_space", "low_rank")
# Strategy -> how the names begin of what trains of a layer; by default all of it. A style is a product of the
# latent plus `modulation.bias`.
PARTS = {
    "adaptive_modulation": ("modulation", "noise_strength"),
    "style_space": ("modulation.bias",),
}
MEASURES = ("absolute", "relative")
PARITIES = ("corrected", "official")
FROZEN = "frozen"
EPS = 1e-8  # tensors that start at 0 count as this small

# Convolutions that each phase of the official code trains, beside the constant: convs[j] is conv_{j+1}.
PHASES: Mapping[str, Callable[[int], bool]] = {
    "texture": lambda i: i == 0 or 3 <= i <= 10,
    "shape": lambda i: i <= 2,
    "shape_expanded": lambda i: i <= 3,
    "no_fine": lambda i: i <= 10,
    "all": lambda i: True,
}


def latent_of_layer(num_layers: int, parity: str = "corrected") -> dict[str, int]:
    """The latent whose choice trains a layer.

    Args:
      num_layers: latents per image, l.
      parity: "corrected" follows the wiring: latent j drives conv_j, and to_rgb_{j // 2} where j is odd.
        "official" is off by one, as the official code is: 0 -> conv_0, 1 -> to_rgb_0, j -> conv_{j-1}.

    Returns:
      {layer name: latent index}; layers that are not named never train.
    """
    if parity == "corrected":
        convs = {f"conv_{j}": j for j in range(num_layers - 1)}
        return convs | {f"to_rgb_{j // 2}": j for j in range(1, num_layers, 2)}
    if parity == "official":
        convs = {f"conv_{j - 1}": j for j in range(2, num_layers)}
        return {"conv_0": 0, "to_rgb_0": 1} | convs
    raise UserError(f"freeze.parity is {parity!r}; expected one of {', '.join(PARITIES)}")


def trained_layers(
    num_layers: int, strategy: str, *, phase: str = "all", k: int = 1, parity: str = "corrected"
) -> dict[str, str]:
    """Labels of the layers that train, or may be chosen to.

    Args:
      num_layers: latents per image, l.
      strategy: one of `STRATEGIES`.
      phase: one of `PHASES`, for the strategy "phase".
      k: number of latents, for "late", "adaptive" and "adaptive_modulation"; in 1..l.
      parity: for the same, see `latent_of_layer`.

    Returns:
      {layer name: label}; the label is "train", or "latent_j" where latents are chosen again and again.

    Raises:
      UserError: an unknown strategy or phase, or k outside 1..l.
    """
    convs = range(num_layers - 1)
    if strategy in ("none", "style_space"):
        return {"constant": "train"} | {f"conv_{i}": "train" for i in convs}
    if strategy == "phase":
        if phase not in PHASES:
            raise UserError(f"freeze.phase is {phase!r}; expected one of {', '.join(PHASES)}")
        layers = ["constant", *(f"conv_{i}" for i in convs if PHASES[phase](i))]
        if phase == "all":
            layers += [f"to_rgb_{i}" for i in range(num_layers // 2)]
        return dict.fromkeys(layers, "train")
    if strategy not in STRATEGIES:
        raise UserError(f"freeze.strategy is {strategy!r}; expected one of {', '.join(STRATEGIES)}")
    _check_k(k, num_layers, "latents")
    latents = latent_of_layer(num_layers, parity)
    if strategy == "late":
        return {name: "train" for name, j in latents.items() if j >= num_layers - k}
    return {name: f"latent_{j}" for name, j in latents.items()}


def labels(
    params: Mapping[str, Any], num_layers: int, strategy: str, **choice: Any
) -> dict[str, Any]:
    """The label of every parameter.

    Args:
      params: like `Generator.params`, of arrays or shapes.
      num_layers, strategy, choice: see `trained_layers`; for "adaptive_parameters" k counts tensors.

    Returns:
      A tree like `params`: the label of the layer where the array trains, else `FROZEN`. Tensors that are
      chosen one by one have "tensor_j"; "low_rank" labels what `low_rank.add` puts beside the rest.

    Raises:
      UserError: as `trained_layers`.
    """
    if strategy == "adaptive_parameters":
        names = tensors(params)
        _check_k(choice.get("k", 1), len(names), "tensors")
        trained = {f"synthesis.{name}": f"tensor_{j}" for j, name in enumerate(names)}
        flat = trees.flatten(params)
        return trees.unflatten({path: trained.get(path, FROZEN) for path in flat})
    if strategy == "low_rank":
        return jax.tree.map(lambda _: FROZEN, dict(params)) | low_rank.labels(num_layers, "train")
    trained = trained_layers(num_layers, strategy, **choice)
    parts = PARTS.get(strategy, "")

    def label(path, _):
        network, layer, *part = (step.key for step in path)
        trains = network == "synthesis" and ".".join(part).startswith(parts)
        return trained.get(layer, FROZEN) if trains else FROZEN

    return jax.tree_util.tree_map_with_path(label, params)


def _check_k(k: int, count: int, what: str) -> None:
    """Refuses a choice of k out of `count`."""
    if not 1 <= k <= count:
        raise UserError(f"freeze.k is {k}; this generator has {count} {what}, give 1..{count}")


def tensors(params: Mapping[str, Any]) -> list[str]:
    """Names of the tensors that "adaptive_parameters" chooses from: all of the synthesis network."""
    return sorted(trees.flatten(params["synthesis"]))


def candidates(params: Mapping[str, Any], num_layers: int, strategy: str) -> list[str]:
    """Names of what one of `ADAPTIVE` chooses from, by the index of their label."""
    if strategy == "adaptive_parameters":
        return tensors(params)
    return [f"latent {j}" for j in range(num_layers)]


def optimizer(
    inner: Callable[[], optax.GradientTransformation],
    labels: Any,
    clip: float = 0.0,
    schedule: optax.Schedule | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Gives each label its own optimiser; frozen arrays get zero updates and hold no state.

    Args:
      inner: makes the optimiser of one label.
      labels: see `labels`.
      clip: largest norm of the gradient of all that trains in a step; 0 leaves it as it is.
      schedule: step -> what updates are multiplied by. It counts all steps, whatever they train.

    Returns:
      A transformation whose `update` takes `chosen`, bool [l] where there are "latent_j" labels, or one for
      each of the tensors where there are "tensor_j".
    """
    names = set(jax.tree.leaves(labels))
    transforms = {FROZEN: optax.set_to_zero()}
    for name in names - {FROZEN}:
        index = _index(name)
        transforms[name] = inner() if index is None else when_chosen(inner(), index)
    result = optax.multi_transform(transforms, labels)
    if clip:
        result = optax.chain(_only_trained(labels), optax.clip_by_global_norm(clip), result)
    return result if schedule is None else optax.chain(result, optax.scale_by_schedule(schedule))


def _index(label: str) -> int | None:
    """The j of "latent_j" and "tensor_j"."""
    j = label.rpartition("_")[2]
    return int(j) if j.isdigit() else None


def _only_trained(labels: Any) -> optax.GradientTransformationExtraArgs:
    """Gradients of what does not train in a step become 0."""

    def update(updates, state, params=None, *, chosen, **_):
        def keep(label, x):
            if label == FROZEN:
                return jnp.zeros_like(x)
            index = _index(label)
            return x if index is None else jnp.where(chosen[index], x, 0)

        return jax.tree.map(keep, labels, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def when_chosen(
    inner: optax.GradientTransformation, index: int
) -> optax.GradientTransformationExtraArgs:
    """Runs `inner` in the steps that choose `index`; else updates are zero and its state rests.

    Neither moments nor the step count of a layer move while it is frozen, as in PyTorch >= 2. The choice is
    traced, so it changes from step to step without a new compilation.
    """

    def update(updates, state, params=None, *, chosen, **_):
        new_updates, new_state = inner.update(updates, state, params)
        keep = chosen[index]
        new_updates = jax.tree.map(lambda u: jnp.where(keep, u, 0), new_updates)
        return new_updates, jax.tree.map(lambda n, o: jnp.where(keep, n, o), new_state, state)

    return optax.GradientTransformationExtraArgs(inner.init, update)


def descend(gradient: Callable[[Any], Any], start: Any, iterations: int, lr: float = 0.01) -> Any:
    """How far plain gradient descent moves from `start`, a tree of arrays; a tree like it."""

    def step(_, moved):
        here = jax.tree.map(jnp.add, start, moved)
        return jax.tree.map(lambda x, g: x - lr * g, moved, gradient(here))

    nothing = jax.tree.map(jnp.zeros_like, start)
    # XLA's kernel gradients for CPU are ten times slower within a loop over the kernels.
    unroll = not isinstance(start, jax.Array)
    return jax.lax.fori_loop(0, iterations, step, nothing, unroll=unroll)


def latent_scores(
    gradient: Callable[[jax.Array], jax.Array], ws: jax.Array, iterations: int
) -> jax.Array:
    """How far each latent moves in a short optimisation of W+, Gal et al. 2022, section 4.3.

    Args:
      gradient: that of a scalar loss by ws, [n, l, w_dim] -> [n, l, w_dim].
      ws: start [n, l, w_dim].
      iterations: steps of plain gradient descent.

    Returns:
      mean |w - w0| over batch and channels, [l].
    """
    return jnp.mean(jnp.abs(descend(gradient, ws, iterations)), axis=(0, 2))


def tensor_scores(
    gradient: Callable[[Any], Any], params: Mapping[str, Any], iterations: int, relative: bool
) -> jax.Array:
    """How far each tensor of the synthesis network moves where a copy is trained for a few steps.

    Args:
      gradient: that of a scalar loss by `params`, a tree like it.
      params: like `Generator.params`, where the copy starts.
      iterations: steps of plain gradient descent.
      relative: measure by the size of the tensor's own values.

    Returns:
      mean |p - p0|, or mean |p - p0| / mean |p0|, of each of `tensors`.
    """

    def lengths(params):
        flat = trees.flatten(params["synthesis"])
        return jnp.stack([jnp.mean(jnp.abs(flat[name])) for name in tensors(params)])

    moved = lengths(descend(gradient, params, iterations))
    return moved / jnp.maximum(lengths(params), EPS) if relative else moved


def choose(scores: jax.Array, k: int) -> jax.Array:
    """The k highest of [n] scores, as bool [n]."""
    _, indices = jax.lax.top_k(scores, k)
    return jnp.zeros(scores.shape, bool).at[indices].set(True)
