"""Output that cannot be delivered does not end a command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
START = "from nada_jax.command.streams import outlive_readers; outlive_readers(); import sys\n"


def start(code, **options):
    return subprocess.Popen([sys.executable, "-c", START + code], cwd=ROOT, **options)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_work_goes_on_when_the_reader_has_gone(stream, tmp_path):
    code = f"""
for _ in range(3):
    print("x" * 10_000, file=sys.{stream}, flush=True)
open({str(tmp_path / "result")!r}, "w").close()
"""
    process = start(code, **{stream: subprocess.PIPE})
    getattr(process, stream).close()
    assert process.wait() == 0 and (tmp_path / "result").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux alone has a full disk at hand")
def test_a_full_disk_behind_the_output_is_passed_over():
    with open("/dev/full", "w") as full:
        assert start("print('x' * 10_000)", stdout=full).wait() == 0


def test_what_the_encoding_lacks_is_written_by_its_number():
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    process = start("print('\\u7d20 \\u00fc')", stdout=subprocess.PIPE, env=environment)
    assert process.communicate()[0] == b"\\u7d20 \\xfc\n"


def test_streams_that_are_closed_from_the_start_are_left_alone():
    line = [sys.executable, "-c", START + "print('x'); sys.exit(sys.stdout is not None)"]
    shell = 'exec "$@" >&-'
    assert subprocess.run(["sh", "-c", shell, "sh", *line], cwd=ROOT).returncode == 0
