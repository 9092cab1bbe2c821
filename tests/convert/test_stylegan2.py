import re

import numpy as np
import pytest
import safetensors.numpy

from convert import stylegan2 as conversion
from convert.__main__ import main
from convert.kinds import convert
from nada_jax import load_generator
from nada_jax.errors import UserError
from nada_jax.models.stylegan2 import Architecture
from nada_jax.weights import native, registry

WIDTHS = (6, 5, 4)  # at 4, 8 and 16 pixels


def official_shapes(widths, z_dim, w_dim, mapping_layers):
    """Keys and shapes of rosinality's Generator, by the names in PARITY."""

    def modulated(name, o, i, k):
        return {
            f"{name}.conv.weight": (1, o, i, k, k),
            f"{name}.conv.modulation.weight": (i, w_dim),
            f"{name}.conv.modulation.bias": (i,),
        }

    def styled(name, o, i):
        extra = {f"{name}.noise.weight": (1,), f"{name}.activate.bias": (o,)}
        return modulated(name, o, i, 3) | extra

    shapes = {}
    for n in range(mapping_layers):
        shapes[f"style.{n + 1}.weight"] = (w_dim, w_dim if n else z_dim)
        shapes[f"style.{n + 1}.bias"] = (w_dim,)
    shapes["input.input"] = (1, widths[0], 4, 4)
    shapes |= styled("conv1", widths[0], widths[0])
    shapes |= modulated("to_rgb1", 3, widths[0], 1) | {"to_rgb1.bias": (1, 3, 1, 1)}
    for i, (before, after) in enumerate(zip(widths, widths[1:], strict=False)):
        shapes |= styled(f"convs.{2 * i}", after, before)
        shapes |= {f"convs.{2 * i}.conv.blur.kernel": (4, 4)}
        shapes |= styled(f"convs.{2 * i + 1}", after, after)
        shapes |= modulated(f"to_rgbs.{i}", 3, after, 1)
        shapes |= {f"to_rgbs.{i}.bias": (1, 3, 1, 1), f"to_rgbs.{i}.upsample.kernel": (4, 4)}
    for layer in range(2 * len(widths) - 1):
        side = 2 ** ((layer + 5) // 2)
        shapes[f"noises.noise_{layer}"] = (1, 1, side, side)
    return shapes


@pytest.fixture
def official():
    """A made-up official state dict."""
    random = np.random.default_rng(0)
    kernel = np.outer([1, 3, 3, 1], [1, 3, 3, 1]).astype(np.float32) / 16
    return {
        key: kernel if key.endswith("kernel") else random.standard_normal(shape, np.float32)
        for key, shape in official_shapes(WIDTHS, 7, 8, 2).items()
    }


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


@pytest.fixture
def tensors(torch):
    """numpy state dict -> tensors, each with its own memory."""
    return lambda arrays: {key: torch.tensor(array) for key, array in arrays.items()}


@pytest.fixture(params=["made", "avatar64"])
def official_file(request, torch, tensors, official, shared, tmp_path):
    """An official file: {"g_ema", "latent_avg"}."""
    if request.param == "avatar64":
        return shared("weights/avatar64.pt")
    average = torch.arange(8.0)
    torch.save({"g_ema": tensors(official), "latent_avg": average}, tmp_path / "made.pt")
    return tmp_path / "made.pt"


def assert_same(one, other):
    one, other = native.model_to_arrays(one), native.model_to_arrays(other)
    assert one.keys() == other.keys()
    for path, array in one.items():
        np.testing.assert_array_equal(array, other[path], err_msg=path)


def everything(directory):
    return sorted(path.name for path in directory.rglob("*"))


# -- there and back -----------------------------------------------------------------------------------


def test_a_file_converts_there_and_back_bit_for_bit(torch, official_file, tmp_path):
    native, back = tmp_path / "out" / "native.safetensors", tmp_path / "out" / "back.pt"
    assert main(["stylegan2", str(official_file), str(native)]) == 0
    assert main(["stylegan2", str(native), str(back)]) == 0
    before, after = (torch.load(file, weights_only=True) for file in (official_file, back))
    assert before.keys() == after.keys() == {"g_ema", "latent_avg"}
    assert torch.equal(before["latent_avg"], after["latent_avg"])
    assert before["g_ema"].keys() == after["g_ema"].keys()
    for key, tensor in before["g_ema"].items():
        assert (tensor.shape, tensor.dtype) == (
            after["g_ema"][key].shape,
            after["g_ema"][key].dtype,
        )
        assert torch.equal(tensor, after["g_ema"][key]), key
    assert everything(tmp_path / "out") == ["back.pt", "native.safetensors"]


@pytest.mark.parametrize(
    ("table", "widths"),
    [
        ("generator 256 cm1", (512, 512, 512, 512, 256, 128, 64)),
        ("generator 64 cm2", (512, 512, 512, 512, 512)),
    ],
)
def test_the_key_table_of_these_tests_is_the_official_one(golden, table, widths):
    expected = {key: tuple(shape) for key, shape in golden("shapes.json")[table].items()}
    assert official_shapes(widths, 512, 512, 8) == expected


def test_the_written_file_loads_strictly_into_the_original_class(torch, tiny_generator, tmp_path):
    twin = torch.nn.Module()
    for key, shape in official_shapes(WIDTHS, 7, 8, 2).items():
        *parents, leaf = key.split(".")
        module = twin
        for name in parents:
            if name not in module._modules:
                module.add_module(name, torch.nn.Module())
            module = module._modules[name]
        module.register_buffer(leaf, torch.zeros(shape))
    native.save_model(tiny_generator, tmp_path / "tiny.safetensors")
    convert("stylegan2", tmp_path / "tiny.safetensors", tmp_path / "tiny.pt")
    content = torch.load(tmp_path / "tiny.pt", weights_only=True)
    twin.load_state_dict(content["g_ema"], strict=True)
    weight = tiny_generator.params["synthesis"]["conv_1"]["weight"]
    assert twin.convs._modules["0"].conv.weight[0, 4, 5, 1, 2] == float(weight[1, 2, 5, 4])
    assert content["latent_avg"].tolist() == tiny_generator.latent_avg.tolist()


def test_an_official_file_is_loaded_as_it_is(official_file, tmp_path):
    convert("stylegan2", official_file, tmp_path / "native.safetensors")
    loaded = [load_generator(file) for file in (official_file, tmp_path / "native.safetensors")]
    one, other = (native.model_to_arrays(generator) for generator in loaded)
    assert one.keys() == other.keys()
    for path, array in one.items():
        np.testing.assert_array_equal(array, other[path])


def test_the_embedded_generator_is_what_the_converter_makes(torch, shared):
    embedded = safetensors.numpy.load_file(registry.ASSETS / "avatar64.safetensors")
    converted = native.model_to_arrays(conversion.read(shared("weights/avatar64.pt"))[0])
    assert embedded.keys() == converted.keys()
    for path, array in converted.items():
        np.testing.assert_array_equal(embedded[path], array)


# -- what else stands in official files -----------------------------------------------------------------


def test_a_file_of_nada_gets_the_average_latent_that_it_lacks(torch, tensors, official, tmp_path):
    optimiser = {"state": {0: {"step": 3, "exp_avg": torch.ones(2)}}, "param_groups": []}
    torch.save({"g_ema": tensors(official), "g_optim": optimiser}, tmp_path / "nada.pt")
    with pytest.warns(UserWarning, match="nada.pt has no latent_avg; it is computed from 4,096"):
        generator = load_generator(tmp_path / "nada.pt")
    z = np.random.default_rng(1).standard_normal((20_000, 7)).astype(np.float32)
    w = generator.map(z)
    # Both are sample means, of 4,096 and 20,000: six standard deviations of the first.
    assert (np.abs(generator.latent_avg - w.mean(axis=0)) < 6 * w.std(axis=0) / 64).all()
    assert generator.latent_avg.any()


def test_a_plain_state_dict_is_read(torch, tensors, official, tmp_path):
    torch.save(tensors(official), tmp_path / "plain.pt")
    with pytest.warns(UserWarning, match="no latent_avg"):
        generator, _ = conversion.read(tmp_path / "plain.pt")
    np.testing.assert_array_equal(
        generator.params["synthesis"]["conv_4"]["bias"], official["convs.3.activate.bias"]
    )


WRAPPED = {  # how a file keeps the state dict -> what it holds
    "module": lambda x: {"g_ema": prefixed(x, "module.")},
    "compiled": lambda x: prefixed(x, "_orig_mod.module."),
    "parts": lambda x: {key.replace("convs.", "convs.module."): v for key, v in x.items()},
    "params_ema": lambda x: {"params": x, "params_ema": x | {}, "iter": 3},
    "lightning": lambda x: {
        "state_dict": prefixed(x, "ema_generator.")
        | {"discriminator.weight": x["conv1.conv.weight"]},
        "hyper_parameters": {"lr": 0.1},
    },
    "two": lambda x: {"g": {"input.input": x["input.input"]}, "d": {}, "g_ema": x, "step": 7},
    "facts beside it": lambda x: x | {"epoch": 3, "args": None},
    "decoder": lambda x: {"state_dict": prefixed(x, "decoder.") | {"encoder.w": x["style.1.bias"]}},
}


def prefixed(state, prefix):
    return {prefix + key: x for key, x in state.items()}


@pytest.mark.parametrize("wrapper", WRAPPED)
@pytest.mark.parametrize("shape", [(8,), (1, 8), (6, 8)])
def test_a_generator_is_found_wherever_a_file_keeps_it(
    wrapper, shape, torch, tensors, official, tmp_path
):
    content = WRAPPED[wrapper](tensors(official))
    torch.save(content | {"latent_avg": torch.arange(8.0).expand(shape)}, tmp_path / "g.PT")
    generator, _ = conversion.read(tmp_path / "g.PT")
    expected, _ = conversion.to_native(official | {"latent_avg": np.arange(8.0)}, "g")
    assert_same(generator, expected)


@pytest.mark.parametrize(
    "content",
    [
        lambda x: {"g": x, "d": {}},
        lambda x: {"generator": x},
        lambda x: {"state_dict": prefixed(x, "generator.")},
    ],
)
def test_a_generator_without_its_average_is_taken_and_said(
    content, torch, tensors, official, tmp_path
):
    official["latent_avg"] = np.zeros(8, np.float32)
    torch.save(content(tensors(official)), tmp_path / "g.pt")
    with pytest.warns(UserWarning, match="g.pt has [a-z_.]* alone, the generator as it trained"):
        generator, _ = conversion.read(tmp_path / "g.pt")
    assert_same(generator, conversion.to_native(official, "g")[0])


def test_a_file_of_very_many_generators_is_refused_at_once(torch, tmp_path):
    torch.save({f"p{i}.input.input": torch.ones(1) for i in range(20_000)}, tmp_path / "g.pt")
    with pytest.raises(UserError, match="20,000 networks of the kind generator"):
        conversion.read(tmp_path / "g.pt")


def test_several_generators_are_refused_by_their_names(torch, tensors, official, tmp_path):
    torch.save({"old": tensors(official), "new": tensors(official)}, tmp_path / "g.pt")
    with pytest.raises(UserError, match="several networks of the kind generator: old, new; exp"):
        conversion.read(tmp_path / "g.pt")


def test_one_key_with_a_wrapper_and_without_is_refused(torch, tensors, official, tmp_path):
    state = tensors(official)
    torch.save(state | {"module.input.input": state["input.input"]}, tmp_path / "g.pt")
    with pytest.raises(UserError, match="g.pt has input.input twice"):
        conversion.read(tmp_path / "g.pt")


def test_missing_noise_is_drawn_the_same_every_time_and_said(official):
    kept = {key: x for key, x in official.items() if not key.startswith("noises.")}
    kept["latent_avg"] = np.zeros(8, np.float32)
    with pytest.warns(
        UserWarning, match="file.pt has no noise buffers; they are drawn from a fixed"
    ):
        one, other = (conversion.to_native(kept, "file.pt")[0] for _ in range(2))
    assert_same(one, other)
    whole, _ = conversion.to_native(official | {"latent_avg": kept["latent_avg"]}, "file.pt")
    assert {k: x.shape for k, x in one.noise.items()} == {
        k: x.shape for k, x in whole.noise.items()
    }
    noise = np.concatenate([x.ravel() for x in one.noise.values()])
    assert abs(noise.mean()) < 0.1 and abs(noise.std() - 1) < 0.1


# -- what does not fit ----------------------------------------------------------------------------------


def test_missing_unknown_and_misshapen_keys_are_reported_together(official):
    del official["style.2.bias"], official["noises.noise_3"]
    official["head.weight"] = np.zeros((2, 3), np.float32)
    official["to_rgbs.0.bias"] = np.zeros((1, 4, 1, 1), np.float32)
    official["convs.1.activate.bias"] = np.zeros(9, np.float32)
    with pytest.raises(UserError) as error:
        conversion.to_native(official, "file.pt")
    message = str(error.value)
    assert message.startswith("file.pt does not fit, 5 problems: ")
    for said in (
        "head.weight (2, 3): no rule takes it",
        r"to_rgbs.0.bias (1, 4, 1, 1): reshape",
        "mapping.dense_1.bias (8,) is missing",
        "noise.conv_3 (16, 16) is missing",
        "synthesis.conv_2.bias has shape (9,), expected (5,)",
    ):
        assert said in message


def test_a_conditional_generator_is_refused_by_name(official):
    official["style.1.weight"] = np.zeros((8, 16), np.float32)  # z and an embedded label
    with pytest.raises(
        UserError, match=r"file.pt holds a conditional generator: .* reads 16 numbers"
    ):
        conversion.to_native(official, "file.pt")


def test_a_generator_whose_z_is_wider_than_its_w_has_no_place_in_this_layout(random_generator):
    wide = random_generator(Architecture((3, 2), z_dim=6, w_dim=5, mapping_layers=1))
    with pytest.raises(UserError, match="x.pt cannot be written: .* are 6 and 5"):
        conversion.to_official(wide, "x.pt")


@pytest.mark.parametrize("key", ["conv1.conv.weight", "noises.noise_2", "to_rgbs.0.bias"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: np.where(x == x.max(), np.nan, x).astype(np.float32), "holds NaN or infinity"),
        (lambda x: np.full(x.shape, 1e300), "holds NaN or infinity"),
        (lambda x: x.astype(np.int64), "holds int64, expected floats"),
    ],
)
def test_values_that_are_no_weights_are_named_as_in_the_file(official, key, change, said):
    official[key] = change(official[key])
    with pytest.raises(UserError, match=f"^file.pt does not fit, 1 problem: {key} {said}$"):
        conversion.to_native(official, "file.pt")


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_floats_of_every_width_are_read(official, dtype):
    official = {key: x.astype(dtype) for key, x in official.items()}
    official["latent_avg"] = np.zeros(8, dtype)
    generator, _ = conversion.to_native(official, "file.pt")
    bias = generator.params["synthesis"]["conv_0"]["bias"]
    np.testing.assert_array_equal(bias, official["conv1.activate.bias"].astype(np.float32))


def test_another_blur_filter_is_refused(official):
    official["convs.2.conv.blur.kernel"] = np.outer([1, 2, 2, 1], [1, 2, 2, 1]) / np.float32(9)
    with pytest.raises(UserError, match=r"file.pt: convs.2.conv.blur.kernel is not .*1, 3, 3, 1"):
        conversion.to_native(official, "file.pt")


@pytest.mark.parametrize("absent", [r"convs\.3\.", r"conv1\.|convs\.", r"style\.1\.", "style"])
def test_a_network_that_has_no_size_is_refused(official, absent):
    kept = {key: array for key, array in official.items() if not re.match(absent, key)}
    with pytest.raises(
        UserError, match="file.pt does not fit, 1 problem: not a StyleGAN2 generator"
    ):
        conversion.to_native(kept, "file.pt")


def test_widths_that_contradict_each_other_are_refused(official):
    official["convs.1.conv.weight"] = np.zeros((1, 5, 7, 3, 3), np.float32)
    with pytest.raises(
        UserError, match=r"conv_2.weight has shape \(3, 3, 7, 5\), expected \(3, 3, 5"
    ):
        conversion.to_native(official, "file.pt")


def test_a_table_without_a_generator_is_refused(torch, tmp_path):
    torch.save({"epoch": 3, "names": ["a"]}, tmp_path / "other.pt")
    with pytest.raises(
        UserError, match="holds no generator: expected g_ema .* it has epoch, names"
    ):
        conversion.read(tmp_path / "other.pt")


# -- the command line -----------------------------------------------------------------------------------


def test_check_prints_the_way_of_every_array(official_file, tmp_path, capsys):
    destination = tmp_path / "out" / "native.safetensors"
    assert main(["stylegan2", "--check", str(official_file), str(destination)]) == 0
    *table, summary = capsys.readouterr().out.splitlines()
    sources = [line.split()[0] for line in table]
    assert {"conv1.conv.weight", "convs.0.conv.blur.kernel", "latent_avg"} <= set(sources)
    assert summary.startswith(f"{len(table)} arrays: {official_file} -> ")
    assert sum(line.endswith("(dropped)") for line in table) > 0
    kept = safetensors.numpy.load_file(destination)
    assert {line.split()[-1] for line in table} - {"(dropped)"} == set(kept)


CASES = {  # name: source, destination, what is said
    "unfit": ("unfit.pt", "x.safetensors", "mapping.dense_0.bias (8,) is missing"),
    "empty": ("empty.pt", "x.safetensors", "the file is empty"),
    "absent": ("absent.pt", "x.safetensors", "does not exist"),
    "no native file": ("absent.safetensors", "x.pt", "absent.safetensors"),
    "endings": ("empty.pt", "x.npz", "to .safetensors, or .safetensors to .pt"),
    "same kind": ("empty.pt", "x.pt", "to .safetensors, or .safetensors to .pt"),
    "below a file": ("good.pt", "empty.pt/x.safetensors", "cannot write"),
    "on a directory": ("good.pt", "directory.safetensors", "cannot write"),
}


@pytest.mark.parametrize("case", CASES)
def test_failure_is_one_line_and_exit_code_2_and_leaves_nothing_behind(
    case, torch, tensors, official, tmp_path, capsys
):
    average = torch.zeros(8)
    torch.save({"g_ema": tensors(official), "latent_avg": average}, tmp_path / "good.pt")
    unfit = {key: array for key, array in official.items() if key != "style.1.bias"}
    torch.save({"g_ema": tensors(unfit)}, tmp_path / "unfit.pt")
    (tmp_path / "empty.pt").touch()
    (tmp_path / "directory.safetensors").mkdir()
    source, destination, said = CASES[case]
    before = everything(tmp_path)
    assert main(["stylegan2", str(tmp_path / source), str(tmp_path / destination)]) == 2
    out, err = capsys.readouterr()
    assert not out and len(err.splitlines()) == 1
    assert err.startswith("error: ") and said in err
    assert everything(tmp_path) == before


def test_an_existing_destination_survives_a_failure(torch, tensors, official, tmp_path):
    (tmp_path / "x.safetensors").write_text("mine")
    del official["style.1.bias"]
    torch.save({"g_ema": tensors(official)}, tmp_path / "unfit.pt")
    assert main(["stylegan2", str(tmp_path / "unfit.pt"), str(tmp_path / "x.safetensors")]) == 2
    assert (tmp_path / "x.safetensors").read_text() == "mine"


def test_an_address_is_no_source(tmp_path, capsys):
    out = str(tmp_path / "x.safetensors")
    for given in (
        ["https://x.org/a.pt", out],
        ["a.pt", "https://x.org/a.safetensors"],
        ["a.pt", out, "--lpips=https://x.org/a.pth"],
    ):
        assert main(["vgg", *given]) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: https://x.org/a.") and "is an address" in said


def test_an_unknown_kind_is_refused_with_the_known_ones(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["stylegan9", "a.pt", "b.safetensors"])
    assert stop.value.code == 2
    assert "stylegan2" in capsys.readouterr().err
