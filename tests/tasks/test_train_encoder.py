"""Training of encoders, from the config to the files, and the embedded one."""

import json
import types

import jax
import numpy as np
import pytest

from configs import train_encoder as configs
from nada_jax import images
from nada_jax.errors import UserError
from nada_jax.latents import encoder_training as training
from nada_jax.models.stylegan2 import Generator, draw_latents
from nada_jax.tasks import train_encoder
from nada_jax.weights import loading

MSE, REAL_MSE = 0.03, 0.08  # of the embedded encoder; nada_jax/assets/README.md has its figures
reconstruct = jax.jit(training.reconstruct)


@pytest.fixture(scope="module")
def config(tiny_file, narrow_networks):
    """config(**fields) -> a training of few and small steps; fields by their dotted name."""

    def make(**fields):
        result = configs.get_config()
        small = {
            "steps": 80, "batch_size": 4, "log_every": 20, "checkpoint_every": 40, "sample_every": 80,
            "generator.weights": str(tiny_file), "encoder.stem": 4, "encoder.widths": (4, 6),
            "encoder.reduction": 2, "encoder.head_width": 5, "optimizer.warmup": 0, "optimizer.decay": 0,
            "optimizer.lr": 0.01, "ema": 5.0, "samples.count": 2, "held_out": 5,
            "lpips.weights": str(narrow_networks["vgg"]),
        }  # fmt: skip
        result.update_from_flattened_dict(small | fields)
        return result

    return make


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory):
    """The workdir of a finished training."""
    workdir = tmp_path_factory.mktemp("trained")
    assert train_encoder.run(config(), workdir) == 0
    return workdir


def rows(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "ms"} for line in lines]


def test_a_training_writes_an_encoder_and_what_it_measured(trained, tiny_generator):
    assert {path.name for path in trained.iterdir()} == {
        "config.json", "metrics.jsonl", "checkpoints", "samples", "encoder.safetensors", "loss.png",
    }  # fmt: skip
    encoder = loading.load_encoder(trained / "encoder.safetensors")
    assert (encoder.num_layers, encoder.architecture.image_size) == (6, 16)
    drawn = tiny_generator.synthesize(tiny_generator.latent_avg[None])
    again, figures = reconstruct(encoder, tiny_generator, None, drawn)
    assert again.shape == drawn.shape and set(figures) == {"mse"}
    found = rows(trained)
    assert [row["step"] for row in found] == list(range(1, 81))
    assert {"latent", "l2", "lpips", "delta", "norm"} <= found[0].keys()
    assert found[-1]["held_out_mse"] > 0 and found[-1]["held_out_lpips"] > 0


def test_the_loss_falls(trained):
    for name in ("loss", "latent", "l2"):
        values = [row[name] for row in rows(trained)]
        assert np.mean(values[-20:]) < 0.9 * np.mean(values[:20]), name


def test_a_resumed_training_is_the_one_that_was_not_interrupted(trained, config, tmp_path):
    assert train_encoder.run(config(steps=40, sample_every=40), tmp_path) == 0
    assert train_encoder.run(config(), tmp_path) == 0
    again = [
        {k: v for k, v in row.items() if not k.startswith("held_out")} for row in rows(tmp_path)
    ]
    whole = [
        {k: v for k, v in row.items() if not k.startswith("held_out")} for row in rows(trained)
    ]
    assert again == whole
    name = "encoder.safetensors"
    assert (tmp_path / name).read_bytes() == (trained / name).read_bytes()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"loss.latent": 0.0, "loss.l2": 0.0, "loss.lpips": 0.0}, "loss.latent, loss.l2 and loss.lpips are 0"),
        ({"loss.delta": -1.0}, "loss.delta is -1.0; expected a number from 0"),
        ({"lpips.share": 0.0}, "lpips.share is 0.0; expected a share above 0"),
        ({"lpips.weights": "nowhere"}, "lpips.weights='nowhere' is neither a file"),
        ({"generator.truncation": (1.0, 0.5)}, r"generator.truncation is \(1.0, 0.5\); expected two numbers"),
        ({"generator.mixing": 2.0}, "generator.mixing is 2.0; expected a share"),
        ({"generator.weights": "nowhere"}, "generator.weights='nowhere' is neither a file nor a known"),
        ({"encoder.widths": (4, 5, 6, 7, 8)}, "encoder.widths is .* of 16 pixels: not an encoder: it reads"),
        ({"encoder.widths": ()}, r"encoder.widths is \(\) .* expected 1 to 64 blocks"),
        ({"encoder.reduction": 9}, "encoder.reduction 9, .* not an IR-SE50 body"),
        ({"encoder.head_width": 0}, "encoder.head_width is 0; expected a whole number from 1"),
        ({"held_out": 0}, "held_out is 0; expected a whole number from 1"),
    ],
)  # fmt: skip
def test_wrong_fields_end_in_a_sentence_and_leave_nothing(fields, said, config, tmp_path):
    with pytest.raises(UserError, match=said):
        train_encoder.run(config(**fields), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_plot_has_what_was_measured(tmp_path, config, tiny_generator, monkeypatch):
    """Without loss.lpips there is no held_out_lpips, and the plot is drawn all the same."""
    monkeypatch.setattr(train_encoder.native, "save_model", lambda *_, **__: None)
    said = []
    rows = [{"step": i, "loss": 1.0, "l2": 1.0, "held_out_mse": 0.5} for i in (1, 2)]
    run = types.SimpleNamespace(
        rows=rows,
        step=2,
        say=said.append,
        path=lambda name: tmp_path / name,
        write=lambda name, write: tmp_path / name,
        draw=lambda name, draw: draw(tmp_path / name),
    )
    fields = {"loss.lpips": 0.0, "lpips.weights": ""}
    settings = train_encoder.Settings.read(config(**fields))
    train_encoder.write(run, settings, None)
    assert (tmp_path / "loss.png").is_file()
    assert said[-1] == "5 held-out images, drawn again: mse 0.5000 (images in [-1, 1])"


# -- the embedded encoder -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def avatar():
    """The embedded generator and its encoder."""
    return loading.load_generator("avatar64"), loading.load_encoder("encoder-avatar64")


def test_the_embedded_encoder_finds_images_of_the_generator_again(avatar):
    generator, encoder = avatar
    key = jax.random.key(2026)  # of no training or tuning
    for mixing in (0.0, 1.0):
        ws = generator.truncate(draw_latents(generator, key, 48, mixing), 0.7)
        drawn = jax.jit(Generator.synthesize)(generator, ws)
        assert reconstruct(encoder, generator, None, drawn)[1]["mse"].mean() < MSE


def test_the_embedded_encoder_finds_real_avatars(avatar, shared):
    folder = shared("weights/avatars/real")
    real = np.concatenate(list(images.stream(folder, 64, field="folder", batch=16)))
    assert reconstruct(avatar[1], avatar[0], None, real)[1]["mse"].mean() < REAL_MSE
