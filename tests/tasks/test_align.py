"""The task align, from the command line's config to its files."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from configs import align as configs
from nada_jax.errors import UserError
from nada_jax.tasks import align
from nada_jax.weights.registry import EXAMPLES

FACES = EXAMPLES["faces"]


def config(**fields):
    result = configs.get_config()
    result.update_from_flattened_dict({"size": 64} | fields)
    return result


def rows(workdir):
    return {
        row["image"]: row
        for row in map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    }


@pytest.fixture
def folder(tmp_path):
    """Photographs, and files that are none of them."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("girl.jpg", "two.jpg"):
        shutil.copy(FACES / name, folder / name)
    (folder / "broken.jpg").write_bytes((FACES / "girl.jpg").read_bytes()[:5000])
    (folder / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    Image.new("RGB", (80, 80), "grey").save(folder / "wall.png")
    (folder / "notes.txt").write_text("none")
    return folder


def test_a_folder_is_done_but_for_what_is_bad(folder, tmp_path, capsys):
    workdir = tmp_path / "out"
    assert align.run(config(images=str(folder), **{"align.faces": "all"}), workdir) == 2
    aligned = {path.name for path in (workdir / "aligned").iterdir()}
    assert aligned == {"girl.png", "two.png", "two_2.png"}
    with Image.open(workdir / "aligned" / "two_2.png") as image:
        assert image.size == (64, 64)
    error = capsys.readouterr().err
    for words in (
        "skipped broken: ", "skipped phone: ", "phone.heic: it is HEIC", "wall.png: no face is found", "3 of 5 could not",
    ):  # fmt: skip
        assert words in error
    row = rows(workdir)["two"]
    assert row["faces"] == 2 and np.shape(row["quad"]) == (2, 4, 2) and row["seconds"] > 0
    page = (workdir / "align.html").read_text()
    assert page.count("data:image/") == 5 and "two_2" in page and "http" not in page
    with Image.open(workdir / "marked" / "two.png") as marked:
        assert max(marked.size) == 640
        assert (np.asarray(marked.convert("RGB")) == (52, 199, 89)).all(-1).sum() > 100  # landmarks


def test_the_same_command_again_does_what_is_missing(folder, tmp_path, capsys):
    workdir = tmp_path / "out"
    for name in ("broken.jpg", "phone.heic", "wall.png"):
        (folder / name).unlink()
    assert align.run(config(images=str(folder)), workdir) == 0
    assert "two (2 faces found, the largest taken): " in capsys.readouterr().out
    assert rows(workdir)["two"]["faces"] == 2 and rows(workdir)["girl"]["faces"] == 1
    first = (workdir / "aligned" / "girl.png").stat().st_mtime_ns
    shutil.copy(FACES / "turned.jpg", folder / "new.jpg")
    (workdir / "aligned" / "two.png").unlink()
    capsys.readouterr()
    assert align.run(config(images=str(folder)), workdir) == 0
    assert "1 of 3 are done already" in capsys.readouterr().out
    assert (workdir / "aligned" / "girl.png").stat().st_mtime_ns == first
    assert set(rows(workdir)) == {"girl", "new", "two"}
    assert (workdir / "aligned" / "two.png").is_file()


def test_a_face_that_would_replace_another_image_is_refused(tmp_path, capsys):
    folder = tmp_path / "photos"
    folder.mkdir()
    shutil.copy(FACES / "two.jpg", folder / "a.jpg")
    shutil.copy(FACES / "girl.jpg", folder / "A_2.jpg")
    assert align.run(config(images=str(folder), **{"align.faces": "all"}), tmp_path / "out") == 2
    assert "one of its faces would be a_2, which is another image" in capsys.readouterr().err
    assert list(rows(tmp_path / "out")) == ["A_2"]


def test_a_single_bad_image_leaves_nothing(tmp_path):
    Image.new("RGB", (80, 80), "grey").save(tmp_path / "wall.png")
    with pytest.raises(UserError, match="no face is found"):
        align.run(config(images=str(tmp_path / "wall.png")), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    fields = {"images": str(tmp_path / "wall.png"), "align.mode": "none"}
    assert align.run(config(**fields), tmp_path / "out") == 0


def test_a_side_that_memory_would_not_hold_is_refused(tmp_path):
    with pytest.raises(UserError, match="size is 100000; expected a whole number in 1..4,096"):
        align.run(config(size=100_000), tmp_path / "out")
