import pytest
from PIL import Image

from nada_jax.errors import UserError
from nada_jax.runs.items import Mix
from nada_jax.transfers.sources import find, one
from nada_jax.weights.registry import EXAMPLES


def save(path, color="red"):
    Image.new("RGB", (4, 4), color).save(path)
    return path


def test_images_that_ship_go_by_name():
    assert [x.name for x in find("landscape, mosaic", "content")] == ["landscape", "mosaic"]
    assert len(find("styles", "style")) == len(list(EXAMPLES["styles"].iterdir()))


def test_a_folder_a_file_and_a_name_may_stand_together(tmp_path):
    (tmp_path / "many").mkdir()
    for name in ("a.png", "b.png"):
        save(tmp_path / "many" / name)
    save(tmp_path / "c, d.png")
    found = find(f"{tmp_path / 'many'},waves", "style")
    assert [x.name for x in found] == ["a", "b", "waves"]
    assert [x.name for x in find(str(tmp_path / "c, d.png"), "style")] == ["c, d"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", "style='nowhere' does not exist; expected .*, or one of avatars, cat,"),
        ("mosaic,nowhere", "style='nowhere' does not exist"),
        ("", "style is empty"),
        ("https://x.org/a.jpg", "is an address"),
    ],
)
def test_what_is_not_there_is_named(source, message):
    with pytest.raises(UserError, match=message):
        find(source, "style")


def test_two_images_of_one_name_are_refused(tmp_path):
    mine = save(tmp_path / "Mosaic.png")
    with pytest.raises(UserError, match="would both be called 'Mosaic'"):
        find(f"mosaic,{mine}", "style")


def test_one_image_is_one(tmp_path):
    with pytest.raises(UserError, match="names 7 images; expected one"):
        one("styles", "style")


def test_a_result_is_another_when_any_of_its_files_is(tmp_path):
    content, style = save(tmp_path / "a.png"), save(tmp_path / "b.png")
    before = Mix("a_b", content, parts=(style,)).digest
    assert Mix("a_b", content, parts=(style,)).digest == before
    save(style, "blue")
    assert Mix("a_b", content, parts=(style,)).digest != before
