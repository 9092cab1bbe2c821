"""From prompts and seeds to images, a few steps at a time: what tasks call."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax
import jax
import numpy as np

from nada_jax.diffusion.guidance import How, Words, guided, unguided
from nada_jax.diffusion.objectives import Guide
from nada_jax.diffusion.samplers import SAMPLERS, Carry, Times, noise
from nada_jax.diffusion.settings import Guidance, Sampling
from nada_jax.errors import UserError
from nada_jax.models.diffusion import Diffusion

CHUNK = 10  # steps between which a run reports, and can be saved


class Path(NamedTuple):
    """What the steps of a chunk saw.

    Attributes:
      clean: the latents that each step predicted, with its guidance, float32 [steps, b, h, w, c].
      losses: name of the objective -> its loss of the predicted images, without its factor [steps, b]; NaN where a step
        was not guided.
    """

    clean: jax.Array
    losses: dict[str, jax.Array]


@flax.struct.dataclass
class State:
    """A batch between two chunks; plain arrays, so that it can be saved.

    Attributes:
      seeds: uint32 [b].
      carry: of the sampler; its latents are `carry.x`, [b, h, w, c].
    """

    seeds: jax.Array
    carry: Carry


@flax.struct.dataclass
class Drawing:
    """All that a batch of images is drawn from; make one with `prepare`.

    A pytree, so that a task may place its arrays on devices (`meshes.place`); where those of a `State` are split along
    their first axis, so is the work.

    Attributes:
      model: the diffusion model.
      contexts: features of the prompts [1 or b, t, d].
      negatives: the same of what is avoided; None without classifier-free guidance.
      guide: what the images are compared with; None without guidance.
      sampling, guidance, chunk: static settings.
    """

    model: Diffusion
    contexts: jax.Array
    negatives: jax.Array | None
    guide: Guide | None
    sampling: Sampling = flax.struct.field(pytree_node=False)
    guidance: Guidance | None = flax.struct.field(pytree_node=False)
    chunk: int = flax.struct.field(pytree_node=False)

    @functools.cached_property
    def times(self) -> Times:
        """All steps."""
        return self.sampling.times(self.model)

    @property
    def steps(self) -> int:
        """How often the network is asked; pndm asks once more than `sampler.steps`."""
        return self.times.total

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return -(-self.steps // self.chunk)

    def start(self, seeds: Sequence[int]) -> State:
        """The noise that images begin with.

        Args:
          seeds: one for each of b images, in 0..2^32 - 1; an image depends on its own seed alone.
        """
        side = self.sampling.side(self.model) // self.model.factor
        shape = side, side, self.model.channels
        return _start(np.asarray(seeds, np.uint32), shape, self.sampling.method, self.times.start)

    def advance(self, state: State, i: int) -> tuple[State, Path]:
        """Takes the steps of chunk i, of `chunks`; jitted inside, one program for all chunks.

        Args:
          state: of `start`, or of chunk i - 1.
          i: from 0.

        Returns:
          What the next chunk needs, and what the steps saw. Behind the last chunk, `state.carry.x` are the latents of
          the images.
        """
        state, path = _advance(*self._arguments(i), state, self.sampling.method)
        live = min(self.chunk, self.steps - i * self.chunk)
        return state, jax.tree.map(lambda x: x[:live], path)

    def decode(self, latents: jax.Array) -> jax.Array:
        """Latents [n, h, w, c] -> images [n, size, size, 3], about [-1, 1]; jitted inside."""
        return _decode(self.model, latents)

    def memory(self, state: State) -> int:
        """Bytes that the program of `advance` needs on a device for such a state, by XLA; compiles it, once for both."""
        compiled = _advance.lower(*self._arguments(0), state, self.sampling.method).compile()
        used = compiled.memory_analysis()
        return used.temp_size_in_bytes + used.argument_size_in_bytes + used.output_size_in_bytes

    def _arguments(self, i: int) -> tuple[Any, ...]:
        """What the program of chunk i takes: numbers as arrays, so that others need no other program."""
        words = Words(self.model, self.contexts, self.negatives, np.float32(self.sampling.scale))
        how = None if self.guide is None else self.guidance.how(self.steps)
        return words, self.guide, how, self.times.chunk(i, self.chunk)


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _start(seeds: jax.Array, shape: tuple[int, ...], sampler: str, deviation: float) -> State:
    first, _ = _keys(seeds)
    return State(seeds, SAMPLERS[sampler].start(deviation * noise(first, shape)))


def _keys(seeds: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Keys [b] of the noise at the start, and of the steps."""
    pairs = jax.vmap(lambda seed: jax.random.split(jax.random.key(seed)))(seeds)
    return pairs[:, 0], pairs[:, 1]


@functools.partial(jax.jit, static_argnums=5)
def _advance(
    words: Words, guide: Guide | None, how: How | None, times: Times, state: State, method: str
) -> tuple[State, Path]:
    denoise = unguided(words) if guide is None else guided(words, guide, how)
    _, keys = _keys(state.seeds)
    carry, path = SAMPLERS[method].steps(denoise, state.carry, times, keys)
    return State(state.seeds, carry), Path(*path)


@jax.jit
def _decode(model: Diffusion, latents: jax.Array) -> jax.Array:
    return model.decode(latents)


def prepare(
    model: Diffusion,
    sampling: Sampling,
    guidance: Guidance | None,
    prompts: Sequence[str],
    *,
    negatives: Sequence[str] = ("",),
    reference: np.ndarray | None = None,
    content: np.ndarray | None = None,
    chunk: int = CHUNK,
) -> Drawing:
    """Embeds the texts, loads the networks of the guidance, and describes its images.

    Args:
      model: the diffusion model.
      sampling, guidance: settings; without guidance, or with weight 0, nothing guides.
      prompts: one for all images, or one for each of a batch.
      negatives: what is avoided, likewise; unused where `sampler.scale` is 1.
      reference: the style image [1 or b, h, w, 3] in [-1, 1] that `guidance.reference` names, where it is needed.
      content: the image that `guidance.content` names, as large as those that are drawn, likewise.
      chunk: steps of a chunk, at most.

    Raises:
      UserError: a prompt is blank, the model cannot draw such images or take so many steps, or what the guidance needs
        cannot be loaded.
    """
    for prompt in prompts:
        if not prompt.strip():
            raise UserError(
                f"prompt is blank ({prompt!r}); expected words such as 'a person with red hair'"
            )
    side = sampling.side(model)
    steps = sampling.times(model).total
    guide = None
    if guidance is not None and guidance.on:
        guidance.check_against(sampling, steps)
        guide = Guide.load(guidance, side, reference=reference, content=content)
    # The same program takes all chunks, the last one included: where their size divides the steps, none is left over.
    wish = min(chunk, steps)
    return Drawing(
        model=model,
        contexts=model.embed_texts(list(prompts)),
        negatives=None if sampling.scale == 1 else model.embed_texts(list(negatives)),
        guide=guide,
        sampling=sampling,
        guidance=guidance,
        chunk=next((x for x in range(wish, wish // 2, -1) if steps % x == 0), wish),
    )
