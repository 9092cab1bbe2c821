"""Jobs: lanes, places, the end of them, and what is left."""

import os
import threading
import time

import pytest

from nada_jax.demo import jobs as module
from nada_jax.demo.jobs import Jobs
from nada_jax.errors import UserError

ANN, BOB = "a" * 32, "b" * 32


@pytest.fixture
def jobs(tmp_path):
    made = []

    def make(**bounds):
        made.append(Jobs(tmp_path / "results", **bounds))
        return made[-1]

    yield make
    for one in made:
        one.close(5)


def until(condition):
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_a_lane_works_one_after_another_and_lanes_side_by_side(jobs):
    all_jobs, gate = jobs(), threading.Event()
    first = all_jobs.submit(ANN, "edit", "work", "first", lambda job: gate.wait(5))
    second = all_jobs.submit(BOB, "edit", "work", "second", lambda job: job.directory.name)
    third = all_jobs.submit(ANN, "edit", "work", "third", lambda job: 3)
    quick = all_jobs.submit(ANN, "sample", "draw", "quick", lambda job: 4)
    until(lambda: quick.state == "done")
    assert (first.state, second.state) == ("running", "waiting")
    assert (first.place, second.place, third.place) == (0, 1, 2)
    gate.set()
    until(lambda: third.ended)
    assert (second.result, third.result) == (second.id, 3)
    assert second.directory.parent.name == BOB and second.directory.is_dir()
    assert all_jobs.latest(ANN, "edit") is third and all_jobs.latest(BOB, "sample") is None
    assert all_jobs.of(ANN) == [first, third, quick]


def test_a_job_ends_when_its_visitor_says_so_and_at_no_other_ones_word(jobs):
    all_jobs, steps = jobs(), []

    def endless(job):
        while True:
            job.report(0.5, "at it", partial=len(steps))
            steps.append(job.wait(0.005))

    running = all_jobs.submit(ANN, "edit", "work", "running", endless)
    waiting = all_jobs.submit(ANN, "edit", "work", "waiting", endless)
    until(lambda: len(steps) > 2)
    assert running.partial and running.fraction == 0.5 and running.note == "at it"
    all_jobs.cancel(BOB, running.id)
    all_jobs.cancel(ANN, waiting.id)
    assert (waiting.state, running.state, running.stopping) == ("cancelled", "running", False)
    all_jobs.cancel(ANN, running.id)
    until(lambda: running.ended)
    assert running.state == "cancelled" and not running.error


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (UserError("steps is 0; expected more"), "steps is 0; expected more"),
        (MemoryError(), "not enough memory"),
        (RuntimeError("RESOURCE_EXHAUSTED: of /home/me"), "not enough memory"),
        (KeyError("secret"), "the log of the server says what"),
    ],
)
def test_what_goes_wrong_is_one_sentence(jobs, failure, told):
    def fail(job):
        raise failure

    job = jobs().submit(ANN, "edit", "work", "x", fail)
    until(lambda: job.ended)
    assert job.state == "failed" and told in job.error
    assert "secret" not in job.error and "/home" not in job.error


def test_number_and_time_are_bounded(jobs):
    all_jobs, gate = jobs(each=2, waiting=3, minutes=0.001), threading.Event()

    def begin(visitor):
        return all_jobs.submit(visitor, "edit", "work", "x", lambda job: gate.wait(5))

    begin(ANN), begin(ANN)
    with pytest.raises(UserError, match="2 of your jobs"):
        begin(ANN)
    begin(BOB)
    with pytest.raises(UserError, match="3 jobs of all visitors"):
        begin("c" * 32)
    gate.set()
    until(lambda: all(job.ended for job in all_jobs.of(BOB)))
    long = all_jobs.submit(
        ANN, "edit", "work", "x", lambda job: [job.wait(0.05) for _ in range(99)]
    )
    until(lambda: long.ended)
    assert long.state == "failed" and "0.001 minutes" in long.error


def test_old_results_go_and_the_page_says_so(jobs, monkeypatch):
    all_jobs = jobs(hours=1, megabytes=0.002)
    gate = threading.Event()

    def write(job):
        (job.directory / "x").write_bytes(b"0" * 900)
        return 1

    done = [all_jobs.submit(ANN, "edit", "work", str(i), write) for i in range(3)]
    until(lambda: done[-1].ended)
    for age, job in zip((7200, 60, 30), done, strict=True):
        os.utime(job.directory, (time.time() - age,) * 2)
    active = all_jobs.submit(BOB, "edit", "work", "x", lambda job: write(job) and gate.wait(5))
    until(lambda: (active.directory / "x").exists())
    all_jobs.tidy()
    assert [job.directory.exists() for job in (*done, active)] == [False, True, True, True]
    assert done[0].state == "failed" and "after 1 hours" in done[0].error and done[0].result is None
    all_jobs.megabytes = 0.001
    all_jobs.tidy()
    assert "to make room" in done[1].error and done[2].state == "done"
    gate.set()
    # Nor is the memory unbounded.
    until(lambda: active.ended)
    monkeypatch.setattr(module, "REMEMBERED", 2)
    all_jobs.submit(ANN, "edit", "work", "x", write)
    assert len(all_jobs.of(ANN)) + len(all_jobs.of(BOB)) == 2


def test_uploads_push_nobodys_results_out(jobs):
    all_jobs = jobs(megabytes=0.01)
    folders = [
        all_jobs.directory / ANN / name for name in ("a" * 32, *(f"upload-{i}" for i in range(4)))
    ]
    for age, folder in zip((90, 80, 70, 60, 50), folders, strict=True):
        folder.mkdir(parents=True)
        (folder / "x.png").write_bytes(bytes(1000))
        os.utime(folder, (time.time() - age,) * 2)
    all_jobs.grown(900)  # too few to look through all
    all_jobs.grown(900)
    until(lambda: not folders[2].exists())
    until(lambda: [folder.exists() for folder in folders] == [True, False, False, True, True])


def test_the_end_of_the_server_ends_all(jobs):
    all_jobs = jobs()
    running = all_jobs.submit(ANN, "edit", "work", "x", lambda job: job.wait(60))
    waiting = all_jobs.submit(ANN, "edit", "work", "x", lambda job: 1)
    until(lambda: running.state == "running")
    all_jobs.close(5)
    assert (running.state, waiting.state) == ("cancelled", "cancelled")
    with pytest.raises(UserError):
        all_jobs.submit(ANN, "edit", "work", "x", lambda job: 1)
