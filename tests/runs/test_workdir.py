"""A workdir belongs to one run, and what stands there of others stays."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from nada_jax.errors import UserError
from nada_jax.runs.training import Schedule, TrainingRun
from nada_jax.runs.workdir import Run

CONFIG = ConfigDict({"task": "draw", "seed": 0})
RESULTS = "metrics.jsonl", "samples/step_[0-9]*.png"


def names(directory):
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def test_another_run_waits_until_the_first_has_ended(tmp_path):
    with Run(CONFIG, tmp_path) as run:
        run.begin()
        with pytest.raises(UserError, match="is in use: process"), Run(CONFIG, tmp_path):
            pytest.fail("both are at work")
    with Run(CONFIG, tmp_path):
        pass
    assert names(tmp_path) == ["config.json"]


def test_the_workdir_is_looked_at_under_the_lock_which_a_refusal_gives_back(tmp_path):
    class Looking(Run):
        def refuse_other(self):
            with pytest.raises(UserError, match="is in use"):
                Run(CONFIG, tmp_path).__enter__()
            raise UserError("no")

    with pytest.raises(UserError, match="no"), Looking(CONFIG, tmp_path):
        pass
    with Run(CONFIG, tmp_path):
        pass


def test_of_several_processes_the_first_holds_the_lock(tmp_path, monkeypatch):
    with Run(CONFIG, tmp_path) as run:
        run.begin()
        monkeypatch.setattr(jax, "process_index", lambda: 1)
        with Run(CONFIG, tmp_path):
            pass
        monkeypatch.undo()
        with pytest.raises(UserError, match="is in use"), Run(CONFIG, tmp_path):
            pass


def test_files_of_no_run_are_neither_replaced_nor_deleted(tmp_path):
    mine = tmp_path / "samples" / "step_000050.png"
    mine.parent.mkdir()
    mine.write_text("mine")
    said = r"files that the run would replace \(samples/step_000050.png\), and no config.json"
    with pytest.raises(UserError, match=said), Run(CONFIG, tmp_path, results=RESULTS):
        pass
    assert names(tmp_path) == ["samples", "samples/step_000050.png"]
    mine.rename(mine.with_name("holiday.png"))
    with Run(CONFIG, tmp_path, results=RESULTS) as run:
        run.begin()
        assert run.written() == []


def test_only_what_the_patterns_name_is_deleted(tmp_path):
    with Run(CONFIG, tmp_path, results=(*RESULTS, "checkpoints/[0-9]*")) as run:
        run.begin()
        for name in ("metrics.jsonl", "samples/step_000050.png", "checkpoints/7/state"):
            run.write_text(name, "ours")
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        (tmp_path / "checkpoints" / "8").symlink_to(elsewhere)
        kept = ["checkpoints/notes.txt", "samples/holiday.png", "elsewhere/x"]
        for name in kept:
            (tmp_path / name).write_text("mine")
        run.delete(run.written())
    folders = ["checkpoints", "elsewhere", "samples"]
    assert names(tmp_path) == sorted([*kept, *folders, "config.json"])


def test_a_config_of_something_else_is_not_that_of_a_run(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip"}))
    with pytest.raises(UserError, match="config.json is not the config of a run"):
        Run(CONFIG, tmp_path).__enter__()
    assert names(tmp_path) == ["config.json"]


@pytest.mark.parametrize("found", [{"task": "draw"}, {"task": "draw", "model": "x", "lr": 1}])
def test_a_config_with_few_of_the_fields_of_the_task_is_not_that_of_a_run(found, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(found))
    with pytest.raises(UserError, match="config.json is not the config of a run: it lacks most"):
        Run(CONFIG, tmp_path).__enter__()
    other = {**CONFIG, "steps": 1}  # of another version of the program
    (tmp_path / "config.json").write_text(json.dumps(other))
    with Run(CONFIG, tmp_path, free={"seed", "steps"}):
        pass


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to("nowhere")])
def test_a_config_that_is_no_file_is_refused_and_stays(make, tmp_path):
    make(tmp_path / "config.json")
    with pytest.raises(UserError, match="config.json is not a file; give another --workdir"):
        Run(CONFIG, tmp_path).__enter__()
    assert names(tmp_path) == ["config.json"]


@pytest.mark.parametrize("name", ["metrics.jsonl", "samples/step_000050.png"])
def test_a_directory_in_place_of_a_result_is_refused(name, tmp_path):
    with Run(CONFIG, tmp_path, results=RESULTS) as run:
        run.begin()
    (tmp_path / name).mkdir(parents=True)
    with pytest.raises(UserError, match=f"{name} is a directory; expected a file"):
        Run(CONFIG, tmp_path, results=RESULTS).__enter__()
    assert (tmp_path / name).is_dir()


@pytest.mark.parametrize("name", ["samples", "checkpoints"])
def test_a_file_in_place_of_a_directory_is_refused(name, tmp_path):
    (tmp_path / name).touch()
    with pytest.raises(UserError, match=f"{name} is a file; expected a directory"):
        Run(CONFIG, tmp_path, results=(*RESULTS, "checkpoints/[0-9]*")).__enter__()
    assert names(tmp_path) == [name]


def test_numbers_of_numpy_are_the_numbers_of_the_config(tmp_path):
    with Run(ConfigDict({"task": "draw", "seed": np.int64(0)}), tmp_path) as run:
        run.begin()
    with Run(CONFIG, tmp_path, free=()):
        pass
    with (
        pytest.raises(UserError, match="^1j is a complex; expected a number"),
        Run(ConfigDict({"task": "draw", "seed": 1j}), tmp_path / "new") as run,
    ):
        run.begin()
    assert names(tmp_path) == ["config.json"]


def test_an_image_that_cannot_be_drawn_costs_a_warning(tmp_path):
    def fail(path):
        raise ValueError("no such colour")

    with Run(CONFIG, tmp_path) as run:
        with pytest.warns(UserWarning, match=r"loss.png is not drawn: no such colour"):
            assert run.draw("loss.png", fail) is None
        assert run.draw("loss.png", lambda path: path.touch()) == tmp_path / "loss.png"


def test_a_workdir_in_the_home_directory_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Run(CONFIG, "~/runs/one").directory == tmp_path / "runs" / "one"
    with pytest.raises(UserError, match="'~nobody-of-this-name/x' cannot be found"):
        Run(CONFIG, "~nobody-of-this-name/x")


def test_a_run_whose_workdir_was_deleted_writes_nothing_more(tmp_path):
    with Run(CONFIG, tmp_path / "run") as first:
        first.begin()
        shutil.rmtree(tmp_path / "run")
        with Run(CONFIG, tmp_path / "run") as second:
            second.begin()
            for write in (
                lambda: first.write_text("metrics.jsonl", "first"),
                lambda: first.draw("loss.png", lambda path: path.touch()),
                lambda: first.delete([first.path("config.json")]),
                first.check,
            ):
                with pytest.raises(UserError, match="deleted or taken over by another run"):
                    write()
            second.write_text("metrics.jsonl", "second")
    assert names(tmp_path / "run") == ["config.json", "metrics.jsonl"]


def test_a_training_whose_workdir_was_deleted_names_no_checkpoint_to_go_on_from(tmp_path):
    schedule = Schedule(
        steps=1, log_every=1, checkpoint_every=1, sample_every=1, resume=True, overwrite=False
    )  # fmt: skip
    with TrainingRun(CONFIG, tmp_path / "run", schedule, free=(), results=RESULTS) as run:
        run.begin()
        shutil.rmtree(tmp_path / "run")
        for write in (lambda: run.save({}), lambda: run.append_metrics([{"step": 1}])):
            with pytest.raises(UserError, match="nothing more is written$"):
                write()
    assert not list(tmp_path.iterdir())
