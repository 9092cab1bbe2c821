"""Every config starts, and has the fields that its task reads."""

import dataclasses
import importlib
from pathlib import Path
from typing import Any

import pytest

from nada_jax import settings, trees
from nada_jax.errors import UserError
from nada_jax.weights import fetching, registry

CONFIGS = sorted(path.stem for path in (Path(__file__).parents[1] / "configs").glob("*.py"))
# Task -> fields that make it small, and a file that it then writes.
ADAPT = {"steps": 1, "batch_size": 1, "samples.count": 1}
EVALUATE = {"samples": 8, "batch_size": 8, "clusters": 2, "bootstrap": 10, "lpips.pairs": 1}
TRAIN_ENCODER = ADAPT | {"held_out": 1, "encoder.widths": (4, 6), "encoder.reduction": 2}
SMALL = {
    "adapt": (ADAPT, "samples/*.png"),
    "sample": ({"rows": 1, "columns": 1}, "samples/*.png"),
    "evaluate": (EVALUATE, "evaluation.json"),
    "train_encoder": (TRAIN_ENCODER, "encoder.safetensors"),
    "benchmark": ({"minutes": 0.0}, "benchmark.json"),
    "weights": ({}, "weights.json"),
    "invert": ({"invert.steps": 1, "lpips.weights": "", "invert.l2": 1.0}, "strips/*.png"),
    "align": ({"size": 32}, "aligned/*.png"),
    "stylize": (
        {"invert.steps": 1, "invert.method": "w+", "lpips.weights": "", "invert.l2": 1.0}
        | {"generators": ("avatar64",), "judge": ""},
        "stylized/*.png",
    ),
    "edit": (
        {"seeds": (0,), "edit.steps": 1, "lpips.weights": "", "generator.weights": "tiny"},
        "strips/*.png",
    ),
    "edit_sweep": (
        {"seeds": (0,), "sweep.steps": (1,), "lpips.weights": "", "generator.weights": "tiny"},
        "edit_sweep.html",
    ),
    "interpolate": (
        {
            "motion.seconds": 0.02,
            "video.format": "gif",
            "video.side": 0,
            "generator.weights": "tiny",
        },
        "video.gif",
    ),
    "find_direction": (
        {"find.samples": 16, "samples.count": 1, "generator.weights": "tiny"},
        "direction.safetensors",
    ),
    "feature_inversion": ({"size": 16, "layers": (1,)}, "layers/relu1_1.png"),
    "style_transfer": (
        {
            "size": 24,
            "scales.smallest": 24,
            "scales.first_steps": 1,
            "loss.style_layers": ("relu1_1",),
        }
        | {"loss.content_layers": ("relu1_1",)},
        "result.png",
    ),
    "meanvar": (
        {"size": 16, "scales.smallest": 16, "scales.first_steps": 1, "kinds": ("gram",)}
        | {
            "loss.style": (1.0,),
            "loss.style_layers": ("relu1_1",),
            "loss.content_layers": ("relu1_1",),
        },
        "meanvar.html",
    ),
    "guided_vs_prompt": (
        {"diffusion.weights": "tiny", "sampler.steps": 1, "count": 1, "ways": ("prompt",)}
        | {"guidance.layers": ("relu1_1",), "guidance.through": "estimate"},
        "guided_vs_prompt.html",
    ),
    "texture": (
        {"size": 16, "sets": "all", "loss.style_layers": ("relu1_1",)}
        | {"scales.smallest": 16, "scales.first_steps": 1},
        "result.png",
    ),
    "guided_diffusion": (
        {"diffusion.weights": "tiny", "sampler.steps": 1, "count": 1, "strip.columns": 0}
        | {"guidance.weight": 0.0},
        "images/*.png",
    ),
    "train_mapper": (
        {"steps": 1, "batch_size": 1, "samples.count": 1, "judge": ""},
        "mapper.safetensors",
    ),
    "compare": (
        {"only": "late"}
        | {f"adapt.{field}": value for field, value in ADAPT.items()}
        | {f"evaluate.{field}": value for field, value in EVALUATE.items()},
        "compare.html",
    ),
}


def load(name, variant=""):
    """A config, and the module of its task."""
    config = importlib.import_module(f"configs.{name}").get_config(variant)
    return config, importlib.import_module(f"nada_jax.tasks.{config.task}")


@pytest.mark.parametrize("name", CONFIGS)
def test_fields_are_those_that_the_task_reads(name):
    config, task = load(name)
    free = [field for field, hint in settings.hints(task.Settings).items() if hint is Any]
    fields = {field for field in settings.fields(task.Settings) if field not in free}
    flat = trees.flatten({field: x for field, x in config.to_dict().items() if field not in free})
    assert fields == set(flat)
    task.Settings.read(config)


# configs/scaling.py has to be the first that starts JAX: see tests/tasks/test_scaling.py. The sketch is run whole
# by tests/tasks/test_recipes.py; by tests of their own train_diffusion, which needs data of the user, presets, and demo,
# which goes on until it is ended.
ELSEWHERE = ("demo", "presets", "scaling", "train_diffusion")


@pytest.mark.parametrize(
    "name", [name for name in CONFIGS if name not in ELSEWHERE and name != "nada_sketch"]
)
def test_every_config_starts(name, tmp_path, tiny_file, tiny_clip, tiny_diffusion_directory):
    config, task = load(name)
    fields, result = SMALL[config.task]
    for prefix in ("", "adapt."):  # where it is a config of an adaptation, or holds one
        if f"{prefix}steps" in fields:
            models = {"generator.weights": str(tiny_file)}
            if config.task != "train_encoder":
                models |= {"clip.models": (str(tiny_clip),), "clip.weights": (1.0,)}
            fields = fields | {prefix + field: value for field, value in models.items()}
    if fields.get("generator.weights") == "tiny":
        models = {"generator.weights": str(tiny_file), "judge": str(tiny_clip)}
        models |= {"clip.models": (str(tiny_clip),), "clip.weights": (1.0,)}
        models |= {"clip.model": str(tiny_clip)}
        known = trees.flatten(config.to_dict())
        fields = fields | {field: value for field, value in models.items() if field in known}
    if fields.get("diffusion.weights") == "tiny":
        fields = fields | {"diffusion.weights": str(tiny_diffusion_directory)}
    config.update_from_flattened_dict(fields)
    assert task.run(config, tmp_path) == 0
    assert list(tmp_path.glob(result))


@pytest.mark.parametrize(
    "name", [name for name in CONFIGS if name == "default" or name.startswith("nada_")]
)
def test_the_ffhq_variant_needs_the_official_generator(name, tmp_path, monkeypatch):
    monkeypatch.setenv("NADA_JAX_CACHE", str(tmp_path))
    monkeypatch.setattr(fetching, "ATTEMPTS", 1)
    offline = dataclasses.replace(
        registry.GENERATORS["ffhq1024"], url="http://127.0.0.1:9/ffhq.pkl"
    )
    monkeypatch.setitem(registry.GENERATORS, "ffhq1024", offline)
    config, task = load(name, "ffhq")
    assert all(model.startswith("openai/clip-vit-base-patch") for model in config.clip.models)
    with pytest.raises(UserError, match=f"put it at {tmp_path}/ffhq.pkl"):
        task.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", CONFIGS)
def test_an_unknown_variant_is_refused(name):
    with pytest.raises(ValueError, match="variant is 'moon'"):
        importlib.import_module(f"configs.{name}").get_config("moon")
