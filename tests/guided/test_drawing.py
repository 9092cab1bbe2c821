"""Batches of pictures that are drawn together."""

from types import SimpleNamespace

import pytest

from nada_jax.devices.mesh import MeshShape
from nada_jax.guided import drawing
from nada_jax.guided.drawing import Picture


@pytest.mark.parametrize(
    ("count", "most", "data", "fsdp", "size"),
    [
        (1, 4, 0, 1, 1),  # no more than there is to draw
        (5, 4, 0, 1, 3),  # two batches, one of them with one repeated
        (8, 4, 0, 1, 4),
        (5, 8, 2, 1, 6),  # what two devices can share
        (5, 8, 2, 2, 8),
        (1, 1, 2, 1, 1),  # refused by make_mesh
    ],
)
def test_batches_are_as_even_as_devices_allow(count, most, data, fsdp, size):
    assert drawing.batch_size(count, most, MeshShape(data=data, fsdp=fsdp)) == size


def test_the_last_batch_repeats_its_last_picture_and_each_knows_its_prompt():
    prompts = ["a cat", "a dog"]
    pictures = [Picture(f"{x}_{i}", prompt=x, seed=i) for x in prompts for i in range(2)]
    pictures = pictures[:3]
    found = list(drawing.split(SimpleNamespace(steps=1), prompts, pictures, 2))
    assert [batch.rows for batch in found] == [(0, 0), (1, 1)]
    assert found[1].pictures == (pictures[2], pictures[2])
    assert found[0].work != found[1].work


def test_another_prompt_of_the_same_name_is_another_picture():
    assert Picture("a", prompt="a").digest != Picture("a", prompt="a!").digest
