"""The task that serves the page: how it begins, and how it ends."""

import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from configs import demo as demo_config
from nada_jax.errors import UserError
from nada_jax.tasks import demo

ROOT = Path(__file__).parents[2]


def test_without_gradio_a_sentence_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install -r requirements-demo.txt"):
        demo.run(demo_config.get_config(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_sigterm_ends_the_page_while_it_is_open(tiny_file, tmp_path):
    pytest.importorskip("gradio")
    fields = {
        "generator.weights": tiny_file, "encoder.weights": "", "lpips.weights": "", "judge": "",
        "demo.port": 0, "demo.auth": "me:secret",
    }  # fmt: skip
    command = [
        sys.executable,
        "main.py",
        "--config=configs/demo.py",
        f"--workdir={tmp_path / 'run'}",
    ]
    command += [f"--config.{field}={value}" for field, value in fields.items()]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        said = process.stdout.readline()
        assert said.startswith("the page: http://127.0.0.1:"), process.stderr.read()
        url = said.split()[2]
        manager = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        manager.add_password(None, url, "me", "secret")
        opener = urllib.request.build_opener(
            urllib.request.HTTPBasicAuthHandler(manager), urllib.request.HTTPCookieProcessor()
        )
        assert b"gradio_config" in opener.open(url, timeout=30).read()
        with opener.open(f"{url}/gradio_api/heartbeat/x", timeout=30) as stream:  # an open page
            assert stream.readline()
            process.send_signal(signal.SIGTERM)
            _, complaints = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 143
    assert "Traceback" not in complaints
    assert json.loads((tmp_path / "run" / "config.json").read_text())["demo"]["auth"] == ""
    assert not (tmp_path / "run" / ".nada_jax.lock").exists()
