"""Adaptations of visitors, with a stand-in for main.py that writes what a run writes."""

import os
import shutil
import time

import pytest

from nada_jax.demo import training
from nada_jax.demo.follow import status
from nada_jax.demo.site import Site
from nada_jax.demo.tabs import adapt
from nada_jax.errors import UserError
from nada_jax.weights import lineage
from nada_jax.weights.native import save_model

ANN = "a" * 32
RUN = """
import json, pathlib, shutil, signal, sys, time
fields = dict(x[2:].split("=", 1) for x in sys.argv[1:])
workdir, source = pathlib.Path(fields["workdir"]), fields["config.generator.weights"]
target = fields["config.text.target"]
if target == "refused":
    print("warning: x", "error: %s/targets has no image" % workdir.parent, sep="\\n", file=sys.stderr)
    sys.exit(2)
if target == "faulty":
    raise RuntimeError("secret")
(workdir / "samples").mkdir(parents=True)
(workdir / "checkpoints").mkdir()
rows = []
def end(number, _):
    (workdir / "ended").write_text(str(number))
    sys.exit(143)
signal.signal(signal.SIGTERM, end)
if target == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
for step in range(1, int(fields["config.steps"]) + 1):
    rows.append(json.dumps({"step": step, "loss": 1 / step}) + "\\n")
    (workdir / "metrics.jsonl").write_text("".join(rows))
    shutil.copyfile("x.png", workdir / "samples" / ("step_%06d.png" % step))
    while target in ("endless", "deaf"):
        time.sleep(0.01)
(workdir / "fields.json").write_text(json.dumps(fields))
shutil.copyfile(source, workdir / "generator.safetensors")
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory, png):
    """A folder with configs/ and the stand-in."""
    root = tmp_path_factory.mktemp("checkout")
    (root / "main.py").write_text(RUN)
    (root / "x.png").write_bytes(png())
    shutil.copytree(training.ROOT / "configs", root / "configs")
    return root


@pytest.fixture
def site(page, checkout, monkeypatch):
    monkeypatch.setattr(training, "ROOT", checkout)
    monkeypatch.chdir(checkout)
    monkeypatch.setattr(training, "PAUSE", 0.02)
    yield page.site
    for job in page.site.jobs.of(ANN):
        page.site.jobs.cancel(ANN, job.id)


def chosen(site, **changed):
    names = ("source", "target", "steps", "lr", "angle", "near", "l2", "strategy", "seed")
    values = dict(zip(names, adapt.values(site, "default"), strict=True))
    return list((values | {"steps": 3} | changed).values())


def ended(job, condition=None):
    end = time.monotonic() + 20
    while not (condition or (lambda: job.ended))():
        assert time.monotonic() < end, (job.state, job.note)
        time.sleep(0.01)
    return job


def test_a_run_becomes_a_preset_of_its_visitor(site, png, tmp_path):
    job = ended(
        adapt.start(
            site, ANN, "sketch", adapt.SOURCE, None, *chosen(site, target="an ink \0\n drawing")
        )
    )
    assert (job.state, job.error, job.fraction) == ("done", "", 1.0)
    grid, loss, file = adapt.show(job)
    assert grid.endswith("step_000003.png") and loss.endswith("loss_000003.png") and file["visible"]
    assert job.result.generator.name == "an_ink_drawing.safetensors"
    assert not (job.directory / "run" / "checkpoints").exists()
    assert site.presets(ANN)["an ink drawing (yours)"] == str(job.result.generator)
    assert "an ink drawing (yours)" not in site.presets("b" * 32)
    assert site.choose(ANN, "an ink drawing (yours)") and site.models.domain(
        str(job.result.generator)
    )
    with pytest.raises(UserError, match="not among the presets"):
        site.choose("b" * 32, "an ink drawing (yours)")
    # From there, towards images of the visitor's.
    picture = tmp_path / "x.png"
    picture.write_bytes(png())
    job = ended(
        adapt.start(
            site, ANN, "default", "an ink drawing (yours)", [(str(picture), None)], *chosen(site)
        )
    )
    assert job.state == "done" and job.title == "like an image"
    fields = (job.directory / "run" / "fields.json").read_text()
    assert f"{job.directory}/targets" in fields and "an_ink_drawing.safetensors" in fields


def test_a_preset_is_not_called_like_an_image_beside_it(site):
    job = ended(
        adapt.start(site, ANN, "sketch", adapt.SOURCE, None, *chosen(site, target=adapt.SOURCE))
    )
    assert site.choose(ANN, f"{adapt.SOURCE} (yours)") == str(job.result.generator)


@pytest.mark.parametrize(("of", "offered"), [("", True), ("avatar64", False), (None, True)])
def test_recipes_that_were_run_on_another_source_are_not_offered(
    of, offered, site, tiny_generator, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    weights = site.settings.generator.weights
    source = os.path.relpath(weights) if of is None else of
    header = lineage.Lineage(source, ("photo", "sketch"), ("avatar-p8",)).header()
    save_model(tiny_generator, tmp_path / "runs/nada_sketch/generator.safetensors", **header)
    assert ("sketch (run)" in site.presets(ANN)) == offered


def test_a_preset_that_is_not_there_is_named_at_the_start(demo_settings, tmp_path):
    with pytest.raises(UserError, match="demo.presets has 'skech'"):
        Site(demo_settings({"demo.presets": ("sketch", "skech")}), tmp_path)


@pytest.mark.parametrize(
    ("target", "told"), [("refused", "targets has no image"), ("faulty", "the log of")]
)
def test_what_the_run_says_is_told(site, target, told, caplog):
    job = ended(adapt.start(site, ANN, "default", adapt.SOURCE, None, *chosen(site, target=target)))
    assert job.state == "failed" and job.error.startswith(told) or told in job.error
    assert "secret" not in job.error and str(site.results) not in job.error
    assert ("secret" in caplog.text) == (target == "faulty")
    assert job.error in status(job).replace("&#x27;", "'")


@pytest.mark.parametrize("target", ["endless", "deaf"])
def test_cancel_ends_the_run(site, target, monkeypatch):
    monkeypatch.setattr(training, "GRACE", 0.3)
    job = adapt.start(site, ANN, "default", adapt.SOURCE, None, *chosen(site, target=target))
    ended(job, lambda: job.partial)
    assert job.note == "step 1 of 3, loss 1.000" and adapt.show(job)[2] == {
        "value": None, "visible": False, "__type__": "update",
    }  # fmt: skip
    site.jobs.cancel(ANN, job.id)
    assert "stopping" in status(job)
    assert ended(job).state == "cancelled" and "cancelled" in status(job)
    assert (job.directory / "run" / "ended").exists() == (target == "endless")


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"target": " "}, "text.target is empty; expected a few words"),
        ({"source": 3}, "text.source is 3; expected a text"),
        ({"target": "x" * 201}, "text.target has 201 characters"),
        ({"steps": 0}, "steps is 0; expected 1 to 1000"),
        ({"steps": 2.5}, "steps is 2.5; expected a whole number"),
        ({"lr": 0.0}, "optimizer.lr is 0.0"),
        ({"lr": None}, "optimizer.lr is None; expected a number"),
        ({"angle": -1}, "loss.angle is -1.0"),
        ({"seed": -1}, "seed is -1"),
        ({"strategy": "x"}, "freeze.strategy is 'x'; expected one of"),
    ],
)
def test_what_cannot_be_is_said_at_once(site, changed, told):
    with pytest.raises(UserError) as caught:
        adapt.start(site, ANN, "default", adapt.SOURCE, None, *chosen(site, **changed))
    assert told in str(caught.value)


def test_only_recipes_that_ship_are_run(site):
    for name in ("../../x", "benchmark", "", None, 3):
        with pytest.raises(UserError, match="is no recipe"):
            adapt.start(site, ANN, name, adapt.SOURCE, None, *chosen(site))


def test_the_page_follows_a_job_and_finds_it_again(site, page, browse):
    def of(trigger):
        config = page.guard.app.routes[-1].app.get_blocks().config
        ids = {x["props"].get("elem_id"): x["id"] for x in config["components"]}
        return next(
            x["id"]
            for x in config["dependencies"]
            if [ids["adapt-start"], trigger] in map(list, x["targets"])
        )

    new, click = browse(), of("click")
    assert new.join(click, ["default", adapt.SOURCE, None, *chosen(site, target=" ")])[0] == 200
    said = str(new.events())
    assert "text.target is empty; expected a few words" in said and "Traceback" not in said
    new.join(click, ["default", adapt.SOURCE, None, *chosen(site, target="<b>ink</b>")])
    said = new.events()
    assert "&lt;b&gt;ink&lt;/b&gt;: done" in str(said) and "/step_000003.png" in str(said)
    assert f"{site.results}/{new.visitor}" in str(said)
    # Another page of the same visitor, after a reload; and somebody else's.
    loads = [x for x, inputs in page.guard.functions.items() if inputs == 0]
    again = type(new)(page.url, new.cookie)
    for other, found in ((again, True), (browse(), False)):
        for number in loads:
            assert other.join(number, [])[0] == 200
        assert ("ink&lt;/b&gt;: done" in str(other.events())) == found
