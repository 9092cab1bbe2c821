"""The training step of StyleGAN-NADA (Gal et al. 2022): one pure function under one jit."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from nada_jax.adaptation import balancing, views
from nada_jax.adaptation.freezing import low_rank
from nada_jax.adaptation.freezing import strategies as freezing
from nada_jax.adaptation.prompts import Targets
from nada_jax.devices import sharding
from nada_jax.losses import clip as clip_losses
from nada_jax.losses import identity, pixel
from nada_jax.models.clip import Clip
from nada_jax.models.irse import Irse50
from nada_jax.models.stylegan2 import Generator, draw_latents
from nada_jax.models.vgg import Vgg

Metrics = dict[str, jax.Array]
OF_CLIPS = ("directional", "global_", "manifold", "angle", "patch")  # summed over the CLIPs
OF_PICTURES = ("l2", "lpips", "identity")


@flax.struct.dataclass
class TrainState:
    """All that changes from step to step.

    Attributes:
      step: number of finished steps, int32.
      params: the adapted generator's parameters, like `Generator.params`, perhaps with factors of
        `low_rank`.
      opt_state: the optimiser's state; empty for frozen parameters.
      chosen: bool [l], the latents whose layers train now, or which of the tensors.
      log_weights: what `balancing` trains; empty where weights are fixed.
      log_weights_opt: the state of its optimiser.
      ema: the exponential moving average of `params`, or None where none is kept.
    """

    step: jax.Array
    params: dict[str, Any]
    opt_state: Any
    chosen: jax.Array
    log_weights: dict[str, jax.Array]
    log_weights_opt: Any
    ema: Any

    @property
    def result(self) -> Any:
        """The parameters of the adapted generator as it is drawn and saved, like `Generator.params`."""
        return low_rank.merge(self.params if self.ema is None else self.ema)


@flax.struct.dataclass
class Frozen:
    """All that the step reads and never changes: arguments of the step, not captured constants."""

    generator: Generator
    clips: tuple[Clip, ...]
    targets: tuple[Targets, ...]
    face: Irse50 | None = None  # for the term "identity"
    vgg: Vgg | None = None  # for the term "lpips"


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Static choices of the step, explained in `configs/default.py`; defaults are the official ones."""

    batch_size: int = 2
    clip_weights: tuple[float, ...] = (1.0,)
    directional: float = 1.0
    global_: float = 0.0
    manifold: float = 0.0
    angle: float = 0.0
    patch: float = 0.0
    patch_fraction: float = 0.5
    l2: float = 0.0
    lpips: float = 0.0
    identity: float = 0.0
    balancing: str = "fixed"
    balancing_lr: float = 0.01
    antialias: bool = False
    zoom: float = 1.0
    rotate: float = 0.0
    shift: float = 0.0
    background: str = "edge"
    mixing: float = 0.0
    noise: str = "independent"
    strategy: str = "none"
    k: int = 1
    measure: str = "absolute"
    rank: int = 4
    iterations: int = 1
    selection_batch: int = 8
    every: int = 1
    ema: float = 0.0
    low_memory: bool = False

    @property
    def adaptive(self) -> bool:
        """Whether what trains is chosen again and again."""
        return self.strategy in freezing.ADAPTIVE

    @property
    def by_tensor(self) -> bool:
        """Whether tensors are chosen, rather than latents."""
        return self.strategy == "adaptive_parameters"

    @property
    def factors(self) -> dict[str, float]:
        """The lambda of each term that counts, by the term's name."""
        factors = {name: getattr(self, name) for name in (*OF_CLIPS, *OF_PICTURES)}
        return {name: factor for name, factor in factors.items() if factor}

    @property
    def balancer(self) -> optax.GradientTransformation:
        """The optimiser of the logarithms of weights."""
        return optax.adam(self.balancing_lr)


def init_state(
    generator: Generator, optimizer: optax.GradientTransformation, recipe: Recipe, seed: int = 0
) -> TrainState:
    """The state before the first step: the adapted generator starts as a copy of the source."""
    params = jax.tree.map(jnp.copy, generator.params)  # the step donates its state, not the source
    if recipe.strategy == "low_rank":
        params = low_rank.add(params, recipe.rank, jax.random.key(seed))
    candidates = freezing.candidates(params, generator.num_layers, recipe.strategy)
    chosen = jnp.zeros(len(candidates), bool)
    logs = balancing.init(recipe.balancing, recipe.factors)
    ema = jax.tree.map(jnp.copy, params) if recipe.ema else None
    return TrainState(
        jnp.int32(0), params, optimizer.init(params), chosen, logs, recipe.balancer.init(logs), ema
    )


def guidance(
    source: jax.Array,
    adapted: jax.Array,
    frozen: Frozen,
    log_weights: dict[str, jax.Array],
    key: jax.Array,
    recipe: Recipe,
) -> tuple[jax.Array, Metrics]:
    """The loss between two pictures: terms, summed over CLIPs by weight, and balanced.

    Args:
      source, adapted: [b, h, w, 3] in about -1..1.
      log_weights: see `balancing`.
      key: draws what part of the pictures the CLIPs see; the same of both.

    Returns:
      The scalar loss, and each term's mean (over the CLIPs by weight) without its weight.
    """
    terms = picture_terms(source, adapted, frozen, recipe)
    view_key, patch_key = jax.random.split(key)
    if recipe.zoom > 1 or recipe.rotate or recipe.shift:
        limits = recipe.zoom, recipe.rotate, recipe.shift, recipe.background
        drawn = views.draw(view_key, len(source), *limits)
        source, adapted = (views.show(images, drawn) for images in (source, adapted))
    for clip, targets, weight in zip(
        frozen.clips, frozen.targets, recipe.clip_weights, strict=True
    ):
        for name, losses in clip_terms(clip, targets, source, adapted, patch_key, recipe).items():
            terms[name] = terms.get(name, 0) + weight * jnp.mean(losses)
    total = balancing.total(recipe.balancing, terms, recipe.factors, log_weights)
    weights = sum(recipe.clip_weights)
    return total, {name: x if name in OF_PICTURES else x / weights for name, x in terms.items()}


def picture_terms(
    source: jax.Array, adapted: jax.Array, frozen: Frozen, recipe: Recipe
) -> dict[str, jax.Array]:
    """The mean losses of whole pictures without a CLIP, by name; see `guidance`."""
    terms = {}
    if recipe.l2:
        terms["l2"] = jnp.mean(pixel.l2(source, adapted))
    if recipe.lpips:
        terms["lpips"] = jnp.mean(computed_again(frozen.vgg.lpips, recipe)(source, adapted))
    if recipe.identity:
        embed = computed_again(frozen.face.embed_images, recipe)
        terms["identity"] = jnp.mean(identity.identity(embed(source), embed(adapted)))
    return terms


def clip_terms(
    clip: Clip,
    targets: Targets,
    source: jax.Array,
    adapted: jax.Array,
    key: jax.Array,
    recipe: Recipe,
) -> dict[str, jax.Array]:
    """The losses [b] of one CLIP, by name, for each lambda above 0; see `guidance`."""
    embed = embedder(clip, recipe)
    terms = {}
    if recipe.directional or recipe.global_ or recipe.manifold or recipe.angle:
        before, after = embed(source), embed(adapted)
    if recipe.directional:
        terms["directional"] = clip_losses.directional(before, after, targets.direction)
    if recipe.global_:
        terms["global_"] = clip_losses.global_(after, targets.target)
    if recipe.manifold:
        terms["manifold"] = clip_losses.manifold(before, after, targets.cosine)
    if recipe.angle:
        terms["angle"] = clip_losses.angle(before, after)
    if recipe.patch:
        size = max(1, round(recipe.patch_fraction * min(source.shape[1:3])))
        centers = clip_losses.crop_centers(key, *source.shape[:3], size)
        crops = (embed(clip_losses.crops(images, centers, size)) for images in (source, adapted))
        terms["patch"] = clip_losses.patch(*crops, targets.parts)
    return terms


def embedder(clip: Clip, recipe: Recipe) -> Callable[[jax.Array], jax.Array]:
    """Pictures -> features."""
    return computed_again(functools.partial(clip.embed_images, antialias=recipe.antialias), recipe)


def computed_again(network: Callable[..., jax.Array], recipe: Recipe) -> Callable[..., jax.Array]:
    """The same network; with `low_memory` a gradient keeps nothing inside of it."""
    return jax.checkpoint(network) if recipe.low_memory else network


def select(
    params: Any, frozen: Frozen, ws: jax.Array, noise: str | jax.Array, recipe: Recipe
) -> tuple[jax.Array, jax.Array]:
    """Adaptive choice of layers, Gal et al. 2022, section 4.3, or of tensors.

    Args:
      params: the adapted generator's.
      ws: fresh latents [n, l, w_dim].
      noise: see `Generator.synthesize`.

    Returns:
      Which latents' layers train, bool [l], and the scores [l]; or the same of tensors.
    """

    def loss(params, ws, noise):
        generator = frozen.generator.replace(params=params, remat=recipe.low_memory)
        images = generator.synthesize(ws, noise)
        return sum(
            weight * jnp.mean(clip_losses.global_(embedder(clip, recipe)(images), t.bare))
            for clip, t, weight in zip(
                frozen.clips, frozen.targets, recipe.clip_weights, strict=True
            )
        )

    # With low_memory in parts of the size of the training batch, each of them spread over all devices.
    parts = len(ws) // math.gcd(len(ws), recipe.batch_size) if recipe.low_memory else 1

    def piece(i, ws):
        own = noise if isinstance(noise, str) else jax.random.fold_in(noise, i)
        return ws.reshape(-1, parts, *ws.shape[1:])[:, i], own

    def of_latents(here):
        if parts == 1:
            return jax.grad(loss, 1)(params, here, noise)
        part = lambda i: jax.grad(loss, 1)(params, *piece(i, here)) / parts  # noqa: E731
        return jax.lax.map(part, jnp.arange(parts)).swapaxes(0, 1).reshape(here.shape)

    def of_tensors(here):
        if parts == 1:
            return jax.grad(loss)(here, ws, noise)

        def add(i, total):
            return jax.tree.map(jnp.add, total, jax.grad(loss)(here, *piece(i, ws)))

        total = jax.lax.fori_loop(0, parts, add, jax.tree.map(jnp.zeros_like, here))
        return jax.tree.map(lambda x: x / parts, total)

    if recipe.by_tensor:
        relative = recipe.measure == "relative"
        scores = freezing.tensor_scores(of_tensors, params, recipe.iterations, relative)
    else:
        scores = freezing.latent_scores(of_latents, ws, recipe.iterations)
    return freezing.choose(scores, recipe.k), scores


def make_loss(recipe: Recipe) -> Callable[..., tuple[jax.Array, Metrics]]:
    """The loss of the adapted generator's parameters, given the latents.

    Returns:
      loss(params, log_weights, frozen, ws, key) -> (scalar, metrics), differentiable in the first two.
    """

    def loss(params, log_weights, frozen: Frozen, ws: jax.Array, key: jax.Array):
        keys = jax.random.split(key, 3)
        noises = {
            "independent": (keys[0], keys[1]),  # as the official twin generators
            "shared": (keys[0], keys[0]),
        }.get(recipe.noise, (recipe.noise, recipe.noise))
        adapted = frozen.generator.replace(params=low_rank.merge(params), remat=recipe.low_memory)
        source_images = jax.lax.stop_gradient(frozen.generator.synthesize(ws, noises[0]))
        adapted_images = adapted.synthesize(ws, noises[1])
        return guidance(source_images, adapted_images, frozen, log_weights, keys[2], recipe)

    return loss


def make_train_step(
    recipe: Recipe, optimizer: optax.GradientTransformationExtraArgs, mesh: Mesh | None = None
) -> Callable[[TrainState, Frozen, jax.Array], tuple[TrainState, Metrics]]:
    """Builds the training step.

    Args:
      recipe: static choices.
      optimizer: from `freezing.optimizer`.
      mesh: the devices that share the batch; by default one device.

    Returns:
      train_step(state, frozen, run_key) -> (state, metrics). A step draws its numbers from
      fold_in(run_key, state.step), so a resumed run is the run that was not interrupted.
    """
    loss_of = make_loss(recipe)

    def train_step(state: TrainState, frozen: Frozen, run_key: jax.Array):
        frozen, whole = sharding.gather((frozen, state.params), mesh)
        key = jax.random.fold_in(run_key, state.step)
        latent_key, selection_key, loss_key = jax.random.split(key, 3)

        chosen = state.chosen
        if recipe.adaptive:

            def selected():
                ws_key, noise_key = jax.random.split(selection_key)
                ws = draw_latents(frozen.generator, ws_key, recipe.selection_batch)
                ws = sharding.split_batch(ws, mesh)
                noise = noise_key if recipe.noise in ("independent", "shared") else recipe.noise
                return select(whole, frozen, ws, noise, recipe)[0]

            if recipe.every == 1:  # without a branch, which costs some 6 % of a step on CPU
                chosen = selected()
            else:
                now = state.step % recipe.every == 0
                chosen = jax.lax.cond(now, selected, lambda: state.chosen)

        ws = draw_latents(frozen.generator, latent_key, recipe.batch_size, recipe.mixing)
        ws = sharding.split_batch(ws, mesh)
        gradient = jax.value_and_grad(loss_of, argnums=(0, 1), has_aux=True)
        (loss, terms), (grads, log_grads) = gradient(whole, state.log_weights, frozen, ws, loss_key)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params, chosen=chosen)
        params = optax.apply_updates(state.params, updates)
        log_updates, log_weights_opt = recipe.balancer.update(log_grads, state.log_weights_opt)
        log_weights = optax.apply_updates(state.log_weights, log_updates)
        ema = None
        if recipe.ema:
            ema = optax.incremental_update(params, state.ema, 1 - 0.5 ** (1 / recipe.ema))
        # Not finite, or huge, when an update went wrong, which the loss would show a step too late.
        metrics = {"loss": loss} | terms | {"norm": optax.tree.norm(params)}
        metrics |= {f"weight_{name}": jnp.exp(log) for name, log in state.log_weights.items()}
        if recipe.adaptive:
            metrics["chosen"] = chosen
        balance = log_weights, log_weights_opt
        return TrainState(state.step + 1, params, opt_state, chosen, *balance, ema), metrics

    return train_step
