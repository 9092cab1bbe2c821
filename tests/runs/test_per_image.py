import json

import pytest
from ml_collections import ConfigDict

from nada_jax.errors import UserError
from nada_jax.runs.per_image import EXAMPLES, ImageRun, Item, listing


@pytest.fixture
def folder(tmp_path):
    """Three images by name, and files of other kinds."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.png", "b.png", "b.jpg", "C.PNG", "README.md", ".hidden.png"):
        (folder / name).write_text(name)
    return folder


def test_a_folder_gives_its_images_with_names_of_their_own(folder):
    assert [x.name for x in listing(str(folder))] == ["C", "a", "b_jpg", "b_png"]
    assert [x.name for x in listing(str(folder / "README.md"))] == ["README"]
    assert len(listing("avatars")) == len(list(EXAMPLES["avatars"].glob("*.png")))


@pytest.mark.parametrize(
    "source, words",
    [
        ("", "images is empty"),
        ("nowhere", "'nowhere' does not exist"),
        ("https://example.org/a.png", "is an address"),
        (".", "is a folder without files of such a kind"),
    ],
)
def test_what_names_no_image_is_refused(source, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="images") as caught:
        listing(source)
    assert words in str(caught.value)


def work(folder, workdir, bad=(), **fields):
    """A run that writes the name of each image; the names that it did, and its exit code."""
    config = ConfigDict(
        {"task": "t", "images": str(folder), "size": 1, "overwrite": False} | fields
    )
    done = []
    with ImageRun(config, workdir, listing(str(folder)), results=["out/*.txt"]) as run:

        def read(item):
            if item.name in bad:
                raise UserError(f"{item.path} is bad")
            return item.path.read_text()

        for item, text in run.read_all(run.todo(), read):
            path = run.write_text(f"out/{item.name}.txt", text)
            run.finish(item, [path], {"length": len(text)})
            done.append(item.name)
        return done, run.exit_code()


def rows(workdir):
    return [json.loads(x) for x in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_bad_images_are_named_and_the_others_finish(folder, tmp_path, capsys):
    done, code = work(folder, tmp_path / "run", bad=["a"])
    assert done == ["C", "b_jpg", "b_png"] and code == 2
    assert (
        "skipped a: " in (told := capsys.readouterr().err)
        and "1 of 4 could not be done (a)" in told
    )
    assert [row["image"] for row in rows(tmp_path / "run")] == done


def test_the_same_command_does_what_is_missing(folder, tmp_path):
    work(folder, tmp_path / "run", bad=["a"])
    assert work(folder, tmp_path / "run") == (["a"], 0)
    assert work(folder, tmp_path / "run") == ([], 0)
    (folder / "a.png").write_text("another image of this name")
    (tmp_path / "run" / "out" / "C.txt").unlink()
    assert work(folder, tmp_path / "run") == (["C", "a"], 0)
    assert sorted(row["image"] for row in rows(tmp_path / "run")) == ["C", "a", "b_jpg", "b_png"]


def test_other_settings_are_refused_unless_they_overwrite(folder, tmp_path):
    work(folder, tmp_path / "run")
    with pytest.raises(UserError, match=r"size was 1 and is 2.*overwrite=True"):
        work(folder, tmp_path / "run", size=2)
    assert len(work(folder, tmp_path / "run", size=2, overwrite=True)[0]) == 4


def test_a_single_bad_image_leaves_nothing_behind(folder, tmp_path):
    with pytest.raises(UserError, match="is bad"):
        work(folder / "a.png", tmp_path / "run", bad=["a"])
    assert not (tmp_path / "run").exists()


def test_what_has_no_file_is_done_once_by_name():
    assert Item("seed_0003").digest == ""
