"""IR-SE50: the face identity network that StyleCLIP and pSp come with (`model_ir_se50.pth`)."""

from pathlib import Path

from convert import reader, rules
from convert.rules import CONV, Match, Rule, Transform
from nada_jax.errors import UserError
from nada_jax.models.irse import Irse50, Irse50Architecture
from nada_jax.weights import loading as weights

SIDE = 7  # of the last map, for pictures of 112 pixels
# PyTorch's [o, c * side * side] over channels first -> [side, side, c, o].
FLAT_DENSE = Transform(
    f"reshape(-1, c, {SIDE}, {SIDE}) transpose(2, 3, 1, 0)",
    lambda x: x.reshape(len(x), -1, SIDE, SIDE).transpose(2, 3, 1, 0),
    lambda x: x.transpose(3, 2, 0, 1).reshape(x.shape[3], -1),
)


def norm(official: str, native: str) -> list[Rule]:
    """Rules of one batch normalisation."""
    return [
        Rule(f"{official}.weight", f"{native}.scale"),
        Rule(f"{official}.bias", f"{native}.bias"),
        Rule(f"{official}.running_mean", f"{native}.mean"),
        Rule(f"{official}.running_var", f"{native}.var"),
        Rule(f"{official}.num_batches_tracked", None),
    ]


def body(prefix: str = "") -> list[Rule]:
    """Rules of the body, whose official keys start with `prefix`."""
    block, native = f"{prefix}body.{{i}}", "body.block_{i}"
    return [
        Rule(f"{prefix}input_layer.0.weight", "body.stem.kernel", CONV),
        *norm(f"{prefix}input_layer.1", "body.stem_norm"),
        Rule(f"{prefix}input_layer.2.weight", "body.stem_prelu.slope"),
        Rule(f"{block}.shortcut_layer.0.weight", f"{native}.shortcut.kernel", CONV),
        *norm(f"{block}.shortcut_layer.1", f"{native}.shortcut_norm"),
        *norm(f"{block}.res_layer.0", f"{native}.norm_0"),
        Rule(f"{block}.res_layer.1.weight", f"{native}.conv_0.kernel", CONV),
        Rule(f"{block}.res_layer.2.weight", f"{native}.prelu.slope"),
        Rule(f"{block}.res_layer.3.weight", f"{native}.conv_1.kernel", CONV),
        *norm(f"{block}.res_layer.4", f"{native}.norm_1"),
        Rule(f"{block}.res_layer.5.fc1.weight", f"{native}.squeeze.kernel", CONV),
        Rule(f"{block}.res_layer.5.fc2.weight", f"{native}.excite.kernel", CONV),
    ]


RULES = [
    *body(),
    *norm("output_layer.0", "norm"),
    Rule("output_layer.3.weight", "dense.kernel", FLAT_DENSE),
    Rule("output_layer.3.bias", "dense.bias"),
    *norm("output_layer.4", "feature_norm"),
]


def to_native(official: rules.Arrays, what: str) -> tuple[Irse50, list[Match]]:
    """Converts a state dict of the identity network.

    Args:
      official: key -> array in PyTorch layout.
      what: how messages call it.

    Returns:
      The network, and each key's way.

    Raises:
      UserError: what does not fit, all in one message.
    """
    native, matches = rules.apply(
        RULES, official, what=what, expected=lambda x: Irse50Architecture.from_shapes(x).shapes()
    )
    return weights.model_from_arrays(Irse50, native), matches


def read(path: Path) -> tuple[Irse50, list[Match]]:
    """Reads an official file: a plain state dict.

    Args:
      path: the file.

    Returns:
      The network, and each key's way.

    Raises:
      UserError: the file is damaged, holds no state dict, or one that does not fit.
    """
    official = reader.read(path)
    if not all(hasattr(array, "shape") for array in official.values()):
        held = ", ".join(list(official)[:8])
        raise UserError(
            f"{path} holds no face identity network: expected its tensors, it has {held}"
        )
    return to_native(official, str(path))
