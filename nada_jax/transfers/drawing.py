"""Many results by few programs: batches of equal sizes, with progress, and snapshots by which a run continues."""

import dataclasses
import functools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from nada_jax.models.vgg import Vgg
from nada_jax.runs.items import Item
from nada_jax.runs.per_image import ImageRun
from nada_jax.runs.progress import Progress
from nada_jax.runs.snapshots import Snapshots
from nada_jax.style.minimize import Minimizer
from nada_jax.style.objective import Objective
from nada_jax.style.transfer import Row, Scale, transfer


@dataclasses.dataclass(frozen=True)
class Job:
    """One result.

    Attributes:
      item: its name and files.
      objective, minimizer: see `transfer`; results that have the same objects may share a program.
      row: what it is to become.
      scales: its sizes.
    """

    item: Item
    objective: Objective
    minimizer: Minimizer
    row: Row
    scales: tuple[Scale, ...]


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A result that is done.

    Attributes:
      job: what was to be done.
      scales: its image at each scale, float32 [h, w, 3] in [-1, 1].
      figures: the loss and its parts.
      seconds: that it took, its share of its batch.
      losses: (step, loss) every few steps.
    """

    job: Job
    scales: list[np.ndarray]
    figures: dict[str, float]
    seconds: float
    losses: list[tuple[int, float]]


def draw(
    run: ImageRun,
    vgg: Vgg,
    jobs: Sequence[Job],
    write: Callable[[Drawn], None],
    *,
    batch_size: int,
    style_scale: float = 1.0,
) -> int:
    """Draws the results one batch after the other.

    A run that is killed or interrupted continues from its last snapshot: the same jobs give the same images, bit by bit.

    Args:
      run: keeps the snapshot of a batch until all its results are written.
      vgg: the network.
      jobs: what there is to do.
      write: is called with each result.
      batch_size: results at once, at most.
      style_scale: see `transfer`.

    Returns:
      0, or the exit code where a signal has asked the run to end; a snapshot is written then.

    Raises:
      UserError: an image is too small for the layers.
    """
    chunks = list(_chunks(jobs, batch_size))
    total = sum(scale.steps for chunk in chunks for scale in chunk[0].scales)
    with Snapshots(run) as snapshots, Progress(total, 0, every=50) as progress:
        for chunk in chunks:
            began = time.monotonic()
            work = json.dumps([[job.item.name, job.item.digest] for job in chunk])
            snapshot = snapshots.read(work)
            if snapshot:
                progress.say("continuing where the earlier run was stopped")
            found = transfer(
                vgg,
                chunk[0].objective,
                chunk[0].minimizer,
                [job.row for job in chunk],
                chunk[0].scales,
                style_scale=style_scale,
                snapshot=snapshot,
                keep=functools.partial(snapshots.keep, work),
                report=progress.advance,
            )
            seconds = (time.monotonic() - began) / len(chunk)
            for i, job in enumerate(chunk):
                figures = {name: float(x[i]) for name, x in found.figures.items()}
                losses = [(int(x[0]), float(x[1 + i])) for x in found.history]
                write(Drawn(job, [x[i] for x in found.scales], figures, seconds, losses))
            snapshots.delete()
    return snapshots.code


def _chunks(jobs: Sequence[Job], batch_size: int) -> Iterator[list[Job]]:
    """Jobs that fit into one program, in batches that differ by one at most."""
    alike: dict[Any, list[Job]] = {}
    for job in jobs:
        row = job.row
        kind = job.minimizer, job.scales, row.content is None, len(row.styles), len(row.masks)
        alike.setdefault(kind, []).append(job)
    for group in alike.values():
        for part in np.array_split(np.arange(len(group)), -(-len(group) // batch_size)):
            yield [group[i] for i in part]
