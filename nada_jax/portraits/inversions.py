"""From files to faces to latents, a batch at a time."""

import dataclasses
import functools
import itertools
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from nada_jax.errors import UserError
from nada_jax.latents.inversion import Inverted, Networks, invert
from nada_jax.photos.align import Align, Aligned, align_photo
from nada_jax.portraits.settings import InversionSettings
from nada_jax.runs.items import Item
from nada_jax.runs.per_image import ImageRun
from nada_jax.runs.progress import Progress
from nada_jax.weights import loading

MEMORY = "lower batch_size, or set precision=bfloat16"  # the remedy for a lack of it
RESULTS = (
    "aligned/*.png", "latents/*.npz", "reconstructions/*.png", "strips/*.png", "tuned/*.safetensors",
)  # fmt: skip
FIGURES = "mse", "lpips", "identity", "clip", "seconds"  # as far as there are any


def load(settings: InversionSettings, *, inverts: bool = True) -> Networks:
    """Loads the generator and the networks of inversions and of figures.

    Args:
      settings: which.
      inverts: whether images have to be inverted; else the encoder is left out.

    Returns:
      The networks.

    Raises:
      UserError: there is no such file, or the networks cannot do what the inversion needs.
    """

    def given(load: Callable[..., Any], weights: str, field: str) -> Any:
        return load(weights, field=field) if weights else None

    judge = given(loading.load_clip, settings.judge, "judge")
    # One that is not needed may be missing, as there is none for most generators.
    encoder = settings.encoder.weights if inverts and settings.invert.needs_encoder else ""
    networks = Networks(
        generator=loading.load_generator(settings.generator.weights, precision=settings.precision),
        lpips=given(loading.load_lpips, settings.lpips.weights, "lpips.weights"),
        encoder=given(loading.load_encoder, encoder, "encoder.weights"),
        identity=given(loading.load_identity, settings.identity.weights, "identity.weights"),
        judge=judge and judge.without_texts(),
        refinements=settings.encoder.steps,
    )
    if inverts:
        settings.invert.check_networks(networks)
    return networks


def find(
    run: ImageRun, settings: InversionSettings, networks: Networks, items: Sequence[Item]
) -> Iterator[tuple[Item, Aligned, Inverted]]:
    """Aligns and inverts images, a batch at a time, and shows progress; those that cannot be done are skipped.

    Args:
      run: counts what is skipped.
      settings: of `configs/invert.py`, or others with all of its fields.
      networks: of `load`.
      items: at least one.

    Yields:
      An item, its aligned image, and what it was found to be, with b = 1 and a figure `seconds`. Of several faces of
      one image, the second is the item NAME_2, and so on; NAME itself comes last, so that it stands for all when a
      run is resumed.
    """
    read = functools.partial(_faces, run, settings=settings.align, side=networks.generator.size)
    faces = itertools.chain.from_iterable(found for _, found in run.read_all(items, read))
    count = -(-len(items) // settings.batch_size)
    size = -(-len(items) // count)  # of equal batches, so that few rows fill up the last
    steps, done = settings.invert.total_steps, 0
    with Progress(count * steps, done=0, every=50, silent=not steps) as progress:
        while batch := list(itertools.islice(faces, size)):
            names = ", ".join(item.name for item, _ in batch)
            last = f"s {done + 1}-{done + len(batch)}" if len(batch) > 1 else f" {done + 1}"
            progress.say(f"image{last}: {names}")
            # Tuning may end before its last step, and there may be more faces than images.
            progress.expect(progress.step + max(count - done // size, 1) * steps)
            began = time.perf_counter()
            found = _invert(settings, networks, batch, size, progress)
            seconds = (time.perf_counter() - began) / len(batch)
            done += len(batch)
            for i, (item, image) in enumerate(batch):
                one = found.one(i)
                if wrong := [name for name, x in one.figures.items() if not np.isfinite(x).all()]:
                    run.skip(item, UserError(_diverged(wrong[0], settings.invert.lr)))
                    continue
                yield item, image, one.measured(seconds=seconds)


def _faces(run: ImageRun, item: Item, settings: Align, side: int) -> list[tuple[Item, Aligned]]:
    """The faces of an image, with names of their own, the first one last."""
    named = []
    for i, face in enumerate(align_photo(item.path, settings, side), 1):
        further = dataclasses.replace(item, name=f"{item.name}_{i}", face_of=item.name)
        if i > 1:
            run.check_name(further)
        named.append((further if i > 1 else item, face))
    return named[::-1]


def _invert(
    settings: InversionSettings,
    networks: Networks,
    batch: Sequence[tuple[Item, Aligned]],
    size: int,
    progress: Progress,
) -> Inverted:
    """Inverts a batch, which is filled up with its last image to the size that is compiled."""
    filled = [batch[min(i, len(batch) - 1)] for i in range(size)]
    # By the name, so that neither the other images nor resuming change what an image draws.
    numbers = np.asarray([zlib.crc32(item.name.encode()) for item, _ in filled], np.uint32)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(settings.seed), numbers)
    pixels = np.stack([aligned.image for _, aligned in filled])
    return invert(networks, pixels, settings.invert, keys, progress.advance)


def _diverged(figure: str, lr: float) -> str:
    return f"{figure} is not finite: the optimisation diverged with invert.lr={lr:g}; expected a smaller rate"
