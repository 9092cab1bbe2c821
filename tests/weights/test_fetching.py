"""Published generators and VGGs: what is fetched, and what happens to broken downloads."""

import dataclasses
import errno
import hashlib
import http.server
import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors

from convert import stylegan2
from nada_jax import files
from nada_jax.errors import UserError
from nada_jax.weights import fetching, registry
from nada_jax.weights import loading as weights

ROOT = Path(__file__).parents[2]
CONTENT = bytes(range(256)) * 512
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves `content` at /good, /cut (half of it), /mended (whole from the second time) and /slow."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.asked = CONTENT, []

    def url(self, kind, file="official.pt"):
        return f"http://127.0.0.1:{self.server_port}/{kind}/{file}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        kind = self.path.split("/")[1]
        self.server.asked.append(kind)
        if kind == "absent":
            return self.send_error(404)
        content = self.server.content
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        half = len(content) // 2
        self.wfile.write(content[:half])
        if kind == "slow":
            threading.Event().wait(3)  # until the other process has come
        if kind not in ("cut", "mended") or (kind == "mended" and len(self.server.asked) > 1):
            self.wfile.write(content[half:])

    def log_message(self, *_):
        pass


@pytest.fixture(autouse=True)
def direct(monkeypatch):
    """No proxy stands between the tests and their server."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def server():
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """The directory of the cache, which is not there yet."""
    monkeypatch.setenv("NADA_JAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def publish(monkeypatch):
    """publish(url, sha256): puts another address behind ffhq1024, or another name; returns the entry."""
    monkeypatch.setattr("time.sleep", lambda _: None)  # between attempts

    def change(url, sha256=None, name="ffhq1024"):
        table = registry.VGGS if name in registry.VGGS else registry.GENERATORS
        entry = dataclasses.replace(table[name], url=url, sha256=sha256)
        monkeypatch.setitem(table, name, entry)
        return entry

    return change


@pytest.fixture
def official(server, tiny_generator, tmp_path):
    """The official file of the tiny generator, which the server has."""
    stylegan2.write(tiny_generator, tmp_path / "served.pt")
    server.content = (tmp_path / "served.pt").read_bytes()
    return tmp_path / "served.pt"


def content(directory):
    """Names of all files below a directory but for locks, which are empty and stay after a failure."""
    paths = [path for path in directory.rglob("*") if path.suffix != ".lock"]
    return sorted(str(path.relative_to(directory)) for path in paths)


def refusal(entry, cache):
    with pytest.raises(UserError) as error:
        fetching.fetch(entry, cache, "generator.weights")
    assert content(cache) == []
    return str(error.value)


def assert_same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)


# -- downloads ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sha256", [None, SHA256, SHA256[:8]])
def test_what_is_fetched_is_whole_and_its_hash_is_reported(sha256, server, cache, publish):
    entry = publish(server.url("good"), sha256)
    file, found = fetching.fetch(entry, cache, "generator.weights")
    assert file.read_bytes() == CONTENT
    assert found == SHA256
    assert content(cache) == [".ffhq1024", ".ffhq1024/official.pt"]
    assert fetching.fetch(entry, cache, "generator.weights") == (file, SHA256)
    assert server.asked == ["good"]
    fetching.discard(entry, cache)
    assert content(cache) == []


@pytest.mark.parametrize("sha256", ["ab" * 32, "abababab"])
def test_another_hash_is_refused_with_both(sha256, server, cache, publish):
    said = refusal(publish(server.url("good"), sha256), cache)
    assert f"its SHA-256 is {SHA256}, expected {sha256}" in said
    assert len(server.asked) == fetching.ATTEMPTS


def test_a_download_that_breaks_off_is_tried_again_and_then_reported(
    server, cache, publish, capsys
):
    said = refusal(publish(server.url("cut")), cache)
    assert (
        "generator.weights='ffhq1024' is not on this machine and cannot be fetched (the conn"
        in said
    )
    assert "the connection broke off" in said
    assert server.asked == ["cut"] * 3
    assert "attempt 3 of 3" in capsys.readouterr().out


def test_a_download_that_breaks_off_once_is_made_good(server, cache, publish):
    file, found = fetching.fetch(publish(server.url("mended"), SHA256), cache, "generator.weights")
    assert (file.read_bytes(), found) == (CONTENT, SHA256)
    assert content(cache) == [".ffhq1024", ".ffhq1024/official.pt"]


def test_a_file_that_is_gone_is_reported(server, cache, publish):
    assert "the server answers 404 Not Found" in refusal(publish(server.url("absent")), cache)


def test_without_a_network_one_sentence_says_what_to_put_where(cache, publish):
    url = "http://127.0.0.1:9/official.pt"
    said = refusal(publish(url), cache)
    assert "no connection to 127.0.0.1:9 (ConnectionError)" in said
    assert f"download {url} (382 MB)" in said
    assert f"put it at {cache}/official.pt, or give its path as generator.weights" in said
    assert "\n" not in said


def test_what_a_killed_process_left_is_removed(server, cache, publish):
    entry = publish(server.url("good"))
    (cache / ".ffhq1024").mkdir(parents=True)
    (cache / ".ffhq1024" / "tmpabc").write_bytes(CONTENT[:100])
    fetching.fetch(entry, cache, "generator.weights")
    assert content(cache) == [".ffhq1024", ".ffhq1024/official.pt"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "disk is full")])
def test_neither_ctrl_c_nor_a_full_disk_leaves_half_a_file(error, cache, publish, monkeypatch):
    def break_off(self, url, output, _):
        Path(output).write_bytes(CONTENT[:1000])
        raise error

    monkeypatch.setattr("pooch.HTTPDownloader.__call__", break_off)
    with pytest.raises((KeyboardInterrupt, UserError)) as raised:
        fetching.fetch(publish("http://127.0.0.1:9/x.pkl"), cache, "generator.weights")
    assert content(cache) == []
    if raised.type is UserError:
        assert f"'ffhq1024' cannot be kept in {cache} (disk is full); make room" in str(
            raised.value
        )


def test_a_cache_that_cannot_be_written_is_reported(server, publish, tmp_path, monkeypatch):
    publish(server.url("good"))
    (tmp_path / "file").touch()
    monkeypatch.setenv("NADA_JAX_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match=r"cannot be kept in .*file/cache .*\$NADA_JAX_CACHE"):
        weights.load_generator("ffhq1024")
    assert server.asked == []


def test_a_terminal_sees_a_bar(server, cache, publish, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    fetching.fetch(publish(server.url("good")), cache, "generator.weights")
    assert "B/s" in terminal.getvalue()


# -- generators by name ---------------------------------------------------------------------------------


def test_a_generator_is_fetched_and_converted_once(
    server, official, tiny_generator, cache, publish
):
    publish(server.url("good"))
    assert_same(weights.load_generator("ffhq1024"), tiny_generator)
    assert_same(weights.load_generator("ffhq1024"), tiny_generator)
    assert server.asked == ["good"]
    assert [path.name for path in cache.iterdir()] == ["ffhq1024.safetensors"]
    with safetensors.safe_open(cache / "ffhq1024.safetensors", framework="numpy") as file:
        header = file.metadata()
    assert header["source"] == server.url("good")
    assert header["sha256"] == hashlib.sha256(official.read_bytes()).hexdigest()
    assert header["license"].startswith("Nvidia Source Code License-NC")


def test_what_is_no_generator_is_reported_and_not_kept(server, cache, publish):
    publish(server.url("good"))
    with pytest.raises(UserError) as error:
        weights.load_generator("ffhq1024", field="source.weights")
    assert f"source.weights='ffhq1024': what {server.url('good')} sent is of no use" in str(
        error.value
    )
    assert content(cache) == []


def test_a_download_that_could_not_be_converted_for_want_of_space_is_not_fetched_again(
    server, official, tiny_generator, cache, publish, monkeypatch
):
    publish(server.url("good"))

    def full(*_):
        raise safetensors.SafetensorError("no space")

    with monkeypatch.context() as patch, pytest.raises(UserError, match=r"no space\); make room"):
        patch.setattr("safetensors.numpy.save_file", full)
        weights.load_generator("ffhq1024")
    assert content(cache) == [".ffhq1024", ".ffhq1024/official.pt"]
    assert_same(weights.load_generator("ffhq1024"), tiny_generator)
    assert content(cache) == ["ffhq1024.safetensors"]
    assert server.asked == ["good"]


@pytest.mark.parametrize("name", ["official.pt", "ffhq1024.pt", "ffhq1024.pth"])
def test_a_file_put_there_by_hand_is_converted_and_stays(
    name, server, official, tiny_generator, cache, publish
):
    publish(server.url("absent"))
    cache.mkdir()
    (cache / name).write_bytes(official.read_bytes())
    assert_same(weights.load_generator("ffhq1024"), tiny_generator)
    assert content(cache) == sorted([name, "ffhq1024.safetensors"])
    (cache / name).unlink()
    assert_same(weights.load_generator("ffhq1024"), tiny_generator)
    assert server.asked == []


def test_a_file_put_there_by_hand_with_another_hash_is_refused(server, official, cache, publish):
    publish(server.url("good"), "abababab")
    cache.mkdir()
    (cache / "ffhq1024.pt").write_bytes(official.read_bytes())
    with pytest.raises(UserError) as error:
        weights.load_generator("ffhq1024")
    assert f"{cache}/ffhq1024.pt is not the published file: its SHA-256 is" in str(error.value)
    assert f"download {server.url('good')} (382 MB)" in str(error.value)
    assert content(cache) == ["ffhq1024.pt"] and server.asked == []


def test_a_file_in_a_read_only_cache_is_used_as_it_is(
    server, official, tiny_generator, cache, publish, monkeypatch
):
    publish(server.url("absent"))
    cache.mkdir()
    (cache / "official.pt").write_bytes(official.read_bytes())
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert_same(weights.load_generator("ffhq1024"), tiny_generator)
    assert [path.name for path in cache.iterdir()] == ["official.pt"]


def test_two_processes_share_one_download(
    server, official, tiny_generator, cache, monkeypatch, tmp_path, capsys
):
    code = f"""
import dataclasses
from nada_jax.weights import loading, native, registry
entry = registry.GENERATORS["ffhq1024"]
registry.GENERATORS["ffhq1024"] = dataclasses.replace(entry, url={server.url("slow")!r})
print("ready", flush=True)
path = input()
native.save_model(loading.load_generator("ffhq1024"), path)
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    other = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, text=True, **pipes)
    other.stdout.readline()
    entry = dataclasses.replace(registry.GENERATORS["ffhq1024"], url=server.url("slow"))
    monkeypatch.setitem(registry.GENERATORS, "ffhq1024", entry)
    other.stdin.write(f"{tmp_path / 'theirs.safetensors'}\n")
    other.stdin.flush()
    ours = weights.load_generator("ffhq1024")
    out, err = other.communicate(timeout=60)
    assert other.returncode == 0, err
    assert server.asked == ["slow"]
    said = out + capsys.readouterr().out
    assert said.count("waiting for another process that fetches ffhq1024") == 1
    assert [path.name for path in cache.iterdir()] == ["ffhq1024.safetensors"]
    for found in (ours, weights.load_generator(tmp_path / "theirs.safetensors")):
        assert_same(found, tiny_generator)


# -- VGGs by name ---------------------------------------------------------------------------------------


@pytest.fixture
def served_vgg(server, tmp_path):
    """The hash of a first convolution in torchvision's layout, with original biases, which the server has."""
    torch = pytest.importorskip("torch")
    bias = torch.tensor([0.7301776, 0.0649363, 0.0342885, 0.8260386, 0.2578029, 0.5486766])
    bias = torch.cat([bias, torch.tensor([-0.0124385, 0.3478994])])
    state = {"features.0.weight": torch.ones(8, 3, 3, 3), "features.0.bias": bias}
    torch.save(state | {"classifier.0.bias": torch.ones(4)}, tmp_path / "vgg.pth")
    server.content = (tmp_path / "vgg.pth").read_bytes()
    return hashlib.sha256(server.content).hexdigest()


def test_a_vgg_is_fetched_and_converted_once(served_vgg, server, cache, publish):
    url = server.url("good", "vgg19.pth")
    publish(url, served_vgg[:8], "vgg19-caffe")
    first, second = weights.load_vgg("vgg19-caffe"), weights.load_vgg("vgg19-caffe")
    assert first.architecture.preprocessing == "caffe" and first.architecture.widths == (8,)
    assert_same(first, second)
    assert server.asked == ["good"] and content(cache) == ["vgg19-caffe.safetensors"]
    header = files.read_metadata(cache / "vgg19-caffe.safetensors")
    assert (header["source"], header["sha256"]) == (url, served_vgg)
    assert header["license"].startswith("of the authors of VGG")


def test_a_vgg_that_could_not_be_read_is_not_fetched(
    served_vgg, server, cache, publish, monkeypatch
):
    publish(server.url("good", "vgg19.pth"), None, "vgg19")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match="pip install -r requirements-convert.txt"):
        weights.load_vgg("vgg19")
    assert server.asked == []


def test_a_vgg_without_a_network_says_which_file_to_put_where(cache, publish):
    publish("http://127.0.0.1:9/vgg19-dcbb9e9d.pth", None, "vgg19")
    with pytest.raises(UserError) as error:
        weights.load_vgg("vgg19")
    assert str(error.value) == (
        "vgg.weights='vgg19' is not on this machine and cannot be fetched (no connection to 127.0.0.1:9 "
        "(ConnectionError)); download http://127.0.0.1:9/vgg19-dcbb9e9d.pth (575 MB) where there is a "
        f"network and put it at {cache}/vgg19-dcbb9e9d.pth, or give its path as vgg.weights"
    )
