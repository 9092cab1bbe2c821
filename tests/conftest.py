"""Fixtures for all tests.

The reference outputs stand in tests/golden, the large ones beside the checkout in shared/golden.
"""

import atexit
import collections
import contextlib
import ctypes
import functools
import gc
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

# One compilation cache for all tests and the commands that they start; before JAX is imported.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="nada_jax_tests_")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ.setdefault("JAX_DEFAULT_MATMUL_PRECISION", "highest")  # no TF32 on GPUs
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # processes share a GPU
# Few programs run here for longer than they compile: XLA compiles to slower code of the same operations, in half the
# time, and in a third with its older emitters; those under `full_compile` get LLVM's first level, which is near the best.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ["XLA_FLAGS"] = " ".join((
    "--xla_backend_optimization_level=1", "--xla_cpu_parallel_codegen_split_count=1",
    os.environ.get("XLA_FLAGS", ""),
))  # fmt: skip
if importlib.metadata.version("jaxlib").startswith("0.10."):  # an unknown flag ends the process
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"
# Where pytest's processes use all cores, each keeps to one of them: threads that compete for cores wait for each other.
if hasattr(os, "sched_setaffinity") and (worker := os.environ.get("PYTEST_XDIST_WORKER")):
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) <= int(os.environ["PYTEST_XDIST_WORKER_COUNT"]):
        os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})

import jax
import numpy as np
import pytest

from nada_jax import files
from nada_jax.devices import compilation
from nada_jax.models import diffusion
from nada_jax.models.diffusion import Diffusion
from nada_jax.models.irse import Irse50, Irse50Architecture
from nada_jax.models.stylegan2 import Architecture, Generator
from nada_jax.models.tokenizer import load_tokenizer
from nada_jax.models.vgg import BLOCKS, Vgg, VggArchitecture
from nada_jax.weights import diffusers
from nada_jax.weights.loading import load_clip
from nada_jax.weights.native import model_from_arrays, save_model
from nada_jax.weights.registry import ASSETS

compilation.set_flags()
# Traces leave millions of objects that live on; looking through them again and again took 5 % of the time.
gc.set_threshold(100_000, 20, 100)
MEMORY = 3e9  # bytes of a process, beyond which what JAX has compiled is dropped after a module
SHARED = Path(__file__).parents[2] / "shared"
GOLDEN = Path(__file__).parent / "golden"


def pytest_collection_modifyitems(items):
    """Modules of long tests come first, so that no process is left with one of them at the end."""
    slow = collections.Counter(item.path for item in items if item.get_closest_marker("slow"))
    tests = collections.Counter(item.path for item in items)
    items.sort(key=lambda item: -slow[item.path] / tests[item.path])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item, nextitem):
    """Programs of modules that are done would take 10 GB in the end, of each process, and slow it down."""
    result = yield
    if sys.platform == "linux" and (nextitem is None or nextitem.path != item.path):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        if pages * os.sysconf("SC_PAGE_SIZE") > MEMORY:
            jax.clear_caches()
            gc.collect()
            with contextlib.suppress(OSError, AttributeError):  # another C library
                ctypes.CDLL("libc.so.6").malloc_trim(0)
    return result


@pytest.fixture(scope="session")
def shared():
    """shared("weights/x") -> its path; skips where it is absent."""

    def find(name):
        path = SHARED / name
        if not path.exists():
            pytest.skip(f"shared/{name} is not beside this checkout")
        return path

    return find


@pytest.fixture(scope="session")
def make_settings():
    """make_settings({"freeze.k": 2}) -> the settings of an adaptation: one CLIP, the directional loss alone."""
    from configs import default
    from nada_jax.adaptation.settings import Settings

    base = {"batch_size": 2, "clip.models": ("some",), "clip.weights": (1.0,), "loss.angle": 0.0}

    def make(fields=()):
        config = default.get_config()
        config.update_from_flattened_dict(base | dict(fields))
        return Settings.read(config)

    return make


@pytest.fixture
def full_compile():
    """XLA compiles to fast code, as for users: for tests that take many steps."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    quick = os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1"
    jax.config.update("jax_disable_most_optimizations", quick)


@pytest.fixture(scope="session")
def golden(shared):
    """golden("clip_losses.npz") -> its arrays; golden("shapes.json") -> its content."""

    @functools.cache
    def load(name):
        path = GOLDEN / name
        path = path if path.exists() else shared(f"golden/{name}")
        if path.suffix == ".json":
            return json.loads(path.read_text())
        with np.load(path) as file:
            return dict(file)

    return load


@pytest.fixture(scope="session")
def golden_weights(golden):
    """golden_weights("generator 64 cm2", seed) -> the state dict that the outputs came from.

    The table may be given by its name in shapes.json, or as {key: shape}.
    """
    spec = importlib.util.spec_from_file_location("seeded", GOLDEN / "seeded.py")
    seeded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(seeded)
    tables = golden("shapes.json")
    return lambda table, seed: seeded.state_dict(
        tables[table] if isinstance(table, str) else table, seed
    )


@pytest.fixture(scope="session")
def assert_close():
    """assert_close(actual, expected, 1e-4): largest difference over the largest expected value."""

    def check(actual, expected, tolerance=1e-4):
        actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
        assert actual.shape == expected.shape
        error = np.abs(actual - expected).max() / np.abs(expected).max()
        assert error <= tolerance, f"relative error {error:.2e}, allowed {tolerance:.0e}"

    return check


@pytest.fixture(scope="session")
def golden_clips(golden, golden_weights):
    """The two CLIPs of the reference outputs, by the name that their keys in clip_losses.npz start with."""
    from convert import clip as conversion
    from nada_jax.models import clip

    seed = int(golden("nada_steps.npz")["seed"])
    clips = {}
    for i, name in enumerate(("ViT-B/32", "ViT-B/16")):
        found = conversion.from_openai(golden_weights(f"clip {name}", seed + 1 + i))
        name = name.replace("-", "").replace("/", "")
        clips[name] = clip.from_params(found.params, found.config, name=name)
    return clips


@pytest.fixture(scope="session", params=["ViTB32", "ViTB16"])
def golden_clip(request, golden_clips):
    """Each of `golden_clips`."""
    return golden_clips[request.param]


@pytest.fixture(scope="session")
def random_generator():
    """random_generator(architecture) -> a generator with random weights."""

    def make(architecture):
        random, arrays = np.random.default_rng(0), {}
        for path, shape in architecture.shapes().items():
            scale = 100 if path.startswith("mapping") else 0.5
            centre = 1 if path.endswith("modulation.bias") else 0
            arrays[path] = random.normal(centre, scale, shape).astype(np.float32)
        return model_from_arrays(Generator, arrays, architecture)

    return make


@pytest.fixture(scope="session")
def tiny_generator(random_generator):
    """A generator of 16 pixels with random weights; every size is another number."""
    return random_generator(Architecture(channels=(6, 5, 4), z_dim=7, w_dim=8, mapping_layers=2))


@pytest.fixture(scope="session")
def tiny_file(tiny_generator, tmp_path_factory):
    """Its file: for runs that ask how, not what; their steps compile in a third of the time."""
    path = tmp_path_factory.mktemp("tiny") / "tiny.safetensors"
    save_model(tiny_generator, path)
    return path


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory):
    """The directory of a CLIP that is avatar-p16 but for its depth, one layer: for the same runs."""
    source = ASSETS / "clip-avatar-p16"
    directory = tmp_path_factory.mktemp("clip")
    shutil.copytree(source, directory, dirs_exist_ok=True)
    config = json.loads((source / "config.json").read_text())
    for part in ("text_config", "vision_config"):
        config[part]["num_hidden_layers"] = 1
    (directory / "config.json").write_text(json.dumps(config))
    arrays, metadata = files.read_safetensors(source / "model.safetensors")
    deep = re.compile(r"\.layers\.[1-9]")
    kept = {path: x for path, x in arrays.items() if not deep.search(path)}
    files.write_safetensors(directory / "model.safetensors", kept, metadata)
    return directory


@pytest.fixture(scope="session")
def tiny_diffusion():
    """A diffusion model with random weights: 16 pixels, latents 8 x 8 x 4, the vocabulary of avatar-p16."""
    source = ASSETS / "clip-avatar-p16"
    text = json.loads((source / "config.json").read_text())["text_config"]
    config = diffusion.canonical({
        "unet": {
            "sample_size": 8, "block_out_channels": [32], "layers_per_block": 1, "attention_head_dim": 2,
            "down_block_types": ["CrossAttnDownBlock2D"], "up_block_types": ["CrossAttnUpBlock2D"],
            "cross_attention_dim": 128,
        },
        "vae": {
            "block_out_channels": [8, 8], "norm_num_groups": 4, "scaling_factor": 0.5,
            "down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2,
        },
        "text_encoder": text | {"num_hidden_layers": 1},
        "scheduler": {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"},
    })  # fmt: skip
    # Biases and scales, which begin as zeros and ones, have a part in what is computed, too.
    random, params = np.random.default_rng(0), diffusion.init(config, jax.random.key(0))
    params = jax.tree.map(
        lambda x: x + np.float32(0.1) * random.standard_normal(x.shape, "f"), params
    )
    tokenizer = load_tokenizer(source, text["vocab_size"])
    return Diffusion(params, config, tokenizer, tokenizer.end, "tiny")


@pytest.fixture(scope="session")
def tiny_diffusion_directory(tiny_diffusion, tmp_path_factory):
    """`tiny_diffusion` in diffusers' layout."""
    directory = tmp_path_factory.mktemp("diffusion")
    diffusers.write(tiny_diffusion, directory, ASSETS / "clip-avatar-p16", half=False)
    return directory


@pytest.fixture(scope="session")
def avatar_clip():
    """The embedded avatar-p8."""
    return load_clip("avatar-p8")


@pytest.fixture(scope="session")
def narrow_networks(tmp_path_factory):
    """Files of a VGG-16 with LPIPS and of an IR-SE50, a few channels wide, with random weights."""
    random, paths = np.random.default_rng(0), {}
    widths = tuple(w for w, n in zip((4, 5, 6, 7, 8), BLOCKS[16], strict=True) for _ in range(n))
    faces = Irse50Architecture(stem=6, widths=(6, 8, 8, 12, 16), reduction=2, side=2, features=5)
    for kind, architecture in ((Vgg, VggArchitecture(widths, linear=True)), (Irse50, faces)):
        arrays = {}
        for path, shape in architecture.shapes().items():
            x = random.standard_normal(shape, np.float32) * (2 / np.prod(shape[:-1])) ** 0.5
            positive = path.startswith("lin") or path.endswith(("var", "scale"))
            arrays[path] = np.abs(x) + 0.5 if positive else x
        paths[kind.KIND] = tmp_path_factory.mktemp("networks") / f"{kind.KIND}.safetensors"
        save_model(model_from_arrays(kind, arrays, architecture), paths[kind.KIND])
    return paths
