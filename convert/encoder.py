"""Encoders of the pSp framework: pSp, e4e, ReStyle."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from convert import irse50, rules
from convert.rules import CONV, DENSE, Match, Rule
from convert.unpickle import reader
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
    if encoder_type not in TYPES:
        said = f"is {encoder_type!r}" if encoder_type else "is missing"
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
    official, content = part(path, "encoder")
    opts = content.get("opts")
    opts = opts if isinstance(opts, Mapping) else {}
    restyle = opts.get("input_nc") == 6  # it reads the image and its last attempt, 3 channels each
    average = content.get("latent_avg")
    if hasattr(average, "shape") and (restyle or opts.get("start_from_latent_avg", True)):
        official["latent_avg"] = average
    elif restyle or opts.get("start_from_latent_avg"):
        raise UserError(f"{path} has no latent_avg, from which its encoder starts (see its opts)")
    encoder_type = opts.get("encoder_type")
    return to_native(official, str(path), encoder_type and str(encoder_type))


def part(path: Path, network: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads a file of the pSp framework, to which StyleCLIP's mappers belong too.

    Args:
      path: the file.
      network: the first part of its keys, "encoder" or "mapper".

    Returns:
      The state dict without the decoder, and the content of the file.

    Raises:
      UserError: the file is damaged, or holds no such network.
    """
    content = reader.read(path)
    state = content.get("state_dict")
    state = state if isinstance(state, Mapping) else {}
    arrays = all(isinstance(key, str) and hasattr(x, "shape") for key, x in state.items())
    if not arrays or not any(key.startswith(f"{network}.") for key in state):
        held = ", ".join(map(str, list(state or content)[:8]))
        raise UserError(
            f"{path} holds no {network}: expected tensors {network}.… in state_dict, it has {held}"
        )
    return {key: x for key, x in state.items() if not key.startswith("decoder.")}, content
