"""The main job, run as users run it: short runs, interrupted runs, refused runs."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from configs import default, nada_sketch, nada_stained_glass
from nada_jax import files, images, trees
from nada_jax.adaptation import prompts, vocabulary
from nada_jax.adaptation.freezing import adaptive, fixed
from nada_jax.adaptation.settings import Settings
from nada_jax.adaptation.state import Frozen, init_state
from nada_jax.adaptation.step import make_train_step
from nada_jax.errors import UserError
from nada_jax.models.stylegan2 import draw_latents
from nada_jax.runs import metrics, plots
from nada_jax.settings import LARGEST
from nada_jax.tasks import adapt
from nada_jax.weights import loading as weights
from nada_jax.weights import native

ROOT = Path(__file__).parents[2]
TINY = {}  # "file": what small runs adapt, "clip": by what they see
EMBEDDED = {
    "generator.weights": "avatar64",
    "clip.models": ("avatar-p16",),
}  # where it matters what


@pytest.fixture(scope="module", autouse=True)
def tiny(tiny_file, tiny_clip):
    """Lets `small` know the tiny networks."""
    TINY.update(file=str(tiny_file), clip=str(tiny_clip))


def small(**fields):
    """A run of a few seconds; fields by their dotted name."""
    config = default.get_config()
    settings = {
        "steps": 6, "batch_size": 1, "checkpoint_every": 3, "sample_every": 3, "log_every": 2,
        "clip.models": (TINY["clip"],), "clip.weights": (1.0,), "samples.count": 2,
        "generator.weights": TINY["file"],
    } | fields  # fmt: skip
    config.update_from_flattened_dict(settings)
    return config


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image, int)


def arrays(workdir):
    return files.read_safetensors(workdir / "generator.safetensors")[0]


def command(workdir, *options):
    line = [sys.executable, "main.py", "--config=configs/nada_sketch.py", f"--workdir={workdir}"]
    line += [f"--config.generator.weights={TINY['file']}", "--config.samples.count=2"]
    line += [f"--config.clip.models=('{TINY['clip']}',)", "--config.clip.weights=(1.0,)"]
    return [*line, "--config.batch_size=1", "--config.sample_every=1000", *options]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The workdir of a finished small run."""
    workdir = tmp_path_factory.mktemp("finished")
    assert adapt.run(small(), workdir) == 0
    return workdir


def test_a_run_leaves_all_that_it_promises(finished):
    rows = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert all(np.isfinite(row["loss"]) and row["loss"] == row["directional"] for row in rows)
    assert json.loads((finished / "config.json").read_text())["text"]["target"] == "pencil sketch"
    grids = sorted(path.name for path in (finished / "samples").iterdir())
    assert grids == ["step_000000.png", "step_000003.png", "step_000006.png"]
    assert pixels(finished / "samples" / grids[0]).shape == (272, 272, 3)
    assert pixels(finished / "loss.png").shape[1] > 500
    assert sorted(path.name for path in (finished / "checkpoints").iterdir()) == ["3", "6"]
    assert not [path for path in finished.rglob(".*")], "a temporary file was left behind"


def test_the_grid_shows_source_over_adapted_and_starts_equal(finished):
    first, last = (pixels(finished / "samples" / f"step_{step:06d}.png") for step in (0, 6))
    half = len(first) // 2
    assert np.array_equal(first[: half - 8], first[half + 8 :])
    assert np.array_equal(first[: half - 8], last[: half - 8])
    assert np.abs(last[half + 8 :] - first[half + 8 :]).mean() > 0.1


def test_only_constant_and_convolutions_move(finished):
    source, adapted = arrays_of_source(), arrays(finished)
    moved = {path for path in source if not np.array_equal(source[path], adapted[path])}
    trained = {p for p in source if p.startswith(("synthesis.conv_", "synthesis.constant"))}
    assert moved <= trained
    assert {p for p in trained if p.endswith(".weight")} <= moved


def arrays_of_source():
    return files.read_safetensors(Path(TINY["file"]))[0]


def test_a_finished_run_is_not_run_again(finished, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / "run")
    settings = json.loads((finished / "config.json").read_text())
    del settings["mesh"], settings["distributed"]  # a run from before there were these fields
    (tmp_path / "run" / "config.json").write_text(json.dumps(settings))
    assert adapt.run(small(), tmp_path / "run") == 0
    expected, again = arrays(finished), arrays(tmp_path / "run")
    assert all(np.array_equal(expected[path], again[path]) for path in expected)
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == (
        finished / "metrics.jsonl"
    ).read_text()
    assert "image:" in capsys.readouterr().out
    with pytest.raises(UserError, match="steps is 4, but .* holds a run of 6 steps; give as many"):
        adapt.run(small(steps=4), tmp_path / "run")


def test_a_continued_run_equals_one_that_was_not_interrupted(finished, tmp_path):
    assert adapt.run(small(steps=3), tmp_path) == 0
    # A line of a step that no checkpoint holds, and half a line: what a killed run leaves.
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "loss": 0.0, "directional": 0.0, "ms": 1.0}\n{"step": 5, "lo')
    seldom = {"log_every": 50, "sample_every": 50, "checkpoint_every": 50}
    assert adapt.run(small(**seldom), tmp_path) == 0
    expected, resumed = arrays(finished), arrays(tmp_path)
    assert all(np.array_equal(expected[path], resumed[path]) for path in expected)
    rows, again = (
        [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
        for workdir in (finished, tmp_path)
    )
    assert [(r["step"], r["loss"]) for r in rows] == [(r["step"], r["loss"]) for r in again]
    # The first step of each part compiles, which the time of no other one holds.
    assert again[3]["ms"] > 3 * again[4]["ms"] and again[4]["ms"] == again[5]["ms"]


@pytest.mark.slow
def test_killed_and_interrupted_runs_resume_bit_identically(tmp_path):
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    options = ["--config.steps=300", "--config.checkpoint_every=100"]
    same = nada_sketch.get_config()  # what `command` says, run in this process
    same.update_from_flattened_dict({
        "generator.weights": TINY["file"], "samples.count": 2, "clip.models": (TINY["clip"],),
        "clip.weights": (1.0,), "batch_size": 1, "sample_every": 1000, "steps": 300,
        "checkpoint_every": 100,
    })  # fmt: skip
    assert adapt.run(same, straight) == 0

    process = subprocess.Popen(command(killed, *options), cwd=ROOT)
    wait_for(killed / "checkpoints" / "100", process)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (killed / "generator.safetensors").exists()

    process = subprocess.Popen(
        command(killed, *options), cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    wait_for(killed / "checkpoints" / "200", process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate()
    assert process.returncode == 130 or (killed / "generator.safetensors").exists()
    assert "continuing at step 100" in output

    assert adapt.run(same, killed) == 0
    expected, resumed = arrays(straight), arrays(killed)
    assert all(np.array_equal(expected[path], resumed[path]) for path in expected)


def wait_for(path, process, seconds=300):
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None and time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_run_after_a_checkpoint(tmp_path, number, monkeypatch, capsys):
    append, former = metrics.append, signal.getsignal(number)

    def interrupt(path, rows):
        append(path, rows)
        if rows[-1]["step"] == 2:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(metrics, "append", interrupt)
    assert adapt.run(small(steps=50, checkpoint_every=50), tmp_path) == 128 + number
    assert "stopped at step 3" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["3"]
    assert not (tmp_path / "generator.safetensors").exists()
    assert signal.getsignal(number) == former


def test_a_loss_that_is_not_finite_names_step_and_checkpoint(tmp_path):
    adapt.run(small(steps=3), tmp_path)
    hot = small()
    hot.optimizer.lr = 1e30
    settings = json.loads((tmp_path / "config.json").read_text())
    settings["optimizer"]["lr"] = 1e30  # as if the run had been started so
    (tmp_path / "config.json").write_text(json.dumps(settings))
    said = r"norm of the parameters is inf at step 4.*checkpoints/3; a smaller optimizer.lr.*"
    with pytest.raises(UserError, match=said + "another --workdir, or --config.overwrite=True"):
        adapt.run(hot, tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["3"]
    with pytest.raises(UserError, match="optimizer.lr was .* or --config.overwrite=True"):
        adapt.run(small(), tmp_path)


def test_a_result_that_is_still_the_source_is_refused(tmp_path, capsys):
    with pytest.raises(UserError, match="nothing has trained: no weight has moved by more than"):
        adapt.run(small(ema=1e9, steps=1, sample_every=1000), tmp_path)
    assert not (tmp_path / "generator.safetensors").exists()
    note = "note: ema halves the source's share in 1e+09 steps: after 1 most"
    assert note in capsys.readouterr().out


def test_another_run_in_the_workdir_is_not_mixed_with_this_one(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    workdir = tmp_path / "run"
    other = small(**{"text.target": "zombie"})
    with pytest.raises(UserError, match=r"text.target was 'pencil sketch' and is 'zombie'"):
        adapt.run(other, workdir)
    with pytest.raises(UserError, match="resume is False"):
        adapt.run(small(resume=False), workdir)
    assert arrays(workdir).keys() == arrays(finished).keys()
    with pytest.raises(UserError, match="steps is 1, but"):
        adapt.run(small(steps=1), workdir)
    assert json.loads((workdir / "config.json").read_text())["steps"] == 6
    other.overwrite = True
    other.steps = 1
    mine = [workdir / name for name in ("checkpoints/notes.txt", "samples/me.png", "seed_0.png")]
    for path in mine:
        path.write_text("mine")
    assert adapt.run(other, workdir) == 0
    assert json.loads((workdir / "config.json").read_text())["text"]["target"] == "zombie"
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["1", "notes.txt"]
    assert sorted(path.name for path in (workdir / "samples").iterdir())[:2] == [
        "me.png", "step_000000.png"
    ]  # fmt: skip
    assert [path.read_text() for path in mine] == ["mine"] * 3


def test_nothing_is_deleted_where_no_adaptation_stands(tmp_path):
    (tmp_path / "checkpoints" / "7").mkdir(parents=True)
    said = r"files that the run would replace \(checkpoints/7\), and no config.json of a run"
    with pytest.raises(UserError, match=said):
        adapt.run(small(overwrite=True), tmp_path)
    (tmp_path / "config.json").write_text('{"task": "sample"}')
    with pytest.raises(UserError, match=r"\(task was 'sample' and is 'adapt'\); give another"):
        adapt.run(small(overwrite=True), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints", "config.json"]


def test_plots_that_fail_cost_a_warning_and_not_the_weights(finished, tmp_path, monkeypatch):
    shutil.copytree(finished, tmp_path / "run")
    for name in ("loss.png", "generator.safetensors"):
        (tmp_path / "run" / name).unlink()

    def fail(*_, **__):
        raise ValueError("no such font")

    monkeypatch.setattr(plots, "plot_losses", fail)
    with pytest.warns(UserWarning, match="loss.png is not drawn: no such font"):
        assert adapt.run(small(), tmp_path / "run") == 0
    assert (tmp_path / "run" / "generator.safetensors").exists()


def test_a_damaged_checkpoint_is_told(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    for path in (tmp_path / "run" / "checkpoints" / "6").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match="checkpoint .*6 does not fit this run or is damaged"):
        adapt.run(small(steps=8), tmp_path / "run")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"text.target": "  "}, "text.target is blank"),
        ({"text.target": "x\udcff"}, r"text.target is 'x\\udcff'; expected text without halves"),
        ({"text.others": ("\udcff",), "text.weights": (1.0,)}, "text.others is .*without halves"),
        ({"steps": 0}, "steps is 0; expected a whole number from 1"),
        ({"batch_size": 2**31}, "batch_size is 2147483648; expected at most 2,147,483,647"),
        ({"samples.count": 10**8}, r"samples.count is 100000000; expected .* in 1\.\.65,536"),
        ({"samples.truncation": 1e308}, r"samples.truncation is 1e\+308; expected .* -100\.\.100"),
        ({"freeze.strategy": "lat"}, "freeze.strategy is 'lat'; expected one of"),
        (
            {"freeze.strategy": "adaptive", "freeze.k": 11},
            "freeze.k is 11; expected 1..6, the latents of",
        ),
        ({"clip.weights": (1.0, 2.0)}, "clip.weights is .*one number from 0 for each of the 1"),
        ({"loss.directional": 0.0}, "loss.directional, .*loss.sds are 0; expected one above 0"),
        ({"patch.fraction": 1.5}, "patch.fraction is 1.5; expected a share above 0, up to 1"),
        ({"precision": "float16"}, "precision is 'float16'"),
        ({"generator.weights": "nowhere.pt"}, "generator.weights='nowhere.pt' is neither"),
        ({"generator.noise": "loud"}, "generator.noise is 'loud'"),
        ({"clip.weights": (0.0,)}, "clip.weights is .*one number"),
        ({"clip.weights": ("a",)}, "clip.weights is .*a number"),
        ({"clip.zoom": float("inf")}, "clip.zoom is inf"),
        ({"optimizer.betas": ("a", "b")}, "optimizer.betas is .*two numbers from 0"),
        ({"seed": 10**20}, "seed is 100000000000000000000"),
        ({"freeze.parity": "other"}, "freeze.parity is 'other'"),
        ({"freeze.measure": "far"}, "freeze.measure is 'far'; expected one of absolute, relative"),
        (
            {"freeze.strategy": "adaptive_parameters", "freeze.k": 99},
            "freeze.k is 99; expected 1..38, the tensors of",
        ),
        (
            {"freeze.strategy": "adaptive_parameters", "freeze.iterations": 10**6},
            "freeze.iterations is 1000000; expected at most 100 for adaptive_parameters",
        ),
        (
            {"loss.lpips": 1.0, "lpips.weights": ""},
            "lpips.weights is ''; expected a VGG-16 .* which loss.lpips needs",
        ),
        (
            {"loss.style": 1.0},
            "style.images is ''; expected a file or a folder .* loss.style needs",
        ),
        ({"loss.style": 1.0, "style.images": "nowhere"}, "style.images='nowhere' does not exist"),
        ({"stop.diversity": 0.5}, "stop.diversity is 0.5; expected 0 as long as stop.every is 0"),
        ({"clip.background": "sea"}, "clip.background is 'sea'; expected one of edge, random"),
        ({"text.others": ("robot",)}, r"text.weights is \(\); expected a number for each of the 1"),
        ({"text.others": (" ",), "text.weights": (1.0,)}, r"text.others is \(' ',\)"),
        ({"text.source_images": "x"}, "text.source_images is 'x', but text.target_images is empty"),
        ({"text.target_images": "nowhere"}, "text.target_images='nowhere' is no directory"),
        ({"text.read_every": 5, "text.vocabulary": "nowhere"}, "cannot read nowhere"),
    ],
)
def test_wrong_fields_are_named_before_anything_is_written(fields, message, tmp_path):
    with pytest.raises(UserError, match=message):
        adapt.run(small(**fields), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--config=configs/nada_sketch.py", "--config.stepz=3"], "did you mean --config.steps?"),
        (["--config", "configs/nada_sketch.py", "--steps=3"], "did you mean --config.steps?"),
        (
            ["--config=configs/nada_sketch.py", "--config.loss.global=1"],
            "there is no --config.loss.global; did you mean --config.loss.global_?",
        ),
        (
            ["--config=configs/nada_sketch.py", "--config.steps=many"],
            "steps is 'many'; expected a whole number",
        ),
        (["--config=configs/nada_sketch.py", "--config.loss=3"], "loss is a section; expected"),
        (
            ["--config=configs/nada_sketch.py", "--config.loss.l2=0.0", "--config.loss=3"],
            "loss is a section; expected",
        ),
        (["--config.steps=3", "--config=configs/nada_sketch.py"], "expected --config first"),
        (["--config=configs/nada_sketch.py", b"--config.text.target=\xff"], "\\udcff' is not text"),
        (["--config=configs/nada_sketch.py:nowhere"], "variant is 'nowhere'; expected"),
        (["--config=configs/nowhere.py"], "configs/nowhere.py"),
        (["--config=nada_sketch"], "did you mean configs/nada_sketch.py?"),
        (
            ["--config=configs/default.py", "--config.text.target", "--config.steps=2"],
            "--config.text.target has no value; expected --config.text.target=VALUE",
        ),
        ([], "--config is missing"),
        (["--config=README.md"], "README.md"),
        (
            ["--config=configs/nada_sketch.py", "--config.task=nowhere"],
            "task is 'nowhere'; expected",
        ),
        (["--config=configs/nada_sketch.py", "--config.text.target="], "text.target is blank"),
        (["--config=configs/nada_sketch.py:ffhq"], "stylegan2-ffhq-config-f.pkl, or give its path"),
        (["--config=configs/nada_sketch.py", "--workdir=main.py/run"], "cannot write"),
        (
            ["--config=configs/default.py", "--config.freeze.strategy=low_rank"]
            + [f"--config.freeze.rank={LARGEST}", "--config.clip.models=('avatar-p8',)"]
            + ["--config.clip.weights=(1.0,)"],  # ten terabytes, by any machine
            "error: there is not enough memory (RESOURCE_EXHAUSTED",
        ),
    ],
)
def test_the_command_line_ends_in_one_sentence_and_code_2(options, message, tmp_path):
    if not any(os.fsencode(option).startswith(b"--workdir") for option in options):
        options = [*options, f"--workdir={tmp_path}/run"]
    # No network: whatever leaves this machine is sent to a port where nobody listens.
    environment = os.environ | {"NADA_JAX_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    environment |= dict.fromkeys(("HTTPS_PROXY", "HTTP_PROXY"), "http://127.0.0.1:9")
    result = subprocess.run(
        [sys.executable, "main.py", *options],
        cwd=ROOT, capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert result.returncode == 2
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and message in lines[0]
    assert not (tmp_path / "run").exists()


def test_adaptive_layers_and_every_loss_train(tmp_path):
    fields = {
        "freeze.strategy": "adaptive", "freeze.k": 3, "freeze.batch_size": 2, "freeze.every": 2,
        "loss.global_": 0.1, "loss.manifold": 0.1, "loss.patch": 0.1, "loss.l2": 0.1,
        "loss.angle": 0.1, "balancing.mode": "uncertainty", "batch_size": 2, "generator.mixing": 0.9,
        "steps": 2, "checkpoint_every": 2, "precision": "bfloat16",
    }  # fmt: skip
    assert adapt.run(small(**fields), tmp_path) == 0
    row = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    terms = {"directional", "global_", "manifold", "angle", "patch", "l2"}
    assert terms | {f"weight_{term}" for term in terms} <= row.keys()
    source, adapted = arrays_of_source(), arrays(tmp_path)
    moved = {p.split(".")[1] for p in source if not np.array_equal(source[p], adapted[p])}
    layers = fixed.latent_of_layer(6, "corrected")
    driven = {name for name, j in layers.items() if j in row["chosen"]}
    assert len(row["chosen"]) == 3 and moved and moved <= driven
    assert pixels(tmp_path / "layers.png").shape[1] > 500


@pytest.mark.parametrize(
    ("strategy", "trains"),
    [
        ("style_space", r"synthesis\.conv_\d\.modulation\.bias"),
        ("low_rank", r"synthesis\.conv_\d\.weight"),
        ("adaptive_parameters", None),
    ],
)
def test_what_a_strategy_does_not_train_stays_bit_by_bit(strategy, trains, tmp_path):
    fields = {"freeze.strategy": strategy, "freeze.k": 2, "freeze.batch_size": 2, "freeze.rank": 1}
    assert adapt.run(small(**fields, steps=3), tmp_path) == 0
    source, adapted = arrays_of_source(), arrays(tmp_path)
    moved = {path for path in source if not np.array_equal(source[path], adapted[path])}
    if trains:
        assert moved == {path for path in source if re.fullmatch(trains, path)}
    else:
        names = adaptive.tensors(weights.load_generator(TINY["file"]).params)
        rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
        assert all(len(row["chosen"]) == 2 for row in rows)
        assert moved == {f"synthesis.{names[j]}" for row in rows for j in row["chosen"]}
        assert pixels(tmp_path / "layers.png").shape[0] > 700  # of 540 where names are few
    if strategy == "low_rank":
        change = adapted["synthesis.conv_2.weight"] - source["synthesis.conv_2.weight"]
        values = np.linalg.svd(change.reshape(-1, change.shape[-1]), compute_uv=False)
        assert values[1] < 1e-3 * values[0]


def test_a_style_delta_is_the_way_from_the_source_to_the_adapted_generator(tmp_path):
    assert adapt.run(small(**{"freeze.strategy": "style_space", "steps": 3}), tmp_path) == 0
    file = tmp_path / "style_delta.safetensors"
    assert file.stat().st_size < 8192
    source, adapted = arrays_of_source(), arrays(tmp_path)

    def shifted(*scales):
        deltas = [file] * len(scales)
        return native.model_to_arrays(
            weights.load_generator(TINY["file"], deltas=deltas, scales=scales)
        )

    nothing, whole = shifted(0), shifted(1)
    assert all(np.array_equal(nothing[path], source[path]) for path in source)
    for path in adapted:
        np.testing.assert_allclose(whole[path], adapted[path], atol=1e-7)
    halves = shifted(0.25, 0.75)
    path = "synthesis.conv_3.modulation.bias"
    np.testing.assert_allclose(halves[path], adapted[path], atol=1e-7)
    assert not np.array_equal(adapted[path], source[path])


def test_images_in_place_of_the_target_text_lead_the_way(tmp_path):
    """Towards grey images, which no text names; another CLIP confirms it."""
    generator = weights.load_generator("avatar64")
    draw = jax.jit(lambda generator, ws: generator.synthesize(ws))
    ws = draw_latents(generator, jax.random.key(5), 24)
    grey = np.asarray(draw(generator, ws[:16])).mean(axis=-1, keepdims=True).repeat(3, axis=-1)
    for i, image in enumerate(grey):
        images.save(images.to_uint8(image), tmp_path / "grey" / f"{i}.png")
    (tmp_path / "grey" / "notes.txt").write_text("no image")
    fields = {"text.target_images": str(tmp_path / "grey"), "steps": 24, "batch_size": 2}
    fields |= EMBEDDED
    quiet = {"log_every": 24, "sample_every": 24, "checkpoint_every": 24}
    assert adapt.run(small(**fields, **quiet), tmp_path / "run") == 0
    adapted = weights.load_generator(tmp_path / "run" / "generator.safetensors")
    drawn = {"before": draw(generator, ws[16:]), "after": draw(adapted, ws[16:])}
    colour = {name: float(np.std(x, axis=-1).mean()) for name, x in drawn.items()}
    assert colour["after"] < 0.7 * colour["before"], colour
    judge = weights.load_clip("avatar-p8")
    mean = prompts.mean_features([judge], [grey])[0]
    near = {name: judge.embed_images(x) @ mean for name, x in drawn.items()}
    assert np.all(near["after"] > near["before"])
    header = files.read_metadata(tmp_path / "run" / "generator.safetensors")
    assert header["source"] == "avatar64" and "texts" not in header


def test_the_source_text_is_read_at_every_epoch_and_logged(tmp_path, capsys, monkeypatch):
    """What is read of the embedded generator is seen in tests/adaptation/test_vocabulary.py."""
    (tmp_path / "words.txt").write_text("cartoon portrait\nzombie\nmosaic\n")
    fields = {"text.read_every": 2, "text.vocabulary": str(tmp_path / "words.txt")}
    fields |= {"text.source": "oil painting", "text.target": "zombie", "steps": 3}
    scores = lambda *_: jnp.array([0.9, 0.8])  # noqa: E731 - of all but the target
    monkeypatch.setattr(vocabulary, "scores", scores)
    assert adapt.run(small(**fields), tmp_path / "run") == 0
    rows = [json.loads(x) for x in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["source_text"] for row in rows] == ["cartoon portrait"] * 3
    assert capsys.readouterr().out.count("source text from step") == 2
    header = files.read_metadata(tmp_path / "run" / "generator.safetensors")
    assert json.loads(header["texts"]) == ["cartoon portrait", "zombie"]
    # The texts are arguments of the step: the same one, started from that text, goes the same way.
    fields |= {"text.read_every": 0, "text.source": "cartoon portrait"}
    assert adapt.run(small(**fields), tmp_path / "static") == 0
    dynamic, static = arrays(tmp_path / "run"), arrays(tmp_path / "static")
    assert all(np.array_equal(dynamic[path], static[path]) for path in static)


def test_networks_of_faces_and_of_perception_take_part(tmp_path, narrow_networks):
    fields = {"loss.lpips": 1.0, "loss.identity": 1.0, "low_memory": True, "steps": 2}
    fields |= {
        f"{n}.weights": str(narrow_networks[k])
        for n, k in (("lpips", "vgg"), ("identity", "irse50"))
    }
    assert adapt.run(small(**fields), tmp_path) == 0
    row = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert row["lpips"] > 0 and row["identity"] > 0
    assert row["loss"] == pytest.approx(
        row["directional"] + row["lpips"] + row["identity"], rel=1e-5
    )


def test_the_recipe_of_a_style_brings_images_nearer_to_it(tmp_path, narrow_networks, capsys):
    """By the style alone: what its step computes is little else than a small VGG."""
    config = nada_stained_glass.get_config()
    config.update_from_flattened_dict({
        "generator.weights": TINY["file"], "clip.models": (TINY["clip"],), "clip.weights": (1.0,),
        "loss.directional": 0.0, "loss.angle": 0.0, "style.size": 16, "batch_size": 2, "steps": 40,
        "style.weights": str(narrow_networks["vgg"]), "samples.count": 1, "optimizer.lr": 0.02,
        "low_memory": True, "checkpoint_every": 40, "sample_every": 40,
    })  # fmt: skip
    assert adapt.run(config, tmp_path) == 0
    rows = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["loss"] == pytest.approx(config.loss.style * rows[-1]["style"])
    assert rows[-1]["style"] < 0.5 * rows[0]["style"]
    assert "note: loss.style alone leads, which sees no text" in capsys.readouterr().out


def test_a_run_ends_when_held_out_images_reach_a_limit(tmp_path, capsys):
    fields = {"stop.every": 2, "stop.diversity": 0.1, "stop.clip": "avatar-p8"}
    assert adapt.run(small(**fields, steps=2), tmp_path / "long") == 0
    seen = json.loads((tmp_path / "long" / "metrics.jsonl").read_text().splitlines()[-1])
    assert 0.6 < seen["diversity_kept"] < 1.2 and -1 < seen["similarity"] < 1
    assert "finished after" not in capsys.readouterr().out
    fields["stop.diversity"] = seen["diversity_kept"] + 0.01
    for _ in range(2):  # the same command again finds that it is over
        assert adapt.run(small(**fields, steps=9), tmp_path / "short") == 0
        rows = (tmp_path / "short" / "metrics.jsonl").read_text().splitlines()
        assert len(rows) == 2 and json.loads(rows[-1])["diversity_kept"] == seen["diversity_kept"]
        assert "finished after step 2: diversity kept is" in capsys.readouterr().out
        assert (tmp_path / "short" / "samples" / "step_000002.png").exists()
        assert (tmp_path / "short" / "generator.safetensors").exists()
    (tmp_path / "long" / "metrics.jsonl").unlink()  # without metrics nothing is known to stop for
    fields["stop.diversity"] = 0.1
    assert adapt.run(small(**fields, steps=3), tmp_path / "long") == 0


def test_steps_never_compile_twice():
    """The choice of layers moves from step to step; the compiled step stays."""
    config = small(**{"freeze.strategy": "adaptive", "freeze.k": 2, "freeze.batch_size": 1})
    settings = Settings.read(config)
    generator = weights.load_generator(TINY["file"])
    clip = weights.load_clip(TINY["clip"])
    targets = prompts.targets(clip, "photo", "zombie")
    labels = settings.freeze.row.labels(generator.params, settings.freeze)
    optimizer = settings.optimizer.make(labels)
    state = init_state(generator, optimizer, settings)
    step = jax.jit(make_train_step(settings, optimizer))
    frozen, choices = Frozen(generator, (clip,), (targets,)), set()
    for _ in range(4):
        state, _ = step(state, frozen, jax.random.key(0))
        choices.add(tuple(np.flatnonzero(state.chosen)))
    assert step._cache_size() == 1
    assert all(len(choice) == 2 for choice in choices)
    assert trees.flatten(generator.params).keys() == trees.flatten(state.trained).keys()
