import numpy as np
import pytest

from convert import irse50 as conversion
from convert import rules
from nada_jax.errors import UserError
from nada_jax.models.irse import Irse50, Irse50Architecture
from nada_jax.weights import loading as weights
from nada_jax.weights import native

NARROW = Irse50Architecture(stem=6, widths=(6, 8, 8), reduction=2, features=5)


@pytest.fixture
def official():
    """A made-up official state dict, a few channels wide."""
    random = np.random.default_rng(0)
    native = {
        path: random.standard_normal(shape, np.float32) for path, shape in NARROW.shapes().items()
    }
    arrays, _ = rules.apply(conversion.RULES, native, backward=True)
    norms = [key for key in arrays if key.endswith("running_var")]
    counters = {key.replace("running_var", "num_batches_tracked"): np.array(7) for key in norms}
    return arrays | counters


def test_the_table_gives_the_official_keys_and_shapes(golden):
    native = {path: np.zeros(shape, bool) for path, shape in Irse50Architecture().shapes().items()}
    official, _ = rules.apply(conversion.RULES, native, backward=True)
    expected = golden("shapes_styleclip.json")["irse50"]
    counters = {key: [] for key in expected if key.endswith("num_batches_tracked")}
    assert {key: list(x.shape) for key, x in official.items()} | counters == expected


def test_the_dense_layer_reads_the_same_pixels(official):
    network, _ = conversion.to_native(official, "file.pth")
    x = np.random.default_rng(1).standard_normal((8, 7, 7), np.float32)
    expected = official["output_layer.3.weight"] @ x.ravel()
    kernel = network.params["dense"]["kernel"]
    assert kernel.shape == (7, 7, 8, 5)
    np.testing.assert_allclose(np.einsum("chw,hwco->o", x, kernel), expected, rtol=1e-4, atol=1e-5)


def test_a_file_is_read_there_and_back_bit_for_bit(official, tmp_path):
    torch = pytest.importorskip("torch")
    tensors = {key: torch.tensor(x) for key, x in official.items()}
    wrapped = {f"module.{key}": x for key, x in tensors.items()}
    torch.save({"state_dict": wrapped, "epoch": 3}, tmp_path / "wrapped.PTH")
    torch.save(tensors, tmp_path / "model_ir_se50.pth")
    network, matches = conversion.read(tmp_path / "model_ir_se50.pth")
    assert network.architecture == NARROW
    assert {m.source for m in matches} == official.keys()
    assert {m.source for m in matches if not m.destination} == {
        key for key in official if key.endswith("num_batches_tracked")
    }
    back, _ = rules.apply(conversion.RULES, native.model_to_arrays(network), backward=True)
    for key, array in back.items():
        np.testing.assert_array_equal(array, official[key])
    loaded = weights.load_model(Irse50, tmp_path / "model_ir_se50.pth")
    np.testing.assert_array_equal(loaded.params["norm"]["var"], network.params["norm"]["var"])
    loaded = weights.load_model(Irse50, tmp_path / "wrapped.PTH")
    np.testing.assert_array_equal(loaded.params["norm"]["var"], network.params["norm"]["var"])


def test_missing_unknown_and_misshapen_keys_are_reported_together(official):
    del official["body.1.res_layer.5.fc2.weight"], official["output_layer.4.running_var"]
    official["margin.weight"] = np.zeros((5, 3), np.float32)
    official["body.2.res_layer.2.weight"] = np.zeros(9, np.float32)
    with pytest.raises(UserError) as error:
        conversion.to_native(official, "file.pth")
    message = str(error.value)
    assert message.startswith("file.pth does not fit, 4 problems: ")
    for said in (
        "body.block_1.excite.kernel (1, 1, 4, 8) is missing",
        "feature_norm.var (5,) is missing",
        "margin.weight (5, 3): no rule takes it",
        "body.block_2.prelu.slope has shape (9,), expected (8,)",
    ):
        assert said in message


def test_a_dense_layer_for_images_of_another_side_is_refused(official):
    official["output_layer.3.weight"] = np.zeros((5, 100), np.float32)
    with pytest.raises(UserError, match=r"output_layer\.3\.weight \(5, 100\): reshape.* failed"):
        conversion.to_native(official, "file.pth")


def test_a_file_of_something_else_is_refused(official, tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"state_dict": {}, "epoch": 3}, tmp_path / "wrapped.pth")
    with pytest.raises(UserError, match="no face identity network: .*, it has state_dict, epoch"):
        conversion.read(tmp_path / "wrapped.pth")
    with pytest.raises(UserError, match="not a face identity network: .* behind one convolution"):
        conversion.to_native({}, "file.pth")
