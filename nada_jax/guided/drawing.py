"""Images of prompts and seeds by few programs: batches of one size, with progress, and snapshots by which a run continues."""

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from nada_jax import batches, trees
from nada_jax.devices import mesh as meshes
from nada_jax.devices.mesh import MeshShape
from nada_jax.diffusion.objectives import Guide
from nada_jax.diffusion.sampling import Drawing, State
from nada_jax.errors import UserError
from nada_jax.runs.items import Mix
from nada_jax.runs.per_image import ImageRun
from nada_jax.runs.progress import Progress
from nada_jax.runs.snapshots import Snapshots

EVERY = 10  # steps between plain lines of progress


@dataclasses.dataclass(frozen=True)
class Picture(Mix):
    """An image that is drawn; its files are those that guide it.

    Attributes:
      prompt: what it shows.
      seed: of its noise.
    """

    prompt: str = ""
    seed: int = 0

    @property
    def digest(self) -> str:
        """Also of the prompt, of which the name may have a part only."""
        return hashlib.sha256(f"{super().digest} {self.prompt}".encode()).hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class Batch:
    """What one call of a program draws.

    Attributes:
      prepared: has features of all prompts.
      rows: of the features of each picture.
      pictures: the last may stand more than once, so that all batches have one size.
    """

    prepared: Drawing
    rows: tuple[int, ...]
    pictures: tuple[Picture, ...]

    @property
    def drawing(self) -> Drawing:
        """With features of a prompt for each picture."""
        return self.prepared.replace(contexts=self.prepared.contexts[np.array(self.rows)])

    @property
    def work(self) -> str:
        """What a snapshot has to belong to."""
        return json.dumps([[x.name, x.digest] for x in self.pictures])


@dataclasses.dataclass(frozen=True)
class Drawn:
    """An image that is done.

    Attributes:
      picture: what was to be drawn.
      image: float32 [h, w, 3], about [-1, 1].
      path: step, from 1 -> the image that was predicted then, likewise.
      losses: objective -> (step, loss of the image that was predicted then), of the steps that were guided.
      measures: objective -> loss of the image itself; {} where nothing guides.
      seconds: that it took, its share of its batch.
    """

    picture: Picture
    image: np.ndarray
    path: dict[int, np.ndarray]
    losses: dict[str, list[tuple[int, float]]]
    measures: dict[str, float]
    seconds: float


def batch_size(count: int, most: int, shape: MeshShape) -> int:
    """Images of a batch: as few as the number of batches allows, and as the devices that are asked for can share.

    Args:
      count: images in all.
      most: images of a batch at most.
      shape: see `meshes.make_mesh`.
    """
    even = math.ceil(count / math.ceil(count / most))
    devices = max(1, shape.data) * shape.fsdp
    return min(most, math.ceil(even / devices) * devices)


def split(
    drawing: Drawing, prompts: Sequence[str], pictures: Sequence[Picture], size: int
) -> Iterator[Batch]:
    """Batches of pictures.

    Args:
      drawing: has features of all the prompts.
      prompts: those of `drawing`.
      pictures: what is to be drawn.
      size: of a batch.
    """
    for rows in batches.split(len(pictures), size):
        chosen = tuple(pictures[i] for i in rows)
        yield Batch(drawing, tuple(prompts.index(x.prompt) for x in chosen), chosen)


def draw(
    run: ImageRun,
    todo: Sequence[Batch],
    write: Callable[[Drawn], None],
    *,
    columns: int = 0,
    mesh: Mesh | None = None,
) -> int:
    """Draws batches one after the other.

    A run that is killed or interrupted continues from its last snapshot: the same batches give the same images, bit by
    bit.

    Args:
      run: keeps the snapshot of a batch until all its results are written.
      todo: the batches; their arrays lie on the mesh.
      write: is called with each result.
      columns: images of a path at most.
      mesh: of the devices that share a batch.

    Returns:
      0, or the exit code where a signal has asked the run to end; a snapshot is written then.

    Raises:
      UserError: what is drawn is not finite.
    """
    total = sum(batch.prepared.steps for batch in todo)
    with Snapshots(run) as snapshots, Progress(total, 0, every=EVERY) as progress:
        for number, batch in enumerate(todo):
            began = time.monotonic()
            if number == 0:
                size, memory = len(batch.pictures), batch.drawing.memory(_first(batch, mesh))
                progress.say(f"{size} at once, in {memory / 2**20:,.0f} MiB of each device")
            seen = _follow(batch, columns, snapshots, progress, mesh)
            seconds = (time.monotonic() - began) / len(set(batch.pictures))
            for drawn in _finished(batch, seen, seconds):
                write(drawn)
            snapshots.delete()
    return snapshots.code


@dataclasses.dataclass
class _Seen:
    """A batch between two chunks.

    Attributes:
      state: what the next chunk starts from.
      chunk: that chunk.
      kept: step, from 0 -> latents that were predicted then [b, h, w, c].
      losses: objective -> its losses at all steps so far [steps, b].
    """

    state: State
    chunk: int
    kept: dict[int, np.ndarray]
    losses: dict[str, np.ndarray]

    def arrays(self) -> dict[str, np.ndarray]:
        """For a snapshot."""
        found = {"chunk": np.asarray(self.chunk)}
        found |= {f"path_{step}": x for step, x in self.kept.items()}
        found |= {f"loss_{name}": x for name, x in self.losses.items()}
        return found | jax.device_get(trees.enumerated(self.state))


def _follow(
    batch: Batch, columns: int, snapshots: Snapshots, progress: Progress, mesh: Mesh | None
) -> _Seen:
    """Takes all steps of a batch, from the beginning or from where its snapshot stands."""
    drawing, work = batch.drawing, batch.work
    chosen = _spread(drawing.steps, columns)
    seen = _Seen(_first(batch, mesh), 0, {}, _no_losses(batch))
    if found := _restored(seen, snapshots.read(work), drawing, chosen):
        seen = found
        progress.say("continuing where the earlier run was stopped")
        progress.skip(min(seen.chunk * drawing.chunk, drawing.steps))
    while seen.chunk < drawing.chunks:
        clock = time.perf_counter()
        first = seen.chunk * drawing.chunk
        steps = range(first, min(first + drawing.chunk, drawing.steps))
        state, path = drawing.advance(_shared(seen.state, mesh), seen.chunk)
        clean = {step: np.asarray(path.clean[step - first]) for step in chosen if step in steps}
        losses = {name: np.asarray(x)[: len(steps)] for name, x in path.losses.items()}
        if not np.isfinite(np.asarray(state.carry.x)).all():
            raise UserError(
                f"what is drawn is not finite after step {steps.stop}; lower guidance.weight, guidance.backward_rate or "
                "sampler.scale, or set precision=float32"
            )
        seen = _Seen(
            state,
            seen.chunk + 1,
            seen.kept | clean,
            {name: np.concatenate([seen.losses[name], x]) for name, x in losses.items()},
        )
        ms = (time.perf_counter() - clock) * 1000 / len(steps)
        progress.advance(len(steps), _latest(drawing, losses), ms)
        snapshots.keep(work, seen.arrays)
    return seen


def _finished(batch: Batch, seen: _Seen, seconds: float) -> Iterator[Drawn]:
    """The results of a batch whose steps are all taken."""
    drawing = batch.drawing
    images = np.asarray(drawing.decode(seen.state.carry.x))
    path = {step: np.asarray(drawing.decode(x)) for step, x in sorted(seen.kept.items())}
    measures = {} if drawing.guide is None else jax.device_get(_measure(drawing.guide, images))
    for i, picture in enumerate(dict.fromkeys(batch.pictures)):
        losses = {
            name: [(step + 1, float(x[i])) for step, x in enumerate(rows) if np.isfinite(x[i])]
            for name, rows in sorted(seen.losses.items())
        }
        yield Drawn(
            picture,
            images[i],
            {step + 1: x[i] for step, x in path.items()},
            {name: points for name, points in losses.items() if points},
            {name: float(x[i]) for name, x in measures.items()},
            seconds,
        )


@jax.jit
def _measure(guide: Guide, images: jax.Array) -> dict[str, jax.Array]:
    return guide.losses(images)


def _spread(steps: int, columns: int) -> list[int]:
    """Steps, from 0, that are shown: the first, the last, and others as evenly as can be."""
    return np.unique(np.round(np.linspace(0, steps - 1, min(columns, steps))).astype(int)).tolist()


def _no_losses(batch: Batch) -> dict[str, np.ndarray]:
    guide = batch.prepared.guide
    names = [] if guide is None else guide.names
    return {name: np.zeros((0, len(batch.pictures)), np.float32) for name in names}


def _latest(drawing: Drawing, losses: Mapping[str, np.ndarray]) -> float | None:
    """The mean loss of the last of some steps, with its factors; None where it was not guided."""
    if drawing.guide is None:
        return None
    found = float(np.mean(drawing.guide.total({name: x[-1] for name, x in losses.items()})))
    return found if math.isfinite(found) else None


def _first(batch: Batch, mesh: Mesh | None) -> State:
    """What the first chunk of a batch starts from."""
    return _shared(batch.drawing.start([x.seed for x in batch.pictures]), mesh)


def _shared(state: State, mesh: Mesh | None) -> State:
    """A state that the devices of a mesh share; in all of its arrays but a history, images come first."""
    return jax.tree.map(lambda x: meshes.spread(x, mesh, axis=1 if x.ndim == 5 else 0), state)


def _restored(
    fresh: _Seen, arrays: dict[str, np.ndarray], drawing: Drawing, chosen: Sequence[int]
) -> _Seen | None:
    """What a snapshot, whose file anyone may have changed, holds; None where it has not the arrays of this batch."""
    chunk = arrays.get("chunk", np.zeros(1))
    if chunk.shape != () or not 0 < chunk <= drawing.chunks:
        return None
    done = min(int(chunk) * drawing.chunk, drawing.steps)
    x, steps = fresh.state.carry.x, [step for step in chosen if step < done]
    shapes = {"chunk": ((), chunk.dtype)}
    shapes |= {f"path_{step}": (x.shape, x.dtype) for step in steps}
    shapes |= {f"loss_{name}": ((done, len(x)), np.float32) for name in fresh.losses}
    shapes |= {name: (x.shape, x.dtype) for name, x in trees.enumerated(fresh.state).items()}
    if {name: (x.shape, x.dtype) for name, x in arrays.items()} != shapes:
        return None
    return _Seen(
        trees.restored(fresh.state, arrays),
        int(chunk),
        {step: arrays[f"path_{step}"] for step in steps},
        {name: arrays[f"loss_{name}"] for name in fresh.losses},
    )
