"""open_clip's configuration: what it says about a network beyond the shapes of its arrays.

The fields are those of open_clip's CLIPVisionCfg, CLIPTextCfg and PreprocessCfg, up to version 3.3. A field
is read, or has to have a value that is built, or has no part in features; any other is refused, since it may
change the network.
"""

import contextlib
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nada_jax import files
from nada_jax.errors import UserError, some
from nada_jax.models import preprocessing

NAME = "open_clip_config.json"  # as open_clip publishes it, beside the weights

ADVICE = (
    f"put its configuration beside it, as {NAME} or under its own name with .json (open_clip has one of every "
    "network in model_configs), or give it to `python -m convert clip` as --config"
)
EPS = 1e-5  # of PyTorch's norms

# Fields that are read, with open_clip's defaults.
READ = {
    "model_cfg": {"embed_dim": None, "vision_cfg": None, "text_cfg": None},
    "vision_cfg": {
        "image_size": 224, "patch_size": 16, "width": 768, "layers": 12, "mlp_ratio": 4.0,
        "head_width": 64, "norm_kwargs": None,
    },
    "text_cfg": {
        "context_length": 77, "vocab_size": 49408, "width": 512, "layers": 12, "mlp_ratio": 4.0,
        "heads": 8, "norm_kwargs": None,
    },
}  # fmt: skip
# Those that the shapes of the arrays show as well, with their names in config.json.
SIZES = {
    "image_size": "image_size", "patch_size": "patch_size", "context_length": "max_position_embeddings",
    "vocab_size": "vocab_size", "width": "hidden_size", "layers": "num_hidden_layers",
    "embed_dim": "projection_dim",
}  # fmt: skip

# Fields of both towers that change the network, and the values of them that are built.
_TOWER = {
    "ls_init_value": (None,), "act_kwargs": (None, {}), "block_type": (None, "default"),
    "output_tokens": (False,), "qk_norm": (False,), "scaled_cosine_attn": (False,),
    "scale_heads": (False,), "scale_attn_inner": (False,), "scale_attn": (False,),
    "scale_fc": (False,),
}  # fmt: skip
BUILT = {
    "model_cfg": {
        "quick_gelu": (False, True, None), "custom_text": (False, None), "multimodal_cfg": (None,),
        "nonscalar_logit_scale": (False,),
    },
    "vision_cfg": _TOWER | {
        "timm_model_name": (None, ""), "pool_type": ("tok",), "attentional_pool": (False,),
        "global_average_pool": (False,), "no_ln_pre": (False,), "input_patchnorm": (False,),
        # Both kinds of positions are arrays in the file.
        "pos_embed_type": ("learnable", "sin_cos_2d"),
    },
    "text_cfg": _TOWER | {
        "hf_model_name": (None, ""), "hf_tokenizer_name": (None, ""), "tokenizer_mode": (None,),
        "tokenizer_kwargs": (None, {}), "pool_type": ("argmax",), "embed_cls": (False,),
        "no_causal_mask": (False,), "use_pad_mask": (False,), "proj_type": ("linear",),
        "proj_bias": (False,),
    },
    # "random" is for training; open_clip embeds by bicubic interpolation then, too.
    "preprocess_cfg": {
        "mode": ("RGB", None), "interpolation": ("bicubic", "random", None),
        "resize_mode": ("shortest", "squash", None),
    },
}  # fmt: skip

# Fields without a part in features: of the loss, of training and of towers that are refused above; padding, which
# comes after the end; and whether a token is normalised before or after it is taken out.
UNUSED = {
    "model_cfg": {"init_logit_scale", "init_logit_bias", "output_dict", "cast_dtype"},
    "vision_cfg": {
        "patch_dropout", "final_ln_after_pool", "attn_pooler_queries", "attn_pooler_heads",
        "timm_model_pretrained", "timm_pool", "timm_proj", "timm_proj_bias", "timm_drop",
        "timm_drop_path",
    },
    "text_cfg": {
        "pad_id", "eos_id", "final_ln_after_pool", "hf_model_pretrained", "hf_proj_type",
        "hf_pooler_type",
    },
}  # fmt: skip


def beside(source: Path) -> Path | None:
    """The configuration of a file: NAME.json beside it, or open_clip_config.json."""
    own, published = source.with_suffix(".json"), source.with_name(NAME)
    # Any program may have written a file of that name.
    with contextlib.suppress(UserError):
        if own.is_file() and {"model_cfg", "vision_cfg"} & files.read_json(own).keys():
            return own
    return published if published.is_file() else None


def describe(
    path: Path,
    config: Mapping[str, Any],
    preprocessor: Mapping[str, Any],
    activation: str | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Adds what a configuration says to what the shapes of the arrays show.

    Args:
      path: an open_clip_config.json, or a file of open_clip's model_configs, which is its part model_cfg
        alone.
      config: a config.json from shapes; see `clip_config.from_arrays`.
      preprocessor: a preprocessor_config.json as OpenAI has it.
      activation: instead of the configuration's.

    Returns:
      Both, with heads, activations, epsilons and preprocessing as open_clip would have them.

    Raises:
      UserError: the file is damaged, belongs to other arrays, or says what is not built.
    """
    content = files.read_json(path)
    model = content.get("model_cfg", content)
    parts = {"model_cfg": model, "preprocess_cfg": content.get("preprocess_cfg", {})}
    if isinstance(model, dict):
        parts |= {name: model.get(name) for name in ("vision_cfg", "text_cfg")}
    for name, part in parts.items():
        if not isinstance(part, dict):
            raise UserError(f"{path} is no configuration of open_clip: {name} is {part!r}")
    if wrong := _not_built(parts):
        raise UserError(f"{path} describes what is not built: {some(wrong)}")
    config, wrong = dict(config), []
    activation = activation or ("quick_gelu" if model.get("quick_gelu") else "gelu")
    for native, name in (("vision_config", "vision_cfg"), ("text_config", "text_cfg")):
        said = READ[name] | parts[name] | {"embed_dim": model.get("embed_dim")}
        wrong += _differences(name, said, config[native])
        config[native] = config[native] | _hidden(name, said, config[native], wrong)
        config[native]["hidden_act"] = activation
    if wrong:
        raise UserError(f"{path} does not describe these weights: {some(wrong)}")
    how = parts["preprocess_cfg"]
    if how.get("mean") is None or how.get("std") is None:
        warnings.warn(
            f"{path} does not say how images are normalised (preprocess_cfg.mean and std); OpenAI's "
            "mean and standard deviation are taken",
            stacklevel=2,
        )
    try:
        return config, dict(preprocessor) | _preprocessor(
            how, config["vision_config"]["image_size"]
        )
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _not_built(parts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A phrase for each field whose value is not built."""
    wrong = []
    for part, built in BUILT.items():
        for field, value in parts[part].items():
            if field in built:
                # Also by type: 0 is False to Python, but a layer scale of 0 is one.
                if not any(value == x and type(value) is type(x) for x in built[field]):
                    wrong.append(
                        f"{part}.{field} is {value!r}, and only {built[field][0]!r} is built"
                    )
            # open_clip itself leaves other fields of preprocess_cfg alone.
            elif part != "preprocess_cfg" and field not in READ[part].keys() | UNUSED[part]:
                wrong.append(f"{part}.{field} is {value!r}, and there is no such field")
    return wrong


def _differences(name: str, said: Mapping[str, Any], shown: Mapping[str, Any]) -> list[str]:
    """A phrase for each size of a tower that the arrays contradict."""
    wrong = [
        f"{name if field != 'embed_dim' else 'model_cfg'}.{field} is {said[field]!r}, but the arrays "
        f"have {shown[native]}"
        for field, native in SIZES.items()
        # Sides may be given as height and width.
        if native in shown and said[field] not in (shown[native], [shown[native]] * 2)
    ]
    ratio, width = said["mlp_ratio"], shown["hidden_size"]
    numbers = isinstance(ratio, int | float) and math.isfinite(ratio)
    if not numbers or int(width * ratio) != shown["intermediate_size"]:
        wrong.append(
            f"{name}.mlp_ratio is {ratio!r}, but the arrays have {shown['intermediate_size']} / {width}"
        )
    return wrong


def _hidden(
    name: str, said: Mapping[str, Any], shown: Mapping[str, Any], wrong: list[str]
) -> dict[str, Any]:
    """What no shape shows of a tower; appends to `wrong` a phrase for each value that cannot be."""
    width, field = shown["hidden_size"], "head_width" if name == "vision_cfg" else "heads"
    value = said[field]
    heads = value if isinstance(value, int) and value > 0 else 0
    if field == "head_width" and heads:
        heads = width // value
    if not heads or width % heads:
        wrong.append(f"{name}.{field} is {value!r}, which does not divide a width of {width}")
    norm = said["norm_kwargs"] or {}
    eps = norm.get("eps", EPS) if isinstance(norm, dict) and norm.keys() <= {"eps"} else None
    if not isinstance(eps, float) or not 0 < eps < 1:
        wrong.append(f"{name}.norm_kwargs is {norm!r}, and only an eps between 0 and 1 is built")
    return {"num_attention_heads": heads, "layer_norm_eps": eps}


def _preprocessor(how: Mapping[str, Any], size: int) -> dict[str, Any]:
    """The fields of a preprocessor_config.json that preprocess_cfg decides."""
    found = {}
    for field, native, least in (
        ("mean", "image_mean", -math.inf),
        ("std", "image_std", preprocessing.LEAST_STD),
    ):
        if (value := how.get(field)) is not None:
            value = value if isinstance(value, list) else [value] * 3  # one for all colours
            found[native] = list(preprocessing.colours(f"preprocess_cfg.{field}", value, least))
    if how.get("resize_mode") == "squash":
        found |= {"size": {"height": size, "width": size}, "do_center_crop": False}
    return found
