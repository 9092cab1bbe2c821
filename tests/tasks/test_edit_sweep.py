"""A grid of edits: every cell on one page, as it would be alone, and resumed cell by cell."""

import json

import numpy as np
import pytest

from configs import edit_sweep as configs
from nada_jax.errors import UserError
from nada_jax.tasks import edit_sweep
from nada_jax.weights.loading import load_clip, load_identity


@pytest.fixture
def config(tiny_file, tiny_clip):
    """config(field=value) -> two subjects in 2 x 3 cells of a few steps, with small networks."""

    def make(**fields):
        found = configs.get_config()
        small = {
            "generator.weights": str(tiny_file), "clip.models": (str(tiny_clip),), "judge": str(tiny_clip),
            "lpips.weights": "", "seeds": (1, 2), "batch_size": 8, "sweep.texts": ("red <b>hair</b>",),
            "sweep.l2": (0.0, 0.01, 1.0), "sweep.lr": (0.1,), "sweep.steps": (2, 3),
        }  # fmt: skip
        found.update_from_flattened_dict(small | fields)
        return found

    return make


def cells(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return {row["image"]: row for row in map(json.loads, lines)}


def test_the_page_holds_all_cells_and_resuming_adds_what_is_missing(config, tmp_path, capsys):
    assert edit_sweep.run(config(), tmp_path) == 0
    found = cells(tmp_path)
    assert len(found) == 6
    page = (tmp_path / "edit_sweep.html").read_text()
    # A row of the subjects and three of cells for each number of steps, and the plot; nothing outside of the page.
    assert page.count('src="data:image/jpeg') == 2 * 4
    assert page.count('src="data:image/png') == 1 and 'src="cells' not in page
    assert page.count("not run yet") == 0 and "<b>hair" not in page
    assert {p.name for p in (tmp_path / "cells").iterdir()} == {f"{x}.png" for x in found}

    (name, row), *_ = found.items()
    assert {"gained", "moved", "mse", "clip", "l2", "lr", "steps", "text"} <= row.keys()
    assert len(row["gained"]) == 2
    (tmp_path / "cells" / f"{name}.png").unlink()
    assert edit_sweep.run(config(**{"sweep.l2": (0.0, 0.01, 0.5, 1.0)}), tmp_path) == 0
    assert "5 of 8 are done already" in capsys.readouterr().out
    again = cells(tmp_path)
    assert len(again) == 8
    # In a batch of other cells, a cell is what it was.
    for figure in ("gained", "moved", "mse"):
        np.testing.assert_allclose(again[name][figure], row[figure], rtol=1e-3, atol=1e-6)


def test_latents_are_subjects_and_cells_of_replaced_ones_are_done_anew(config, tmp_path, capsys):
    file, ws = tmp_path / "x.npz", np.random.default_rng(0).standard_normal((2, 6, 8), np.float32)
    fields = {"latents": str(file), "sweep.steps": (2,), "sweep.l2": (0.0,)}
    np.savez(file, ws=ws)
    assert edit_sweep.run(config(**fields), tmp_path / "run") == 0
    (row,) = cells(tmp_path / "run").values()
    assert len(row["gained"]) == 2 and list(row["subjects"]) == ["x_0", "x_1"]
    assert "ms/step" not in (tmp_path / "run/edit_sweep.html").read_text()
    np.savez(file, ws=ws[:1])
    assert edit_sweep.run(config(**fields), tmp_path / "run") == 0
    assert "done already" not in capsys.readouterr().out
    (row,) = cells(tmp_path / "run").values()
    assert list(row["subjects"]) == ["x"]
    assert "the smallest and the largest" not in (tmp_path / "run/edit_sweep.html").read_text()


def test_an_identity_network_may_be_an_embedded_clip(config, tmp_path, tiny_clip, monkeypatch):
    assert load_identity("avatar-p16").image_size == 64
    small = load_clip(tiny_clip).without_texts()
    monkeypatch.setattr(edit_sweep.loading, "load_identity", lambda *_, **__: small)
    fields = {"identity.weights": "avatar-p16", "sweep.identity": (0.0, 1.0), "sweep.l2": (0.0,)}
    assert edit_sweep.run(config(**fields, **{"sweep.steps": (2,)}), tmp_path) == 0
    assert all(len(row["face"]) == 2 for row in cells(tmp_path).values())
    assert "a stand-in for a face network" in (tmp_path / "edit_sweep.html").read_text()


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"sweep.identity": (0.5,)}, r"sweep.identity is \(0.5,\) and identity.weights is ''"),
        ({"sweep.l2": ()}, "sweep.l2 is .*; expected at least one value"),
        ({"sweep.l2": (-1.0,)}, "sweep.l2 is .*; expected numbers from 0"),
        ({"sweep.lr": (0.0,)}, "sweep.lr is .*; expected numbers above 0"),
        ({"sweep.steps": (0,)}, "sweep.steps is .*; expected whole numbers from 1"),
        ({"sweep.texts": (" ",)}, "sweep.texts is"),
        ({"sweep.texts": ("a b", "a_b")}, "sweep has two cells of the name 'a_b-"),
        ({"judge": ""}, "judge is ''; expected a CLIP"),
        ({"latents": "x.npz"}, "latents='x.npz' does not exist"),
        ({"latents": "x.npz", "images": "avatars"}, "images and latents are set"),
    ],
)
def test_wrong_fields_are_named_and_nothing_is_written(fields, words, config, tmp_path):
    with pytest.raises(UserError, match=words):
        edit_sweep.run(config(**fields), tmp_path / "run")
    assert not (tmp_path / "run").exists()
