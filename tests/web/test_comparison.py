"""The page of a comparison: well formed, complete in itself, safe with any text, fair about the best."""

from html.parser import HTMLParser

import numpy as np
import pytest

from nada_jax import images
from nada_jax.web import comparison
from nada_jax.web.comparison import Cell

VOID = {"meta", "img"}
MEANINGS = {"similarity": ("higher", "cosine"), "kid": ("", "distance"), "bad": ("lower", "<i>")}


class Reader(HTMLParser):
    """Takes a page apart; tags must close in the order in which they were opened."""

    def __init__(self, page):
        super().__init__()
        self.open, self.texts, self.attributes = [], [], []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def measured(value, spread=0.1):
    return {"value": value, "low": value - spread, "high": value + spread}


@pytest.fixture
def sheet(tmp_path):
    path = tmp_path / "sheet.png"
    rows = np.stack([np.full((2, 8, 8, 3), value) for value in (-1.0, 1.0)]).reshape(4, 8, 8, 3)
    images.save(images.grid(rows, columns=2), path)
    return path


def test_the_page_is_whole_and_needs_nothing_else(sheet):
    target = '<b>&"\'</b><script src="http://evil">'
    metrics = {"similarity": measured(0.5), "unknown": measured(0.1)}
    cell = Cell(target, ("photo", target), target, metrics=metrics, sheet=sheet, plots=[sheet])
    failed = Cell("failed", ("photo", "zombie"), "", state=target)
    page = comparison.page(target, {target: [cell, failed], "Twice": [cell]}, MEANINGS, [target])
    reader = Reader(page)
    assert page.startswith("<!DOCTYPE html>") and "script" not in page.replace("&lt;script", "")
    references = [(n, v) for _, n, v in reader.attributes if n in ("src", "href", "srcset")]
    places = [value for _, name, value in reader.attributes if name == "id"]
    assert len(places) == len(set(places)) == 2
    for name, value in references:
        assert value.startswith("data:image/") if name == "src" else value[1:] in places
    assert "url(" not in page and "@import" not in page
    assert reader.texts.count(target) >= 6  # title, headings, names, and the sentence


def test_the_source_stands_above_and_again_where_another_begins(sheet):
    def cells(*sources):
        return [Cell(f"c{i}", ("a", "b"), "", sheet=sheet, source=s) for i, s in enumerate(sources)]

    page = comparison.page("t", {"g": cells("x", "x", "y"), "h": cells("y")}, MEANINGS)
    rows = [v for tag, name, v in Reader(page).attributes if tag == "img" and name == "alt"]
    names = [row.removeprefix("images of ") for row in rows]
    assert names == ["source", "c0", "c1", "source", "c2", "source", "c0"]
