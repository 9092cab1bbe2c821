"""Attacks: nothing that a file says is run, memory stays bounded, and the message is plain."""

import builtins
import io
import os
import pickle
import posix
import re
import struct
import subprocess
import tracemalloc
import zipfile

import numpy as np
import pytest

from convert import kinds
from convert.__main__ import main
from convert.unpickle import pickles, reader
from nada_jax.errors import UserError
from tests.convert import official

torch = pytest.importorskip("torch")

MEBIBYTE = 2**20


class Calls:
    """Has a function called when it is unpickled."""

    def __init__(self, function, *arguments, state=None):
        self.function, self.arguments, self.state = function, arguments, state

    def __reduce__(self):
        return self.function, self.arguments, self.state


@pytest.fixture
def sprung(tmp_path):
    """A file that an attack makes."""
    return tmp_path / "sprung"


def attacks(sprung):
    touch = f"touch '{sprung}'"
    code = f"open({str(sprung)!r}, 'w')"
    return {
        "system": (Calls(os.system, touch), "system"),
        "posix": (Calls(posix.system, touch), "system"),
        "popen": (Calls(subprocess.Popen, ("sh", "-c", touch)), "Popen"),
        "eval": (Calls(builtins.eval, code), "eval"),
        "exec": (Calls(builtins.exec, code), "exec"),
        "getattr": (Calls(builtins.getattr, "", "format"), "getattr"),
        "nested": ([{"a": Calls(set, (Calls(os.system, touch),))}], "system"),
        "import": (Calls(__import__, "os"), "__import__"),
        "partial": (Calls(__import__("functools").partial, os.system), "partial"),
        "load": (Calls(pickle.loads, pickle.dumps(Calls(os.system, touch))), "loads"),
        "numpy": (Calls(np.fromfile, str(sprung)), "fromfile"),
        "state": (Calls(set, (), state=Calls(os.system, touch)), "system"),
    }


@pytest.mark.parametrize("name", ["system", "eval", "nested", "state"])
def test_an_archive_with_nvidias_networks_is_read_as_strictly(name, sprung, tmp_path, capsys):
    attack, offending = attacks(sprung)[name]
    other = official.Persistent("Discriminator", {"weight": np.ones((2, 2), np.float32)})
    path = tmp_path / "g.pt"
    path.write_bytes(official.torch_archive({"G_ema": other, "more": attack}))
    assert main(["stylegan2", str(path), str(tmp_path / "g.safetensors")]) == 2
    assert not sprung.exists() and not (tmp_path / "g.safetensors").exists()
    assert re.search(rf"asks for \w+\.{offending}, and only tensors", capsys.readouterr().err)


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("name", attacks(""))
def test_no_function_outside_the_list_is_called(name, protocol, sprung, tmp_path, capsys):
    attack, offending = attacks(sprung)[name]
    path = tmp_path / "g.pkl"
    path.write_bytes(pickle.dumps({"G_ema": attack}, protocol))
    assert main(["stylegan2", str(path), str(tmp_path / "g.safetensors")]) == 2
    said = capsys.readouterr().err
    assert not sprung.exists() and not (tmp_path / "g.safetensors").exists()
    assert said.count("\n") == 1
    assert re.search(rf"asks for \w+\.{offending}, and only tensors", said)  # old names of modules


def test_source_code_in_a_pickle_is_not_run(tiny_generator, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where official.SOURCE would make its file
    module = official.torch_module(tiny_generator)
    (tmp_path / "g.pkl").write_bytes(official.torch_pickle({"G_ema": module}))
    assert main(["stylegan2", "g.pkl", "g.safetensors"]) == 0
    network = official.tensorflow_network(tiny_generator)
    (tmp_path / "t.pkl").write_bytes(official.tensorflow_pickle((network,) * 3))
    assert main(["stylegan2", "t.pkl", "t.safetensors"]) == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "g.pkl", "g.safetensors", "t.pkl", "t.safetensors",
    ]  # fmt: skip


def test_a_storage_within_a_pickle_is_read_as_strictly(sprung, tmp_path):
    inner = io.BytesIO()
    torch.save(Calls(os.system, f"touch '{sprung}'"), inner, _use_new_zipfile_serialization=False)
    content = {"G_ema": Calls(torch.storage._load_from_bytes, inner.getvalue())}
    (tmp_path / "g.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match="asks for posix.system"):
        pickles.read_pickle(tmp_path / "g.pkl")
    assert not sprung.exists()


def named(name):
    """The opcodes that name a function."""
    return b"c" + "\n".join(name.rsplit(".", 1)).encode() + b"\n"


STATES = (
    b"}X\x01\0\0\0xK\x01s",
    b"N}X\x05\0\0\0arrayK\x01s\x86",
    b"N}X\x08\0\0\0__call__K\x01s\x86",
)


@pytest.mark.parametrize("state", STATES)
def test_a_pickle_cannot_change_what_it_names_or_made(state, tmp_path):
    storage = official.storage_pickle(np.ones(4, np.float32))
    for made in (named("torch.storage._load_from_bytes"), storage[2:-1], b"K\x01", b"]", b"\x8f"):
        (tmp_path / "g.pkl").write_bytes(b"\x80\x04" + made + state + b"b.")
        with pytest.raises(UserError, match="cannot read"):
            pickles.read_pickle(tmp_path / "g.pkl")


def test_only_names_are_called(tmp_path):
    for called in (b"X\x01\0\0\0x", b"]", b"K\x01", named("torch.Size") + b")R"):
        for arguments in (b")R.", b")\x81.", b"]R.", b")}\x92."):
            (tmp_path / "g.pkl").write_bytes(b"\x80\x04" + called + arguments)
            with pytest.raises(UserError, match="cannot read"):
                pickles.read_pickle(tmp_path / "g.pkl")


def laughs(levels=60):
    value = ["ha"] * 10
    for _ in range(levels):
        value = [value] * 10
    return value


def storage_claims(size, stride):
    """A tensor of four bytes that says it is larger."""
    loaded = Calls(torch.storage._load_from_bytes, official.storage_bytes(np.ones(1, np.float32)))
    return Calls(torch._utils._rebuild_tensor_v2, loaded, 0, size, stride, False, {})


def calls_of_calls(levels):
    """Bytes whose reading reads bytes, whose reading ...: ten times each."""
    content = b"\x80\x02N."
    for _ in range(levels):
        kept = b"B" + struct.pack("<I", len(content)) + content + b"q\x00"
        name = named("torch.storage._load_from_bytes") + b"q\x01"
        content = b"\x80\x02" + kept + name + b"(" + b"h\x01h\x00\x85R" * 10 + b"t."
    return content


def copies(name, arguments, times):
    """Calls of one function with the same large argument."""
    return (
        b"\x80\x02"
        + arguments
        + b"q\x00"
        + named(name)
        + b"q\x01]("
        + b"h\x01h\x00\x85R" * times
        + b"e."
    )


TUPLES = b")" + b"2\x86" * 60  # a tuple of twice the same tuple of twice the same tuple ...
MANY = b"(" + b"K\x01" * 20_000 + b"t"
BOMBS = {
    "laughs": pickle.dumps({"G_ema": laughs()}),
    "memo": b"\x80\x02}r\xff\xff\xff\x3f.",
    "memo, text": b"}p1000000000\n.",
    "bytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.",
    "bytearray": b"\x80\x05\x96" + struct.pack("<Q", 2**31) + b"x.",
    "string": b"\x80\x02X" + struct.pack("<I", 2**32 - 1) + b"x.",
    "frame": b"\x80\x04\x95" + struct.pack("<Q", 2**36) + b"}.",
    "integer": b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"\x01.",
    "depth": b"\x80\x02" + b"]" * 10**6 + b"a" * (10**6 - 1) + b".",
    "stride": pickle.dumps({"G_ema": storage_claims((2**20, 2**20), (0, 0))}),
    "size": pickle.dumps({"G_ema": storage_claims((2**40,), (1,))}),
    "negative": pickle.dumps({"G_ema": storage_claims((-1, 4), (1, 1))}),
    "calls": calls_of_calls(9),
    "key": b"\x80\x02}" + TUPLES + b"Ns.",
    "keys": b"\x80\x02}(" + TUPLES + b"Nu.",
    "set": b"\x80\x04\x8f(" + TUPLES + b"\x90.",
    "frozen": b"\x80\x04(" + TUPLES + b"\x91.",
    "items of a set": b"\x80\x04\x8f(N" + TUPLES + b"u.",
    "storage": b"\x80\x02(X\x07\0\0\0storage" + TUPLES + b"X\x01\0\0\x000NNtQ.",
    "name": b"\x80\x02" + named("numpy.dtype") + TUPLES + b"\x85R.",
    "copies": copies("torch.Size", MANY, 10_000),
    "encodings": copies("_codecs.encode", b"X" + struct.pack("<I", 50_000) + b"x" * 50_000, 10_000),
}


@pytest.mark.parametrize("name", BOMBS)
def test_memory_stays_bounded(name, tmp_path):
    path = tmp_path / "g.pkl"
    path.write_bytes(BOMBS[name])
    tracemalloc.start()
    try:
        with pytest.raises(UserError) as error:
            reader_of_generators(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 200 * path.stat().st_size + 2 * MEBIBYTE
    assert len(str(error.value)) < 1000


def reader_of_generators(path):
    return kinds.read("generator", path)


def test_arrays_that_share_memory_do_not_multiply(tmp_path):
    content = {f"w{i}": torch.zeros(1).expand(2**20, 2**20) for i in range(3)}
    torch.save(content, tmp_path / "g.pt")
    with pytest.raises(UserError, match="claims tensors larger than the file"):
        reader.read(tmp_path / "g.pt")


def test_lists_that_repeat_lists_stay_as_small_as_they_are(tmp_path):
    torch.save({"epochs": laughs(), "w": torch.ones(2)}, tmp_path / "g.pt")
    assert reader.read(tmp_path / "g.pt")["w"].tolist() == [1, 1]


def test_depth_without_end_is_reported(tmp_path):
    pickled = b"\x80\x02}X\x01\x00\x00\x00w" + b"]" * 5000 + b"a" * 4999 + b"s."
    with zipfile.ZipFile(tmp_path / "g.pt", "w") as archive:
        for name, content in (("data.pkl", pickled), ("version", b"3\n"), ("byteorder", b"little")):
            archive.writestr(f"g/{name}", content)
    with pytest.raises(UserError, match="nested too deeply"):
        reader.read(tmp_path / "g.pt")

    module = official.Persistent("Layer", {"weight": np.ones(1, np.float32)})
    for _ in range(100):
        module = official.Persistent("Layer", {}, {"m": module})
    (tmp_path / "g.pkl").write_bytes(official.torch_pickle({"G_ema": module}))
    with pytest.raises(UserError, match="occurs in it twice, or too deep"):
        reader_of_generators(tmp_path / "g.pkl")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pytorch_file_cannot_keep_the_reader_busy_for_ever(zipped, tmp_path):
    torch.save({"w": torch.ones(2)}, tmp_path / "g.pt", _use_new_zipfile_serialization=zipped)
    pickled = b"\x80\x02}" + TUPLES + b"Ns."
    if zipped:
        with zipfile.ZipFile(tmp_path / "g.pt", "w") as archive:
            for name, content in (("data.pkl", pickled), ("version", b"3\n")):
                archive.writestr(f"g/{name}", content)
    else:
        start = (tmp_path / "g.pt").read_bytes()
        end = start.index(b"}q\x00X\x01\x00\x00\x00w") - 2  # behind magic number and system
        (tmp_path / "g.pt").write_bytes(start[:end] + pickled)
    with pytest.raises(UserError, match="cannot read"):
        reader.read(tmp_path / "g.pt")


@pytest.mark.parametrize("kind", ["torch", "tensorflow"])
def test_a_setting_of_settings_without_end_is_no_setting(kind, tiny_generator, tmp_path):
    value = ()
    for _ in range(60):
        value = (value, value)
    if kind == "torch":
        module = official.torch_module(tiny_generator, conv_clamp=value)
        content = official.torch_pickle({"G_ema": module})
    else:
        network = official.tensorflow_network(tiny_generator, conv_clamp=value)
        content = official.tensorflow_pickle((network,) * 3)
    (tmp_path / "g.pkl").write_bytes(content)
    with pytest.raises(UserError, match="conv_clamp is"):
        reader_of_generators(tmp_path / "g.pkl")


def test_one_memory_under_many_names_is_refused(tmp_path):
    weight = np.ones((100, 100), np.float32)
    module = official.Persistent("Generator", {})
    tensor = torch.tensor(weight)
    module.meta["state"]["_parameters"] = {f"w{i}": tensor for i in range(1000)}
    (tmp_path / "g.pkl").write_bytes(official.torch_pickle({"G_ema": module}))
    with pytest.raises(UserError, match="claims tensors larger than the file"):
        reader_of_generators(tmp_path / "g.pkl")


def test_what_a_file_says_cannot_steer_a_terminal_or_fill_it(tmp_path, capsys):
    (tmp_path / "g.pkl").write_bytes(b"\x80\x04\x8c\x04evil\x8c\x0d\x1b[2J\nerror: x\x93.")
    assert main(["stylegan2", str(tmp_path / "g.pkl"), str(tmp_path / "g.safetensors")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "\x1b" not in said and "evil." in said
    torch.save({f"strange{i}": torch.ones(1) for i in range(5000)}, tmp_path / "g.pt")
    assert main(["stylegan2", str(tmp_path / "g.pt"), str(tmp_path / "g.safetensors")]) == 2
    said = capsys.readouterr().err
    assert "strange0" in said and "and 4989 more" in said and len(said) < 2500


def test_an_archive_that_unpacks_to_more_than_pytorch_packs_is_refused(tmp_path):
    torch.save({"w": torch.ones(2)}, tmp_path / "g.pt")
    with zipfile.ZipFile(tmp_path / "g.pt", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("g/data/1", bytes(100 * MEBIBYTE))
    with pytest.raises(UserError, match="compressed, to 104,857,"):
        reader.read(tmp_path / "g.pt")


@pytest.mark.parametrize("offending", ["os.system", "torch.jit.load", "builtins.eval"])
def test_a_torchscript_archive_that_names_functions_is_refused(offending, sprung, tmp_path):
    module, name = offending.rsplit(".", 1)
    evil = f"c{module}\n{name}\n(Vtouch {sprung}\ntR.".encode()
    with zipfile.ZipFile(tmp_path / "g.pt", "w") as archive:
        archive.writestr("g/constants.pkl", b"\x80\x02).")
        archive.writestr("g/data.pkl", evil)
    with pytest.raises(UserError, match=f"asks for {offending}"):
        reader.read(tmp_path / "g.pt")
    assert not sprung.exists()


# -- damage ------------------------------------------------------------------------------------------


@pytest.fixture(params=["torch", "archive", "tensorflow"])
def whole(request, tiny_generator):
    """The bytes of a good pickle, or of an archive with one."""
    if request.param == "archive":
        return official.torch_archive(official.torch_module(tiny_generator))
    if request.param == "torch":
        return official.torch_pickle({"G_ema": official.torch_module(tiny_generator)})
    return official.tensorflow_pickle((official.tensorflow_network(tiny_generator),) * 3)


def test_a_truncated_pickle_is_refused_wherever_it_ends(whole, tmp_path):
    path = tmp_path / "g.pkl"
    for end in [0, 1, 2, 10, *range(50, len(whole) - 1, len(whole) // 60)]:
        path.write_bytes(whole[:end])
        with pytest.raises(UserError, match="g.pkl: it is cut short, damaged"):
            reader_of_generators(path)


def test_a_flipped_bit_never_ends_in_anything_but_a_sentence(whole, tmp_path):
    path, random, refused = tmp_path / "g.pkl", np.random.default_rng(0), 0
    names = sorted({whole.find(word) for word in (b"synthesis", b"Const", b"weight", b"_modules")})
    places = [*random.integers(0, len(whole), 30), *range(60), *(p for p in names if p > 0)]
    for place in places:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << int(random.integers(8))
        path.write_bytes(flipped)
        try:
            reader_of_generators(path)  # a flipped bit of a weight is a weight
        except UserError:
            refused += 1
    assert refused > 20


def test_a_flipped_bit_of_a_zip_is_found_by_its_check_sum(tmp_path):
    path = tmp_path / "g.pt"
    torch.save({"w": torch.ones(1000)}, path)
    content = bytearray(path.read_bytes())
    content[content.find(struct.pack("<f", 1.0) * 10) + 100] ^= 4
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"g.pt: .*data/0 in it is damaged \(wrong check sum\)"):
        reader.read(path)
