"""Faces of photographs as items with names of their own."""

from pathlib import Path

import pytest
from ml_collections import ConfigDict

from nada_jax.errors import UserError
from nada_jax.portraits import inversions
from nada_jax.runs.items import Item
from nada_jax.runs.per_image import ImageRun


def test_further_faces_know_their_photograph(tmp_path, monkeypatch):
    monkeypatch.setattr(inversions, "align_photo", lambda *_: ["one", "two"])
    photo = Item("a", Path("a.png"))
    for names, refused in ((["a", "b"], False), (["a", "A_2"], True)):
        items = [Item(name, Path(f"{name}.png")) for name in names]
        config = ConfigDict({"overwrite": False})
        run = ImageRun(config, tmp_path / "run", items, results=())
        if refused:
            with pytest.raises(UserError, match="one of its faces would be a_2"):
                inversions._faces(run, photo, None, 8)
            continue
        (second, two), (first, one) = inversions._faces(run, photo, None, 8)
        assert (first, one, two) == (photo, "one", "two")
        assert second == Item("a_2", photo.path, face_of="a")
