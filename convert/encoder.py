"""Encoders of the pSp framework: pSp, e4e, ReStyle."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from convert import irse50, rules
from convert.rules import CONV, DENSE, Match, Rule
from convert.unpickle import contents, reader
from convert.unpickle.contents import Found
from nada_jax.errors import UserError
from nada_jax.models.encoder import Encoder, EncoderArchitecture
from nada_jax.weights import native

# Official classes, and whether they add the first latent to all others.
TYPES = {
    "GradualStyleEncoder": False,
    "Encoder4Editing": True,
    "BackboneEncoder": False,
    "ProgressiveBackboneEncoder": True,
}
# Of pSp and e4e, not supported.
LAST_LAYER = (
    "BackboneEncoderUsingLastLayerIntoW",
    "BackboneEncoderUsingLastLayerIntoWPlus",
    "SingleStyleCodeEncoder",
)

RULES = [
    *irse50.body("encoder."),
    # At most 6 convolutions: a head reduces maps of 64 pixels or fewer to one. The official numbers
    # count the activations between them.
    *(
        rule
        for i in range(6)
        for rule in rules.layer(f"encoder.styles.{{n}}.convs.{2 * i}", f"head_{{n}}.conv_{i}", CONV)
    ),
    *rules.layer("encoder.styles.{n}.linear", "head_{n}.linear", DENSE, "weight"),
    *rules.layer("encoder.latlayer{j}", "lateral_{j-1}", CONV),
    Rule("latent_avg", "latent_avg"),
]


def to_native(
    official: rules.Arrays, what: str, encoder_type: str | None
) -> tuple[Encoder, list[Match]]:
    """Converts the state dict of an encoder.

    Args:
      official: "encoder.…" -> array in PyTorch layout, and "latent_avg" ([l, w] or [w]), or nothing
        where the encoder's latents do not start from the average.
      what: how messages call it.
      encoder_type: the official name of its class, which its arrays do not show; see `TYPES`.

    Returns:
      The encoder, and each key's way.

    Raises:
      UserError: an encoder of another kind, and what does not fit, all in one message.
    """
    known = ", ".join(TYPES)
    if "encoder.conv1.weight" in official or (encoder_type or "").startswith("ResNet"):
        raise UserError(
            f"{what} holds an encoder with a ResNet34 body ({encoder_type}), which is not supported; "
            f"expected one with an IR-SE50 body: {known}"
        )
    said = f"is {encoder_type!r}" if encoder_type else "is missing"
    # A dense layer beside the body, instead of heads.
    if "encoder.linear.weight" in official or encoder_type in LAST_LAYER:
        raise UserError(
            f"{what}: opts.encoder_type {said}; encoders that read one style code, or all by one dense layer, "
            f"off the last map of their body ({', '.join(LAST_LAYER)}) are not supported; expected one of "
            f"{known}"
        )
    if encoder_type not in TYPES:
        raise UserError(
            f"{what}: opts.encoder_type {said}; expected one of {known}, since tensors alone do not "
            "show whether the first latent is added to all others"
        )
    progressive = TYPES[encoder_type]

    def expected(shapes: rules.Shapes) -> dict[str, tuple[int, ...]]:
        needed = EncoderArchitecture.from_shapes(shapes, progressive).shapes()
        average = needed.pop("latent_avg")
        if given := shapes.get("latent_avg"):  # [l, w], or [w] for all latents
            needed["latent_avg"] = average[-len(given) :]
        return needed

    arrays, matches = rules.apply(RULES, official, what=what, expected=expected)
    biases = [x for key, x in arrays.items() if key.endswith(".linear.bias")]  # one per head
    # Encoders that do not start from an average start from 0.
    average = arrays.get("latent_avg", np.float32(0))
    arrays["latent_avg"] = np.broadcast_to(average, (len(biases), len(biases[0])))
    return native.model_from_arrays(Encoder, arrays, progressive=progressive), matches


def read(path: Path) -> tuple[Encoder, list[Match]]:
    """Reads an official file: {"state_dict", "opts", "latent_avg"}.

    Keys that start with "decoder." are left out: `convert.stylegan2` reads that generator.

    Args:
      path: the file.

    Returns:
      The encoder, and each key's way. Its `latent_avg` is 0 where `opts.start_from_latent_avg` says
      that the average is not added; ReStyle always adds it.

    Raises:
      UserError: the file is damaged, holds no such encoder, or does not say which.
    """
    found = part(path, "encoder")
    official, opts = dict(found.arrays), found.beside("opts")
    opts = opts if isinstance(opts, Mapping) else {}
    restyle = opts.get("input_nc") == 6  # it reads the image and its last attempt, 3 channels each
    average = found.beside("latent_avg")
    if hasattr(average, "shape") and (restyle or opts.get("start_from_latent_avg", True)):
        # [1, w] is [w], one for all latents.
        official["latent_avg"] = average[0] if np.shape(average)[:-1] == (1,) else average
    elif restyle or opts.get("start_from_latent_avg"):
        raise UserError(f"{path} has no latent_avg, from which its encoder starts (see its opts)")
    encoder_type = opts.get("encoder_type")
    return to_native(official, str(path), encoder_type and str(encoder_type))


def part(path: Path, network: str) -> Found:
    """Reads a file of the pSp framework, to which StyleCLIP's mappers belong too.

    Args:
      path: the file.
      network: the first part of its keys, "encoder" or "mapper".

    Returns:
      The state dict without the decoder.

    Raises:
      UserError: the file is damaged, or holds no such network.
    """
    content = reader.read(path)
    # What an optimiser or a loss keeps under such names is not a network.
    found = contents.find(content, rf"{network}\.\w+\..+", path, network)
    if found is None:
        state = content.get("state_dict")
        held = ", ".join(map(str, list(state if isinstance(state, Mapping) else content)[:8]))
        raise UserError(
            f"{path} holds no {network}: expected tensors {network}.… in state_dict, it has {held}"
        )
    arrays = {key: x for key, x in found.arrays.items() if not key.startswith("decoder.")}
    return found._replace(arrays=arrays)
