import argparse
import builtins
import os
import pickle
import warnings

import numpy as np
import pytest

from convert.unpickle import reader
from nada_jax.errors import UserError

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_come_back_as_numpy_in_their_nesting(tmp_path, zipped):
    path = tmp_path / "model.pt"
    content = {
        "g_ema": {"weight": torch.arange(6.0).reshape(2, 3).T, "half": torch.ones(2).half()},
        "parameter": torch.nn.Parameter(torch.tensor(2.0)),
        "brain": torch.full((2,), 1.5, dtype=torch.bfloat16),
        "steps": [torch.tensor([3]), 4],
        "args": argparse.Namespace(size=64),
    }
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    read = reader.read(path)
    np.testing.assert_array_equal(read["g_ema"]["weight"], [[0, 3], [1, 4], [2, 5]])
    assert read["g_ema"]["half"].dtype == np.float16
    assert read["parameter"] == 2 and read["parameter"].shape == ()
    assert read["brain"].dtype == np.float32 and read["brain"].tolist() == [1.5, 1.5]
    assert read["steps"][0] == 3 and read["steps"][1] == 4
    assert read["args"] == {"size": 64}


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch '{self.path}'",)


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
def test_code_in_a_checkpoint_does_not_run(tmp_path, kind):
    path, sprung = tmp_path / "model.pt", tmp_path / "sprung"
    content = {"trap": Trap(sprung), "weight": torch.ones(2)}
    if kind == "pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(UserError, match="model.pt.*asks for .*system"):
        reader.read(path)
    assert not sprung.exists()


def test_a_truncated_file_says_so(tmp_path):
    for zipped in (True, False):
        path = tmp_path / f"{zipped}.pt"
        torch.save({"w": torch.ones(1000)}, path, _use_new_zipfile_serialization=zipped)
        path.write_bytes(path.read_bytes()[:900])
        with pytest.raises(UserError, match=f"{zipped}.pt: .*cut short"):
            reader.read(path)


def test_what_is_no_checkpoint_says_so(tmp_path):
    text, empty, listed = (tmp_path / f"{name}.pt" for name in ("text", "empty", "listed"))
    text.write_text("hello world")
    empty.touch()
    torch.save([torch.ones(1)], listed)
    for path, said in (
        (text, "not a PyTorch checkpoint"),
        (empty, "is empty"),
        (listed, "holds a list"),
        (tmp_path, "is a directory"),
        (tmp_path / "absent.pt", "does not exist"),
    ):
        with pytest.raises(UserError, match=f"{path}.*{said}"):
            reader.read(path)


def test_a_torchscript_archive_gives_its_state_dict_and_runs_nothing(tmp_path, monkeypatch):
    layers = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).half()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch would rather export
        module = torch.jit.script(layers)
        torch.jit.save(module, tmp_path / "jit.pt")
    monkeypatch.setattr(torch.jit, "load", None)
    read = reader.read(tmp_path / "jit.pt")
    expected = module.state_dict()
    assert read.keys() == expected.keys()
    for key, tensor in expected.items():
        np.testing.assert_array_equal(read[key], tensor.numpy())
        assert read[key].dtype == tensor.numpy().dtype


def test_a_missing_torch_says_what_to_install(tmp_path, monkeypatch):
    path, find = tmp_path / "model.pt", builtins.__import__
    torch.save({}, path)

    def without_torch(name, *args, **kwargs):
        if name == "torch":
            raise ImportError(name)
        return find(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_torch)
    with pytest.raises(UserError, match="requirements-convert.txt"):
        reader.read(path)
