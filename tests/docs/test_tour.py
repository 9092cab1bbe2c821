"""The notebook docs/tour.ipynb runs from a clean kernel, and is small enough to be read as a change.

WRITE_TOUR=1 pytest -n 0 tests/docs/test_tour.py    # runs it whole, and keeps its images in the file
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docs" / "tour.ipynb"
WRITES = bool(os.environ.get("WRITE_TOUR"))
# Of the notebook -> here: the same cells, in a tenth of the time.
QUICK = {"STEPS, BATCH = 60, 2": "STEPS, BATCH = 10, 1", "COUNT = 512": "COUNT = 64"}


def read():
    return json.loads(FILE.read_text("utf-8"))


def sources(kind="code"):
    return ["".join(cell["source"]) for cell in read()["cells"] if cell["cell_type"] == kind]


def stripped(output):
    """An output of which the image alone is kept; None where there is no image."""
    image = output.get("data", {}).get("image/png")
    kept = {"output_type": "display_data", "metadata": {}, "data": {"image/png": image}}
    return kept if image else None


@pytest.mark.slow
def test_every_cell_runs_in_a_clean_kernel(tmp_path, monkeypatch):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    # Neither weights of the user, which the last cell would draw with, nor the hub.
    monkeypatch.setenv("NADA_JAX_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    notebook = nbformat.read(FILE, as_version=4)
    for old, new in {} if WRITES else QUICK.items():
        assert sum(old in cell.source for cell in notebook.cells) == 1, old
        for cell in notebook.cells:
            cell.source = cell.source.replace(old, new)
    options = {"timeout": 900, "resources": {"metadata": {"path": str(FILE.parent)}}}
    nbclient.NotebookClient(notebook, **options).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    printed = "".join(x.text for cell in cells for x in cell.outputs if x.get("name") == "stdout")
    assert "steps the loss is 0." in printed and "not fetched yet" in printed
    images = [[x for x in map(stripped, cell.outputs) if x] for cell in cells]
    assert sum(map(len, images)) == 5
    if WRITES:
        for cell, kept in zip(cells, images, strict=True):
            cell.outputs = [nbformat.from_dict(x) for x in kept]
            cell.execution_count, cell.metadata = None, {}
        notebook.metadata = nbformat.from_dict(read()["metadata"])  # without this machine's Python
        nbformat.write(notebook, FILE)


def test_the_notebook_is_small_and_holds_images_alone():
    assert FILE.stat().st_size < 300_000
    for cell in read()["cells"]:
        assert not cell["metadata"]
        assert all(x == stripped(x) for x in cell.get("outputs", []))
    official = next(source for source in sources() if "ffhq1024" in source)
    assert official.index("is_file()") < official.index("load_generator")  # nothing is fetched


@pytest.mark.parametrize("folder", [ROOT, ROOT / "docs"])
def test_the_package_is_found_from_where_the_notebook_is_opened(folder):
    code = sources()[0] + "\nimport nada_jax; print(nada_jax.__file__)"
    # Isolated, so that no other copy, nor the folder itself, is on the path.
    command = [sys.executable, "-I", "-c", code]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == str(ROOT / "nada_jax" / "__init__.py")
