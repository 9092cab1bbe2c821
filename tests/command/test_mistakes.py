"""What is wrong with a config file is told with its name, and with the line where one is known."""

import subprocess
import sys
from pathlib import Path

import pytest

from nada_jax.command.mistakes import explain

ROOT = Path(__file__).parents[2]
BASE = "from configs.default import get_config as base\n"
NUMPY = BASE + "import numpy as np\ndef get_config():\n    c = base()\n"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def get_config():\n    assert False", "{}, line 2: AssertionError"),
        ("def get_config():\n    raise Exception('boom')", "{}, line 2: boom"),
        ("def get_config():\n    raise ValueError('a\\nb')", "{}, line 2: a b"),
        ("def get_config():\n    return {}['z']", "{}, line 2: KeyError: 'z'"),
        (
            "def get_config():\n    open('nofile')",
            "{}, line 2: FileNotFoundError: [Errno 2] No such",
        ),
        ("\ndef get_config(:", "{}, line 2: invalid syntax"),
        ("import nonesuch", "{}, line 1: ModuleNotFoundError: No module named 'nonesuch'"),
        ("raise SystemExit('bye')", "{}, line 1: SystemExit: bye"),
        ("x = 1", "{} has no get_config; expected a function of this name"),
        ("def get_config():\n    pass", "get_config in {} returns None; expected a ConfigDict"),
        (
            "def get_config():\n    return {}",
            "get_config in {} returns a dict; expected a ConfigDict",
        ),
        (
            "from ml_collections import ConfigDict as get_config",
            "{} has no field task; expected the task that it configures",
        ),
        (
            NUMPY + "    c.text = 'zombie'\n    return c",
            "{}, line 5: text is a section; expected its fields to be set, instead of 'zombie'",
        ),
        (
            NUMPY + "    c.seed = np.int64(3)\n    return c",
            "{}, line 5: seed is 3 of type numpy.int64; expected int",
        ),
    ],
)
def test_what_a_config_file_raises_or_returns_names_the_file(code, said, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(code + "\n")
    found = explain(None, ["main.py", f"--config={path}", "--config.steps=3"])
    assert found.startswith(said.format(path)) and "\n" not in found


def test_a_config_file_without_fault_is_not_blamed():
    assert explain(None, ["main.py", "--config", "configs/default.py:ffhq"]) == ""


@pytest.mark.parametrize(
    ("code", "options", "said"),
    [
        ("def get_config():\n    pass", [], "returns None; expected a ConfigDict"),
        ("def get_config():\n    open('nofile')", [], "line 2: FileNotFoundError"),
        ("raise SystemExit('bye')", [], "line 1: SystemExit: bye"),
        (
            NUMPY + "    return type(c)(c.to_dict() | {'seed': np.int64(3)})",
            ["--config.seed=4"],
            "seed is a int64 in ",
        ),
    ],
)
def test_the_command_line_ends_in_the_same_sentence(code, options, said, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(code + "\n")
    line = [sys.executable, "main.py", f"--config={path}", f"--workdir={tmp_path}/run", *options]
    result = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2 and not result.stdout
    (sentence,) = result.stderr.strip().splitlines()
    assert sentence.startswith("error: ") and said in sentence
