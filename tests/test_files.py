"""Files are whole or not there."""

import errno
import os

import numpy as np
import pytest

from nada_jax import files, images, trees
from nada_jax.errors import UserError


def test_a_failing_writer_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "sub" / "file.txt"
    files.write_text(path, "old")
    with pytest.raises(RuntimeError), files.atomic(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_finished_files_can_be_read_by_others(tmp_path):
    files.write_safetensors(tmp_path / "x.safetensors", {"a": np.ones(2)}, {"k": "v"})
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    assert (tmp_path / "x.safetensors").stat().st_mode == ordinary.stat().st_mode
    arrays, metadata = files.read_safetensors(tmp_path / "x.safetensors")
    assert np.array_equal(arrays["a"], np.ones(2)) and metadata == {"k": "v"}


def test_a_path_below_a_file_is_refused_by_name(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write .*file/x\.txt: "):
        files.write_text(tmp_path / "file" / "x.txt", "text")


def test_the_home_directory_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    files.write_text("~/x.txt", "text")
    assert (tmp_path / "x.txt").read_text() == "text"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_what_the_disk_refuses_names_the_file_and_leaves_the_old_one(code, tmp_path):
    path = tmp_path / "file.txt"
    files.write_text(path, "old")
    said = f"cannot write {path}: {os.strerror(code)}"
    with pytest.raises(UserError, match=said), files.atomic(path) as temporary:
        temporary.write_text("half")
        raise OSError(code, os.strerror(code))
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(UserError, match=said), files.writing(path):
        raise OSError(code, os.strerror(code))


def test_trees_flatten_and_back():
    tree = {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
    assert trees.flatten(tree) == {"a.b": 1, "a.c.d": 2, "e": 3}
    assert trees.unflatten(trees.flatten(tree)) == tree


def test_a_grid_fills_rows_and_clips_colours():
    batch = np.stack([np.full((2, 3, 3), value) for value in (-2.0, 0.0, 5.0)])
    grid = images.grid(batch, columns=2, gap=1)
    assert grid.shape == (5, 7, 3)
    assert [grid[0, 0, 0], grid[0, 4, 0], grid[3, 0, 0], grid[3, 4, 0]] == [0, 128, 255, 255]
    assert np.all(grid[2] == 255) and np.all(grid[:, 3] == 255)
