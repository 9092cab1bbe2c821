"""IR-SE50: the face identity network that StyleCLIP and pSp come with (`model_ir_se50.pth`)."""

from pathlib import Path

from convert import rules
from convert.rules import CONV, Match, Rule, Transform
from convert.unpickle import contents
from nada_jax.models.irse import Irse50

SIDE = 7  # pixels of the last map, for images of 112 pixels
# The official layer reads a map flattened with channels first; ours reads it as it is, channels last:
# [o, c * side * side] -> [side, side, c, o].
FLAT_DENSE = Transform(
    f"reshape(-1, c, {SIDE}, {SIDE}) transpose(2, 3, 1, 0)",
    lambda x: x.reshape(len(x), -1, SIDE, SIDE).transpose(2, 3, 1, 0),
    lambda x: x.transpose(3, 2, 0, 1).reshape(x.shape[3], -1),
)


LANDMARKS = r"output_layer\.3\.weight"  # encoders, which share the body, have no such layer


def norm(official: str, native: str) -> list[Rule]:
    """Rules of one batch normalisation."""
    return [
        Rule(f"{official}.weight", f"{native}.scale"),
        Rule(f"{official}.bias", f"{native}.bias"),
        Rule(f"{official}.running_mean", f"{native}.mean"),
        Rule(f"{official}.running_var", f"{native}.var"),
        Rule(f"{official}.num_batches_tracked", None),  # a counter of the training
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
        # Squeeze and excitation as 1x1 convolutions, which the official code uses for dense layers.
        Rule(f"{block}.res_layer.5.fc1.weight", f"{native}.squeeze.kernel", CONV),
        Rule(f"{block}.res_layer.5.fc2.weight", f"{native}.excite.kernel", CONV),
    ]


RULES = [
    *body(),
    *norm("output_layer.0", "norm"),
    *rules.layer("output_layer.3", "dense", FLAT_DENSE),  # 1 is a dropout, 2 flattens
    *norm("output_layer.4", "feature_norm"),
]


def to_native(official: rules.Arrays, what: str) -> tuple[Irse50, list[Match]]:
    """Converts a state dict of the identity network; see `rules.build`."""
    return rules.build(Irse50, RULES, official, what)


def read(path: Path) -> tuple[Irse50, list[Match]]:
    """Reads an official file: a state dict.

    Args:
      path: the file.

    Returns:
      The network, and each key's way.

    Raises:
      UserError: the file is damaged, holds no state dict, or one that does not fit.
    """
    return to_native(contents.state_dict(path, LANDMARKS, "face identity network"), str(path))
