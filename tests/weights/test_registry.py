"""The table of published weights, and where their files stand."""

import pytest

from nada_jax.weights import registry


@pytest.mark.parametrize("entry", registry.GENERATORS.values(), ids=lambda entry: entry.name)
def test_an_entry_says_what_a_user_must_know(entry):
    assert entry.url.startswith("https://nvlabs-fi-cdn.nvidia.com/stylegan2")
    assert entry.file.endswith(".pkl") and "/" not in entry.file
    assert entry.size in (256, 512, 1024)
    assert 290 < entry.megabytes < 390
    assert entry.images and entry.source_text and entry.images_license
    assert entry.license in registry.LICENSES
    assert entry.sha256 is None or len(bytes.fromhex(entry.sha256)) == 32


@pytest.mark.parametrize("entry", registry.VGGS.values(), ids=lambda entry: entry.name)
def test_an_entry_of_a_vgg_has_a_hash_that_its_name_begins(entry):
    name, digits = entry.file.removesuffix(".pth").split("-")
    assert entry.url.startswith("https://") and name in entry.name
    assert entry.sha256.startswith(digits) and len(entry.sha256) in (8, 64)
    assert entry.license in registry.LICENSES and entry.images and entry.images_license


def test_no_two_entries_share_a_name_or_a_file():
    entries = [*registry.GENERATORS.values(), *registry.VGGS.values()]
    for known in ("name", "file", "url"):
        assert len({getattr(entry, known) for entry in entries}) == 13


def test_the_embedded_models_of_the_table_are_there():
    for name in registry.EMBEDDED:
        assert (registry.ASSETS / f"{name}.safetensors").is_file()


def test_the_cache_is_in_the_home_directory_by_default(tmp_path, monkeypatch):
    monkeypatch.delenv("NADA_JAX_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert registry.cache() == tmp_path / ".cache" / "nada_jax"
