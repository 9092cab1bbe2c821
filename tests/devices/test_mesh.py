"""One device, eight devices and two processes train alike, and continue each other's runs.

Commands run as users run them; XLA makes eight devices of one CPU. Only the order of sums over the batch differs,
which moves a loss by some units of its last place, 6e-8. Adam's first steps have the same length however small the
gradient, so that parameters are compared on the average.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import nada_jax
from configs import default
from nada_jax import files
from nada_jax.devices import mesh as meshes
from nada_jax.devices.mesh import MeshShape
from nada_jax.errors import UserError
from nada_jax.models.stylegan2 import Architecture, draw_latents
from nada_jax.tasks import adapt

ROOT = Path(__file__).parents[2]
LOSSES, PARAMETERS = (
    5e-6,
    1e-5,
)  # largest and mean difference; six steps move a parameter by up to 6e-3
STEPS = 6

# main.py, which besides keeps how the saved state lies on the devices, and latents drawn on all of them.
WATCHED = """
import json, sys
import jax
import main
from nada_jax import load_generator
from nada_jax.devices import mesh as meshes
from nada_jax.runs.checkpoints import Checkpoints
from nada_jax.models.stylegan2 import draw_latents

parts, save = {}, Checkpoints.save
def watch(self, step, tree):
    for path, x in jax.tree_util.tree_flatten_with_path(tree)[0]:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        parts[name] = [list(x.shape), list(x.addressable_shards[0].data.shape)]
    save(self, step, tree)
Checkpoints.save = watch
kept, weights = sys.argv[1:3]
assert main.main(["main.py", *sys.argv[3:]]) == 0

mesh = meshes.make_mesh(meshes.MeshShape(data=0, fsdp=2), {"batch_size": 16})
generator = meshes.place(load_generator(weights), mesh)
draw = lambda g, key: meshes.split_batch(draw_latents(g, key, 16, mixing=0.5), mesh)
ws = jax.jit(draw)(generator, jax.random.key(3))
assert ws.addressable_shards[0].data.shape[0] == 2
json.dump({"parts": parts, "ws": ws.tolist()}, open(kept, "w"))
"""

# main.py, which gets a SIGTERM in its third step.
STOPPED = """
import os, signal, sys
import main
from nada_jax.runs.training import TrainingRun

fetch = TrainingRun._fetch
def interrupt(run):
    if run.step == 3:
        os.kill(os.getpid(), signal.SIGTERM)
    fetch(run)
TrainingRun._fetch = interrupt
sys.exit(main.main(["main.py", *sys.argv[1:]]))
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory, random_generator):
    """The file of a generator of 8 pixels, whose convolutions are large enough to be split."""
    architecture = Architecture(channels=(96, 96), z_dim=32, w_dim=48, mapping_layers=2)
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    nada_jax.save_generator(random_generator(architecture), path)
    return path


@pytest.fixture(scope="module")
def fields(weights, tiny_clip):
    """What the runs have in common."""
    return {
        "generator.weights": str(weights), "generator.mixing": 0.5, "clip.models": (str(tiny_clip),),
        "clip.weights": (1.0,), "freeze.strategy": "adaptive", "freeze.k": 2, "batch_size": 8,
        "steps": STEPS, "checkpoint_every": 3, "sample_every": 6, "log_every": 1,
        "samples.count": 2,
    }  # fmt: skip


@pytest.fixture(scope="module")
def options(fields):
    """The same as a command line."""
    line = [f"--config.{field}={value}" for field, value in fields.items()]
    return ["--config=configs/default.py", *line]


def start(line, devices=1):
    """Starts Python on so many devices."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        [sys.executable, *line], cwd=ROOT, text=True,
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def finish(process, code=0):
    """Waits for a process; returns its stdout, but for lines of XLA's, and stderr."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, err
    return "".join(line for line in out.splitlines(True) if "[Gloo]" not in line), err


def start_two(*lines):
    """Starts the two processes of a run, which meet on this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meet = [
        f"--config.distributed.coordinator=127.0.0.1:{port}",
        "--config.distributed.processes=2",
    ]
    return [
        start([*line, *meet, f"--config.distributed.process={i}"]) for i, line in enumerate(lines)
    ]


def run_here(fields, workdir):
    """Runs in this process on one CPU."""
    config = default.get_config()
    config.update_from_flattened_dict(fields | {"mesh.data": 1})
    with jax.default_device(jax.devices("cpu")[0]):
        assert adapt.run(config, workdir) == 0


def losses(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return {row["step"]: row["loss"] for row in map(json.loads, lines)}


def assert_same(workdir, reference):
    """A run had the losses of another one, and its result."""
    ours, theirs = losses(workdir), losses(reference)
    assert list(ours) == list(theirs) == list(range(1, STEPS + 1))
    assert max(abs(ours[step] - theirs[step]) for step in theirs) < LOSSES
    ours, theirs = (
        files.read_safetensors(directory / "generator.safetensors")[0]
        for directory in (workdir, reference)
    )
    assert all(np.abs(ours[path] - theirs[path]).mean() < PARAMETERS for path in theirs)


def results(workdir):
    """All files of a run but those in its checkpoints."""
    found = (path.relative_to(workdir) for path in workdir.rglob("*"))
    return sorted(str(path) for path in found if len(path.parts) < 3)


def half(workdir, copy):
    """A run as it stood at its first checkpoint."""
    shutil.copytree(workdir, copy)
    shutil.rmtree(copy / "checkpoints" / str(STEPS))
    (copy / "generator.safetensors").unlink()
    return copy


@pytest.fixture(scope="module")
def finished(tmp_path_factory, fields, options, weights):
    """Workdirs of the run on one device and on eight with split weights, and what WATCHED kept."""
    here = tmp_path_factory.mktemp("finished")
    line = ["-c", WATCHED, str(here / "kept.json"), str(weights), *options, "--config.mesh.fsdp=2"]
    eight = start([*line, f"--workdir={here / 'eight'}"], devices=8)
    run_here(fields, here / "one")
    out, _ = finish(eight)
    assert "devices" not in out  # all of them work
    return here / "one", here / "eight", json.loads((here / "kept.json").read_text())


def test_eight_devices_with_split_weights_train_as_one(finished):
    one, eight, _ = finished
    assert_same(eight, one)
    assert results(eight) == results(one)


def test_parameters_and_optimiser_state_lie_split(finished):
    parts = finished[2]["parts"]
    large = {name for name, (shape, _) in parts.items() if np.prod(shape) >= meshes.LARGE}
    assert {name.split(".")[1] for name in large} == {"trained", "opt_state"}
    assert len(large) == 3 * 3  # weights and two moments of three convolutions
    for name, (shape, part) in parts.items():
        assert np.prod(shape) == np.prod(part) * (2 if name in large else 1), name


def test_the_same_seeds_draw_the_same_latents_on_any_device_count(finished, weights):
    assert jax.config.jax_threefry_partitionable
    ws = draw_latents(nada_jax.load_generator(weights), jax.random.key(3), 16, mixing=0.5)
    assert np.abs(np.array(finished[2]["ws"]) - ws).max() < 1e-5 * np.abs(ws).max()


def test_one_device_continues_a_run_of_eight(finished, fields, tmp_path):
    one, eight, _ = finished
    run_here(fields, half(eight, tmp_path / "run"))
    assert_same(tmp_path / "run", one)


def test_two_processes_continue_a_run_of_eight_devices(finished, options, tmp_path):
    one, eight, _ = finished
    line = ["main.py", *options, f"--workdir={half(eight, tmp_path / 'run')}"]
    (out, _), (silence, _) = map(finish, start_two(line, line))
    assert "continuing at step 3" in out and "adapted generator" in out and not silence
    assert_same(tmp_path / "run", one)
    assert results(tmp_path / "run") == results(one)


@pytest.mark.slow
def test_a_signal_to_one_of_two_processes_stops_both_and_one_device_continues(
    finished, fields, options, tmp_path
):
    one, eight, _ = finished
    line = [*options, f"--workdir={tmp_path / 'run'}"]
    stopped = start_two(["main.py", *line], ["-c", STOPPED, *line])
    (out, _), (silence, _) = (finish(process, code=128 + 15) for process in stopped)
    assert "stopped at step 4 with a checkpoint" in out and not silence
    assert (tmp_path / "run" / "checkpoints" / "4").is_dir()
    first, expected = losses(tmp_path / "run"), losses(one)
    assert list(first) == [1, 2, 3, 4]
    assert max(abs(first[step] - expected[step]) for step in first) < LOSSES
    run_here(fields, tmp_path / "run")
    assert_same(tmp_path / "run", one)


def test_processes_with_different_configs_refuse_both(options, tmp_path):
    line = ["main.py", *options, f"--workdir={tmp_path / 'run'}"]
    for process in start_two(line, [*line, "--config.seed=1"]):
        _, err = finish(process, code=2)
        assert "process 1 was started with another config than process 0" in err
    assert not (tmp_path / "run").exists()


# -- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("devices", "processes", "data", "fsdp", "batches", "message"),
    [
        (8, 1, 16, 1, {"batch_size": 16}, r"mesh.data \* mesh.fsdp is 16 \* 1, but there are 8"),
        (8, 1, 0, 16, {"batch_size": 16}, r"mesh.data \* mesh.fsdp is 1 \* 16, but there are 8"),
        (8, 1, 3, 1, {"batch_size": 4}, r"is 3 \* 1; expected a number that divides batch_size 4"),
        (8, 1, 0, 4, {"batch_size": 2}, r"is 1 \* 4; expected a number that divides batch_size 2"),
        (
            8, 1, 8, 1, {"batch_size": 8, "freeze.batch_size": 4},
            "divides batch_size 8 and freeze.batch_size 4",
        ),
        (8, 2, 0, 1, {"batch_size": 4}, "use all of their 8 devices; expected batch_size to be"),
    ],
)  # fmt: skip
def test_meshes_that_do_not_fit_are_refused(
    machine, devices, processes, data, fsdp, batches, message
):
    machine(devices, processes)
    with pytest.raises(UserError, match=message):
        meshes.make_mesh(MeshShape(data=data, fsdp=fsdp), batches)


def test_hosts_of_a_pod_that_did_not_join_are_named(machine, monkeypatch):
    machine(8, 2)
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: False)
    with pytest.raises(UserError, match="8 devices belong to 2 hosts; give distributed.coordin"):
        meshes.make_mesh(MeshShape(data=0, fsdp=1), {"batch_size": 8})


def test_devices_that_stay_idle_are_named(machine):
    machine(8)
    assert (
        meshes.make_mesh(MeshShape(data=0, fsdp=1), {"batch_size": 7, "freeze.batch_size": 8})
        is None
    )
    line = meshes.idle(None, {"batch_size": 7})
    assert line == "uses 1 of 8 devices: batch_size 7; multiples of 8 could use all"
    machine(1)
    assert meshes.idle(None, {"batch_size": 7}) == ""


def test_one_axis_is_spread_over_all_devices():
    x = np.ones((3, 4, 2))
    spread = meshes.spread(x, meshes.mesh_of(jax.devices()[:1]), axis=1)
    assert spread.sharding.spec == jax.sharding.PartitionSpec(None, (meshes.DATA, meshes.FSDP))
    assert meshes.spread(x, None) is x
