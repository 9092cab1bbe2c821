"""What is compiled is kept, where that is possible; what is set for speed leaves the user's settings alone."""

import os

import jax
import pytest

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
        (f"{YNN} {TRITON}false", f"{YNN} {TRITON}false"),
    ],
)
def test_the_users_own_flags_stay(monkeypatch, given, expected):
    monkeypatch.setenv("XLA_FLAGS", given)
    set_flags()
    assert os.environ["XLA_FLAGS"] == expected
