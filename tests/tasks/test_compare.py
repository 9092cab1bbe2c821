"""The comparison: what it writes, what it does not run twice, and how a cell fails alone."""

import json

import numpy as np
import pytest

from configs import compare as configs
from nada_jax import files, images, trees
from nada_jax.errors import UserError
from nada_jax.runs import metrics
from nada_jax.runs.workdir import Run
from nada_jax.tasks import adapt, compare, evaluate

VALUES = {"value": 0.5, "low": 0.4, "high": 0.6}


def config(**fields):
    """Two cells in two groups, as small as can be; fields by their dotted name."""
    result = configs.empty()
    tiny = {
        "adapt.steps": 2, "adapt.batch_size": 1, "adapt.samples.count": 2,
        "evaluate.samples": 8, "evaluate.batch_size": 8, "evaluate.clusters": 2,
        "evaluate.bootstrap": 20, "evaluate.lpips.weights": "",
    }  # fmt: skip
    result.update_from_flattened_dict(tiny)
    configs.add(result, "Layers", "none")
    configs.add(result, "Layers", "late", {"freeze.strategy": "late", "freeze.k": 2})
    configs.add(result, "Prompts", "none")
    result.update_from_flattened_dict(fields)
    return result.lock()


@pytest.fixture
def stand_ins(monkeypatch):
    """Tasks that write what a comparison reads, and compute nothing; the list of their calls."""
    calls = []

    def train(config, workdir):
        calls.append(f"adapt {workdir.parent.name}")
        if config.text.target == "fail":
            raise UserError("the loss is nan | at step 1")
        with Run(config, workdir) as run:
            run.begin()
        rows = [{"step": n + 1, "loss": 1.0, "ms": 1.0} for n in range(config.steps)]
        run.write_metrics(rows)
        sheet = images.grid(np.zeros((4, 8, 8, 3)), columns=2)
        images.save(sheet, workdir / "samples" / f"step_{config.steps:06d}.png")
        images.save(sheet, workdir / "loss.png")
        return 0

    def measure(config, workdir):
        calls.append(f"evaluate {workdir.parent.name}")
        assert config.generator.weights == str(workdir.parent / "adapt" / "generator.safetensors")
        found = {"source": "avatar64", "texts": ["a", "b"], "seconds": 1.0}
        found["metrics"] = {"similarity": VALUES}
        files.write_text(workdir / "evaluation.json", json.dumps(found))
        return 0

    monkeypatch.setattr(adapt, "run", train)
    monkeypatch.setattr(evaluate, "run", measure)
    return calls


def cells(workdir):
    """The finished cells."""
    return [row["cell"] for row in metrics.read(workdir / "metrics.jsonl")]


def test_an_interrupted_comparison_runs_only_what_is_missing(tmp_path, tiny_file, monkeypatch):
    train, calls = adapt.run, []
    fields = {"adapt.generator.weights": str(tiny_file)}

    def interrupt(config, workdir):
        calls.append(workdir.parent.name)
        if calls == ["none", "late"]:
            raise KeyboardInterrupt
        return train(config, workdir)

    monkeypatch.setattr(adapt, "run", interrupt)
    with pytest.raises(KeyboardInterrupt):
        compare.run(config(**fields), tmp_path)
    (first,) = metrics.read(tmp_path / "metrics.jsonl")
    assert "not run yet" in (tmp_path / "compare.md").read_text()
    assert compare.run(config(**fields), tmp_path) == 0
    assert calls == ["none", "late", "late"]
    again, second = metrics.read(tmp_path / "metrics.jsonl")
    assert first == again and (first["cell"], second["cell"]) == ("none", "late")
    assert {"directional", "diversity_kept", "kid"} <= first.keys() == second.keys()
    assert first["directional"] != second["directional"]

    text = (tmp_path / "compare.md").read_text()
    assert [line.split("|")[2].strip() for line in text.splitlines()[2:]] == [
        "none",
        "late",
        "none",
    ]
    page = (tmp_path / "compare.html").read_text()
    assert page.count("data:image/jpeg") == 2 + 3  # a source row in both groups
    assert page.count("data:image/png") == 1 + 2  # compare.png, and loss.png of each cell


def test_what_is_finished_is_not_run_again_until_its_settings_change(tmp_path, stand_ins):
    assert compare.run(config(), tmp_path) == 0
    assert stand_ins == ["adapt none", "evaluate none", "adapt late", "evaluate late"]
    stand_ins.clear()
    assert compare.run(config(**{"adapt.log_every": 7}), tmp_path) == 0
    assert stand_ins == []
    longer = {"cells.late.adapt.steps": 3}  # a run that may be continued
    assert compare.run(config(**longer), tmp_path) == 0
    assert stand_ins == ["adapt late", "evaluate late"]
    other = longer | {"cells.late.adapt.freeze.k": 3}
    with pytest.raises(UserError, match="cell late: .*freeze.k was 2 and is 3.*another --workdir"):
        compare.run(config(**other), tmp_path)
    stand_ins.clear()
    assert compare.run(config(**other, **{"adapt.overwrite": True}), tmp_path) == 0
    assert stand_ins == ["adapt late", "evaluate late"]
    stand_ins.clear()
    assert compare.run(config(**other), tmp_path) == 0
    assert stand_ins == []


def test_only_runs_what_it_names_and_shows_what_there_is(tmp_path, stand_ins):
    assert compare.run(config(only="late"), tmp_path) == 0
    assert "none" not in (tmp_path / "compare.md").read_text()
    assert compare.run(config(only="Prompts"), tmp_path) == 0
    assert stand_ins == ["adapt late", "evaluate late", "adapt none", "evaluate none"]
    assert cells(tmp_path) == ["none", "late"]


def test_a_cell_that_fails_is_shown_and_the_others_go_on(tmp_path, stand_ins):
    fields = {"cells.none.adapt.text.target": "fail"}
    with pytest.raises(UserError, match=r"1 of 2 cells failed \(none: the loss is nan"):
        compare.run(config(**fields), tmp_path)
    assert stand_ins == ["adapt none", "adapt late", "evaluate late"]
    assert "the loss is nan \\| at step 1" in (tmp_path / "compare.md").read_text()
    assert "the loss is nan | at step 1" in (tmp_path / "compare.html").read_text()
    assert cells(tmp_path) == ["late"]


def test_a_cell_that_runs_out_of_memory_is_one_that_fails(tmp_path, stand_ins, monkeypatch):
    train = adapt.run

    def fill(config, workdir):
        if workdir.parent.name == "none":
            np.zeros(2**52, np.uint8)
        return train(config, workdir)

    monkeypatch.setattr(adapt, "run", fill)
    with pytest.raises(
        UserError, match=r"1 of 2 cells failed \(none: there is not enough memory .*; lower adapt.b"
    ):
        compare.run(config(), tmp_path)
    assert cells(tmp_path) == ["late"]


def test_a_stopped_cell_stops_the_comparison_with_its_code(
    tmp_path, stand_ins, monkeypatch, capsys
):
    monkeypatch.setattr(adapt, "run", lambda config, workdir: 143)
    assert compare.run(config(), tmp_path) == 143
    assert "stopped in cell none; the same command continues there" in capsys.readouterr().out
    assert stand_ins == []


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"only": "none, moon"}, r"only has 'moon'; expected cells \(none, late\) or groups"),
        ({"groups.Layers": ("none", "moon")}, "groups has 'moon'; expected some of none, late"),
        ({"cells.late.adapt.text.target": " "}, "cell late: text.target is blank"),
        ({"evaluate.samples": 1}, "cell none: samples is 1; expected 8 to"),
        ({"cells.none.evaluate.samples": 1}, "cell none: samples is 1; expected 8 to"),
        ({"adapt.steps": 0}, "cell none: steps is 0; expected a whole number from 1"),
        ({"evaluate.judge": "moon"}, "cell none: judge='moon' is neither an embedded name"),
        ({"adapt.distributed.coordinator": "auto"}, "cell none: adapt.distributed is set"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_is_run(fields, message, tmp_path, stand_ins):
    with pytest.raises(UserError, match=message):
        compare.run(config(**fields), tmp_path / "run")
    assert not (tmp_path / "run").exists() and stand_ins == []


@pytest.mark.parametrize("name", ["a/b", "/late", ""])
def test_cells_are_named_as_folders_can_be(name, tmp_path, stand_ins):
    grid = configs.empty()
    configs.add(grid, "Layers", name)
    with pytest.raises(UserError, match="cells has .*; expected names that folders can have"):
        compare.run(grid, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_cells_follow_what_is_shared_until_they_say_otherwise():
    result = configs.get_config().lock()
    result.adapt.steps = 10
    result.cells.late.adapt.freeze.k = 3
    steps = {name: cell.adapt.steps for name, cell in result.cells.items()}
    assert steps.pop("long") == 30 and set(steps.values()) == {10}
    assert [result.cells[name].adapt.freeze.k for name in ("none", "late")] == [6, 3]
    result.cells.late.adapt.steps = 20
    assert result.adapt.steps == result.cells.none.adapt.steps == 10
    assert result.cells.joker_smile.adapt.text.target == "joker smile"
    assert result.cells.joker_smile.evaluate.text.target == "joker"
    assert list(result.cells)[:2] == ["none", "phase_all"]


def test_the_recipes_stand_beside_plain_nada_as_they_are():
    """All that recipes set is in their cells; only the CLIPs and the intervals of files are shared."""
    result = configs.get_config("recipes").lock()
    shared = {"clip.models", "clip.weights", "checkpoint_every", "sample_every", "log_every"}
    for module in configs.RECIPES:
        name = module.__name__.removeprefix("configs.nada_")
        recipe = trees.flatten(module.get_config().to_dict())
        cells = {}
        for kind in ("recipe", "plain"):
            settings = result.cells[f"{name}_{kind}_1"].adapt
            cells[kind] = trees.flatten(settings.copy_and_resolve_references().to_dict())
        assert differ(recipe, cells["recipe"]) <= shared | {"seed"}
        assert differ(*cells.values()) <= configs.PLAIN.keys()
        assert cells["plain"]["loss.angle"] == 0 and cells["plain"]["clip.zoom"] == 1


def differ(one, other):
    """Fields with two values."""
    assert one.keys() == other.keys()
    return {field for field in one if one[field] != other[field]}
