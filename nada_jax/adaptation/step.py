"""The training step of StyleGAN-NADA (Gal et al. 2022): one pure function under one jit."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from nada_jax.adaptation import views
from nada_jax.adaptation.freezing.strategy import Trained
from nada_jax.adaptation.selection import select
from nada_jax.adaptation.settings import NOISES, StepSettings
from nada_jax.adaptation.state import Frozen, TrainState
from nada_jax.adaptation.terms import OF_CLIPS
from nada_jax.adaptation.views import embed_pair, embedder, recomputed
from nada_jax.devices import mesh as meshes
from nada_jax.models.stylegan2 import draw_latents

Metrics = dict[str, jax.Array]
Pair = tuple[jax.Array, jax.Array]  # source and adapted images


def make_train_step(
    settings: StepSettings,
    optimizer: optax.GradientTransformationExtraArgs,
    mesh: Mesh | None = None,
) -> Callable[[TrainState, Frozen, jax.Array], tuple[TrainState, Metrics]]:
    """Builds the training step.

    Args:
      settings: static choices.
      optimizer: from `Optimizer.make`.
      mesh: the devices that share the batch; by default one device.

    Returns:
      train_step(state, frozen, run_key) -> (state, metrics). A step draws its numbers from
      fold_in(run_key, state.step), so a resumed run is the run that was not interrupted.
    """

    def train_step(state: TrainState, frozen: Frozen, run_key: jax.Array):
        # Arrays that are split to save memory are whole within the step, and the batch is split instead.
        frozen, trained = meshes.gather((frozen, state.trained), mesh)
        key = jax.random.fold_in(run_key, state.step)
        latent_key, selection_key, loss_key = jax.random.split(key, 3)

        def selected():
            return select(trained, frozen, selection_key, settings, mesh)[0]

        chosen = state.chosen
        if settings.freeze.chooses and settings.freeze.every == 1:
            chosen = selected()  # without a branch, which costs some 6 % of a step on CPU
        elif settings.freeze.chooses:
            now = state.step % settings.freeze.every == 0
            chosen = jax.lax.cond(now, selected, lambda: state.chosen)

        ws = draw_latents(
            frozen.generator, latent_key, settings.batch_size, settings.generator.mixing
        )
        ws = meshes.split_batch(ws, mesh)
        gradient = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
        (total, terms), gradients = gradient(
            trained, state.log_weights, frozen, ws, loss_key, settings
        )
        # The weights of this loss, before their update.
        weights = {f"weight_{name}": jnp.exp(log) for name, log in state.log_weights.items()}
        state = update(state, gradients, chosen, optimizer, settings)
        # A norm that is not finite, or huge, shows an update that went wrong; the loss would a step later.
        metrics = {"loss": total, "norm": optax.tree.norm(state.trained)} | terms | weights
        return state, metrics | ({"chosen": chosen} if settings.freeze.chooses else {})

    return train_step


def loss(
    trained: Trained,
    log_weights: dict[str, jax.Array],
    frozen: Frozen,
    ws: jax.Array,
    key: jax.Array,
    settings: StepSettings,
) -> tuple[jax.Array, Metrics]:
    """The loss of what trains, given latents ws [b, l, w_dim]: scalar and metrics, see `guidance`."""
    *noise_keys, guidance_key = jax.random.split(key, 3)
    images = synthesize(trained, frozen, ws, noise_keys, settings)
    return guidance(images, frozen, log_weights, guidance_key, settings)


def synthesize(
    trained: Trained, frozen: Frozen, ws: jax.Array, keys: jax.Array, settings: StepSettings
) -> Pair:
    """The images [b, h, w, 3] of latents ws [b, l, w_dim] by the source and by the adapted generator."""
    noise = NOISES[settings.generator.noise](*keys)
    params = settings.freeze.row.merge(frozen.generator.params, trained)
    adapted = frozen.generator.replace(params=params, remat=settings.low_memory)
    source_images = jax.lax.stop_gradient(frozen.generator.synthesize(ws, noise[0]))
    return source_images, adapted.synthesize(ws, noise[1])


def guidance(
    images: Pair,
    frozen: Frozen,
    log_weights: dict[str, jax.Array],
    key: jax.Array,
    settings: StepSettings,
) -> tuple[jax.Array, Metrics]:
    """The loss between source and adapted images: terms, summed over CLIPs by weight, and balanced.

    Args:
      images: [b, h, w, 3] in about -1..1.
      log_weights: see `balancing`.
      key: draws the views and crops that the CLIPs see, the same for an image and its twin, and what terms draw.

    Returns:
      The scalar loss, and each term's mean (over the CLIPs by weight) without its factor.
    """
    view_key, crop_key = jax.random.split(key)
    active, means = settings.loss.active, {}
    # On whole images: views are for what can be pleased by specks, which these terms cannot.
    for name, term in active("images").items():
        means[name] = jnp.mean(term.loss(*images))
    for name, term in active("network").items():
        # Not by a split into three, which would change the other two keys in some modes of JAX; 0 and 1 are theirs.
        drawn = (jax.random.fold_in(key, 2),) if term.draws else ()
        of_network = recomputed(term.loss, settings.low_memory)
        means[name] = jnp.mean(of_network(frozen.networks[name], *images, *drawn))

    if settings.clip.moves:
        drawn = views.draw(view_key, len(images[0]), settings.clip)
        images = tuple(views.show(batch, drawn) for batch in images)
    for clip, targets, weight in zip(
        frozen.clips, frozen.targets, settings.clip.weights, strict=True
    ):
        embed, seen = embedder(clip, settings.clip.antialias, settings.low_memory), {}
        if active("features"):
            seen["features"] = embed_pair(embed, images, settings.low_memory)
        if active("crops"):
            crops = views.same_crops(crop_key, images, settings.patch.fraction)
            seen["crops"] = embed_pair(embed, crops, settings.low_memory)
        for name, term in active(*OF_CLIPS).items():
            mean = jnp.mean(term.loss(*seen[term.sees], targets))
            means[name] = means.get(name, 0) + weight * mean
    total = settings.balancing.total(means, settings.loss.factors, log_weights)
    # The total is a sum over the CLIPs, as in the official code; what is reported is their mean.
    for name in active(*OF_CLIPS):
        means[name] = means[name] / sum(settings.clip.weights)
    return total, means


def update(
    state: TrainState,
    gradients: tuple[Any, dict[str, jax.Array]],
    chosen: jax.Array | None,
    optimizer: optax.GradientTransformationExtraArgs,
    settings: StepSettings,
) -> TrainState:
    """The next state, by the gradients of `trained` and `log_weights`."""
    grads, log_grads = gradients
    updates, opt_state = optimizer.update(grads, state.opt_state, state.trained, chosen=chosen)
    trained = optax.apply_updates(state.trained, updates)
    balancer = settings.balancing.optimizer
    log_updates, log_weights_opt = balancer.update(log_grads, state.log_weights_opt)
    ema = None
    if settings.ema:
        ema = optax.incremental_update(trained, state.ema, 1 - 0.5 ** (1 / settings.ema))
    return TrainState(
        step=state.step + 1,
        trained=trained,
        opt_state=opt_state,
        chosen=chosen,
        log_weights=optax.apply_updates(state.log_weights, log_updates),
        log_weights_opt=log_weights_opt,
        ema=ema,
    )
