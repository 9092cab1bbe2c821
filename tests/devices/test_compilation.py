"""What is compiled is kept, where that is possible; what is set for speed leaves the user's settings alone."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import nada_jax
from nada_jax.devices.compilation import keep_compiled, set_flags


@pytest.fixture(autouse=True)
def unset():
    """JAX as a user finds it, without the cache of these tests."""
    names = ("jax_compilation_cache_dir", "jax_compilation_cache_max_size")
    former = {name: getattr(jax.config, name) for name in names}
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    for name, value in former.items():
        jax.config.update(name, value)


def test_it_is_kept_in_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NADA_JAX_CACHE", str(tmp_path))
    keep_compiled()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "compiled")
    assert (tmp_path / "compiled").is_dir()
    assert jax.config.jax_compilation_cache_max_size > 0


def test_the_users_own_place_stays(tmp_path, monkeypatch):
    monkeypatch.setenv("NADA_JAX_CACHE", str(tmp_path))
    jax.config.update("jax_compilation_cache_dir", "elsewhere")
    keep_compiled()
    assert jax.config.jax_compilation_cache_dir == "elsewhere"
    assert not (tmp_path / "compiled").exists()


def test_nothing_is_kept_where_nothing_can_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("NADA_JAX_CACHE", str(tmp_path / "file"))
    keep_compiled()
    assert jax.config.jax_compilation_cache_dir is None


YNN, TRITON = "--xla_cpu_experimental_ynn_fusion_type=", "--xla_gpu_enable_triton_gemm="


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", f"{YNN} {TRITON}false"),
        ("--xla_a=1", f"--xla_a=1 {YNN} {TRITON}false"),
        (f"{YNN}DOT --xla_a=1", f"{YNN}DOT --xla_a=1 {TRITON}false"),
        (f"{TRITON}true", f"{TRITON}true {YNN}"),
        ("/home/me/flags.txt", "/home/me/flags.txt"),
        (f"{YNN} {TRITON}false", f"{YNN} {TRITON}false"),
    ],
)
def test_the_users_own_flags_stay(monkeypatch, given, expected):
    monkeypatch.setenv("XLA_FLAGS", given)
    set_flags()
    assert os.environ["XLA_FLAGS"] == expected


def test_a_device_that_is_not_there_is_told_by_a_sentence(tmp_path):
    result = subprocess.run(
        [sys.executable, "main.py", "--config=configs/sample.py", f"--workdir={tmp_path}/run"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "rocm"},
    )
    assert result.returncode == 2
    said = "error: JAX_PLATFORMS is 'rocm', and JAX finds no such device"
    assert result.stderr.startswith(said) and len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_device_that_is_not_there_is_no_damage_of_a_file(tiny_file, monkeypatch):
    def refuse():
        raise AssertionError  # as JAX does

    monkeypatch.setattr(jax, "default_backend", refuse)
    with pytest.raises(RuntimeError, match="none of the devices that JAX_PLATFORMS names"):
        nada_jax.load_generator(tiny_file)
