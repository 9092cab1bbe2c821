import json

import pytest
from ml_collections import ConfigDict

from nada_jax.errors import UserError
from nada_jax.runs.items import Item, listing
from nada_jax.runs.per_image import ImageRun
from nada_jax.weights.registry import EXAMPLES


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
        ("run", "images='run/images' may be meant"),
        ("twins", "'a.png' and 'a_png.png', whose results would both be called 'a_png'"),
    ],
)
def test_what_names_no_image_is_refused(source, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run" / "images").mkdir(parents=True)
    (tmp_path / "twins").mkdir()
    for name in ("a.png", "a.jpg", "a_png.png"):
        (tmp_path / "twins" / name).touch()
    with pytest.raises(UserError, match="images") as caught:
        listing(source)
    assert words in str(caught.value)


def work(folder, workdir, bad=(), **fields):
    """A run that writes the text of each image, a line of it a face; the names that it did, and its exit code."""
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
            first, *further = text.split("\n")
            faces = [
                Item(f"{item.name}_{i}", item.path, item.name) for i in range(2, 2 + len(further))
            ]
            for face, line in zip([*faces, item], [*further, first], strict=True):
                path = run.write_text(f"out/{face.name}.txt", line)
                run.finish(face, [path], {"length": len(line)})
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


def test_further_faces_go_with_their_image(folder, tmp_path):
    (folder / "a.png").write_text("a face\nanother")
    run = tmp_path / "run"
    work(folder, run)
    assert (run / "out" / "a_2.txt").read_text() == "another"
    assert work(folder, run) == ([], 0)
    (run / "out" / "a_2.txt").unlink()
    assert work(folder, run) == (["a"], 0)
    (folder / "a.png").write_text("one face")
    assert work(folder, run) == (["a"], 0)
    assert not (run / "out" / "a_2.txt").exists()
    assert sorted(row["image"] for row in rows(run)) == ["C", "a", "b_jpg", "b_png"]


def test_another_image_of_the_same_name_replaces_nothing(folder, tmp_path, capsys):
    run, other = tmp_path / "run", tmp_path / "other"
    work(folder, run)
    other.mkdir()
    for name, text in {"a.png": "another", "C.png": "C.PNG", "d.png": "d"}.items():
        (other / name).write_text(text)
    # C has the same content.
    assert work(other, run) == (["d"], 2)
    assert "has results called a of" in capsys.readouterr().err
    assert (run / "out" / "a.txt").read_text() == "a.png"


def test_results_are_no_input(folder, tmp_path):
    work(folder, tmp_path / "run")
    source = tmp_path / "run" / "out" / "a.txt"
    for overwrite in (False, True):
        with pytest.raises(UserError, match=r"a\.txt is among the results of the run in"):
            work(source, tmp_path / "run", overwrite=overwrite)
    assert source.read_text() == "a.png"


def test_overwrite_deletes_what_the_run_has_written(folder, tmp_path):
    run = tmp_path / "run"
    work(folder, run)
    (run / "out" / "mine.txt").write_text("mine")
    assert work(folder / "a.png", run, overwrite=True) == (["a"], 0)
    assert sorted(x.name for x in (run / "out").iterdir()) == ["a.txt", "mine.txt"]


def test_results_of_another_kind_stay_and_are_known(folder, tmp_path):
    with ImageRun(
        ConfigDict({"task": "t", "overwrite": False}), tmp_path / "run", [], results=["out/*.txt"]
    ) as run:
        for kind in ("sketch", "joker"):
            run.finish(Item("a"), [run.write_text(f"out/a_{kind}.txt", "")], {})
        assert {x.name for x in run.earlier_results()} >= {"a_sketch.txt", "a_joker.txt"}
        (tmp_path / "a.png").write_text("another content")
        item = Item("a", tmp_path / "a.png")
        run.finish(item, [run.write_text("out/a_joker.txt", "")], {})
        assert [x.name for x in (tmp_path / "run" / "out").iterdir()] == ["a_joker.txt"]


def test_a_name_that_is_not_utf8_is_skipped(folder, tmp_path, capsys):
    try:
        (folder / "bad\udcff.png").write_text("bad")
    except OSError:
        pytest.skip("the file system takes no such names")
    assert work(folder, tmp_path / "run") == (["C", "a", "b_jpg", "b_png"], 2)
    assert "is not UTF-8; rename it" in capsys.readouterr().err


def test_a_single_bad_image_leaves_nothing_behind(folder, tmp_path):
    with pytest.raises(UserError, match="is bad"):
        work(folder / "a.png", tmp_path / "run", bad=["a"])
    assert not (tmp_path / "run").exists()


def test_what_has_no_file_is_done_once_by_name():
    assert Item("seed_0003").digest == ""
