"""Files are whole or not there."""

import errno
import os

import ml_dtypes
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


def test_equal_content_gives_equal_bytes(tmp_path):
    path, facts = tmp_path / "x.safetensors", {name: f'{name} "é"\n\x7f😀' for name in "hgfedcba"}
    contents = set()
    for _ in range(6):  # the library draws the order of 8 facts by chance
        files.write_safetensors(path, {"é": np.ones(3), "b": np.zeros(2)}, facts)
        contents.add(path.read_bytes())
        arrays, metadata = files.read_safetensors(path)
        assert arrays["é"].tolist() == [1, 1, 1] and metadata == facts
    assert len(contents) == 1
    files.write_safetensors(path, {"a": np.ones(1)}, {})
    assert files.read_safetensors(path)[1] == {}


def test_a_type_that_numpy_lacks_is_named(tmp_path):
    path = tmp_path / "x.safetensors"
    files.write_safetensors(path, {"a": np.ones(2, ml_dtypes.float8_e4m3fn)}, {})
    with pytest.raises(
        UserError, match="x.safetensors has arrays of a type that is not read.*float8"
    ):
        files.read_safetensors(path)


@pytest.mark.parametrize("name", ["https://x.org/a.pt", "gs://b/c", "HTTP://x", "https:/x/a.pt"])
def test_an_address_is_no_file(name):
    with pytest.raises(UserError, match=f"^f='.*' is an address, .* `curl -LO {name}`"):
        files.check_local(name, f"f={name!r}")
    with pytest.raises(UserError, match="; use a name$"):
        files.check_local(name, name, "use a name")


@pytest.mark.parametrize(
    "name", ["", "a.pt", "/a/b.pt", "~/a", "C:/a.pt", "openai/clip", "./a:b/c"]
)
def test_what_is_no_address_passes(name):
    files.check_local(name, name)


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


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{]", "x.json is not JSON"),
        (b"[1]", "x.json holds a list; expected a JSON object"),
        (b'{\n"a": "\xe9"}', "x.json is not UTF-8: line 2 has the byte 0xe9; save it as UTF-8"),
        (b"[" * 10**6, "x.json is nested too deeply"),
    ],
)
def test_what_is_no_json_object_is_refused_in_one_sentence(tmp_path, content, said):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=said):
        files.read_json(path)


def test_a_byte_order_mark_is_no_part_of_a_text(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"a": 1}', encoding="utf-8-sig")
    assert files.read_json(path) == {"a": 1}
    with pytest.raises(UserError, match="cannot read .*absent.txt: No such file"):
        files.read_text(tmp_path / "absent.txt")


def test_arrays_are_written_as_they_read_whatever_their_strides(tmp_path):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    given = {"turned": array.T, "backwards": array[::-1], "scalar": np.float32(1)}
    files.write_safetensors(tmp_path / "x.safetensors", given, {})
    found, _ = files.read_safetensors(tmp_path / "x.safetensors")
    for name, expected in given.items():
        np.testing.assert_array_equal(found[name], expected)
        assert found[name].shape == np.shape(expected)
