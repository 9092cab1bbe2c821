"""One run at a time in a workdir."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nada_jax.errors import UserError
from nada_jax.runs import lock
from nada_jax.runs.lock import Lock, Lost

ROOT = Path(__file__).parents[2]


def test_a_second_run_is_refused_by_the_name_of_the_first(tmp_path):
    first, second = Lock(tmp_path), Lock(tmp_path)
    first.take()
    said = (
        rf"{tmp_path} is in use: process {os.getpid()} on \S+ has been running there since \d{{4}}-"
    )
    for _ in range(2):  # what refuses the second leaves the first as it is
        with pytest.raises(UserError, match=said):
            second.take()
    first.release()
    assert not list(tmp_path.iterdir())
    second.take()
    second.release()


def test_where_files_cannot_be_locked_the_first_run_gives_way(tmp_path, monkeypatch):
    def refuse(handle):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock, "_lock", refuse)
    first, second = Lock(tmp_path), Lock(tmp_path)
    for run in (first, second):
        with pytest.warns(UserWarning, match="cannot lock files"):
            run.take()
    with pytest.raises(Lost, match="taken over by another run"):
        first.check()
    first.release()
    second.check()  # its file is still there
    second.release()
    assert not list(tmp_path.iterdir())


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    code = """
import sys, time
from pathlib import Path
from nada_jax.runs.lock import Lock
lock = Lock(Path(sys.argv[1]))
lock.take()
print("taken", flush=True)
time.sleep(60)
"""
    line = [sys.executable, "-c", code, str(tmp_path)]
    process = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "taken\n"
    held = Lock(tmp_path)
    with pytest.raises(UserError, match=f"in use: process {process.pid} on "):
        held.take()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert (tmp_path / lock.NAME).exists()  # the file alone bars nobody
    held.take()
    held.release()


def test_a_file_that_the_run_before_has_just_removed_is_not_the_lock(tmp_path, monkeypatch):
    flock, removed = lock._lock, []

    def remove_first(handle):
        if not removed:
            removed.append((tmp_path / lock.NAME).unlink())
        flock(handle)

    monkeypatch.setattr(lock, "_lock", remove_first)
    held = Lock(tmp_path)
    held.take()
    with pytest.raises(UserError, match="is in use"):
        Lock(tmp_path).take()
    held.release()


def test_a_file_system_without_locks_costs_one_warning(tmp_path, monkeypatch):
    def refuse(handle):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(lock, "_lock", refuse)
    held = Lock(tmp_path)
    with pytest.warns(UserWarning, match="cannot lock files .*no second run") as met:
        held.take()
    held.release()
    assert len(met) == 1 and not list(tmp_path.iterdir())


def test_a_workdir_that_nothing_is_written_into_is_not_left_behind(tmp_path):
    held = Lock(tmp_path / "a" / "b")
    held.take()
    held.release()
    assert not list(tmp_path.iterdir())
    held.take()
    (tmp_path / "a" / "b" / "result").touch()
    held.release()
    assert (tmp_path / "a" / "b" / "result").exists()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("file", "it is a file"),
        ("file/run", "Not a directory"),
        ("x" * 300, "File name too long"),
        ("nul\0", "null"),
    ],
)
def test_a_workdir_that_cannot_be_made_is_refused(name, why, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=f"cannot write into (.|\n)*{why}"):
        Lock(tmp_path / name).take()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_workdir_that_was_deleted_and_begun_anew_is_no_longer_that_of_the_first_run(tmp_path):
    first, second = Lock(tmp_path / "run"), Lock(tmp_path / "run")
    first.check()  # as on processes that hold no lock
    first.take()
    first.check()
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(Lost, match=f"^{tmp_path}/run was deleted or taken over"):
        first.check()
    second.take()
    with pytest.raises(Lost, match="nothing more is written$"):
        first.check()
    first.release()  # which must not remove the lock of the second
    second.check()
    with pytest.raises(UserError, match="is in use"):
        Lock(tmp_path / "run").take()
    second.release()


def test_a_file_system_that_numbers_files_anew_loses_no_workdir(tmp_path, monkeypatch):
    held = Lock(tmp_path)
    held.take()
    monkeypatch.setattr(os.path, "samestat", lambda *_: False)
    held.check()
    monkeypatch.undo()

    def refuse(*_, **__):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "stat", refuse)
    held.check()
    monkeypatch.undo()
    held.release()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["my notes", "5", '{"process": 1}', "[" * 2000, "\0" * 10])
def test_a_file_that_is_no_lock_is_neither_overwritten_nor_removed(content, tmp_path):
    (tmp_path / lock.NAME).write_text(content)
    with pytest.raises(UserError, match=f"{lock.NAME} is not the lock of a run; move it away"):
        Lock(tmp_path).take()
    assert (tmp_path / lock.NAME).read_text() == content


@pytest.mark.parametrize("kind", ["link", "dangling", "directory", "pipe"])
def test_what_is_no_file_is_no_lock(kind, tmp_path):
    (tmp_path / "mine").write_text("")
    make = {
        "link": lambda path: path.symlink_to(tmp_path / "mine"),
        "dangling": lambda path: path.symlink_to(tmp_path / "nothing"),
        "directory": Path.mkdir,
        "pipe": os.mkfifo,
    }
    make[kind](tmp_path / lock.NAME)
    with pytest.raises(UserError, match=f"{lock.NAME} is not a file; move it away"):
        Lock(tmp_path).take()
    assert sorted(os.listdir(tmp_path)) == sorted([lock.NAME, "mine"])
