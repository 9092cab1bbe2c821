"""The keys of a CLIP: Hugging Face's (PyTorch) and OpenAI's, to paths of FlaxCLIPModel."""

from convert import rules
from convert.rules import CONV, DENSE, Rule

_TOWER = "{tower:text|vision}_model"
_LAYER = f"{_TOWER}.encoder.layers.{{i}}"
_VISION, _TEXT = "vision_model", "text_model"

HUGGINGFACE = [
    Rule("logit_scale", "logit_scale"),
    Rule("{side:visual|text}_projection.weight", "{side:visual|text}_projection.kernel", DENSE),
    Rule(f"{_VISION}.embeddings.class_embedding", f"{_VISION}.embeddings.class_embedding"),
    Rule(
        f"{_VISION}.embeddings.patch_embedding.weight",
        f"{_VISION}.embeddings.patch_embedding.kernel",
        CONV,
    ),
    Rule(
        f"{_TEXT}.embeddings.token_embedding.weight",
        f"{_TEXT}.embeddings.token_embedding.embedding",
    ),
    Rule(
        f"{_TOWER}.embeddings.position_embedding.weight",
        f"{_TOWER}.embeddings.position_embedding.embedding",
    ),
    Rule(f"{_TOWER}.embeddings.position_ids", None),  # a constant 0, 1, 2, ... of older files
    *rules.layer(*[f"{_LAYER}.self_attn.{{part:q|k|v|out}}_proj"] * 2, DENSE),
    *rules.layer(*[f"{_LAYER}.mlp.fc{{n}}"] * 2, DENSE),
    *rules.layer(*[f"{_LAYER}.layer_norm{{n}}"] * 2, weight="scale"),
    *rules.layer(*[f"{_TEXT}.final_layer_norm"] * 2, weight="scale"),
    *rules.layer(*[f"{_VISION}.pre_layrnorm"] * 2, weight="scale"),
    *rules.layer(*[f"{_VISION}.post_layernorm"] * 2, weight="scale"),
]


def _openai_blocks(official: str, tower: str) -> list[Rule]:
    block, layer = f"{official}.resblocks.{{i}}", f"{tower}.encoder.layers.{{i}}"
    part = "{part:q|k|v|out}"
    return [
        *rules.layer(f"{block}.attn.{part}_proj", f"{layer}.self_attn.{part}_proj", DENSE),
        *rules.layer(f"{block}.mlp.c_fc", f"{layer}.mlp.fc1", DENSE),
        *rules.layer(f"{block}.mlp.c_proj", f"{layer}.mlp.fc2", DENSE),
        *rules.layer(f"{block}.ln_{{n}}", f"{layer}.layer_norm{{n}}", weight="scale"),
    ]


# OpenAI multiplies by both projections from the right, as Flax does: they stay as they are. open_clip
# keeps OpenAI's names.
OPENAI = [
    Rule("logit_scale", "logit_scale"),
    Rule("visual.proj", "visual_projection.kernel"),
    Rule("text_projection", "text_projection.kernel"),
    Rule("visual.class_embedding", f"{_VISION}.embeddings.class_embedding"),
    Rule("visual.conv1.weight", f"{_VISION}.embeddings.patch_embedding.kernel", CONV),
    Rule("visual.positional_embedding", f"{_VISION}.embeddings.position_embedding.embedding"),
    Rule("positional_embedding", f"{_TEXT}.embeddings.position_embedding.embedding"),
    Rule("token_embedding.weight", f"{_TEXT}.embeddings.token_embedding.embedding"),
    *_openai_blocks("visual.transformer", _VISION),
    *_openai_blocks("transformer", _TEXT),
    *rules.layer("visual.ln_pre", f"{_VISION}.pre_layrnorm", weight="scale"),
    *rules.layer("visual.ln_post", f"{_VISION}.post_layernorm", weight="scale"),
    *rules.layer("ln_final", f"{_TEXT}.final_layer_norm", weight="scale"),
    Rule("{extra:input_resolution|context_length|vocab_size}", None),  # of JIT archives
    Rule("{mask:attn_mask|transformer.resblocks.[0-9]+.attn_mask}", None),  # a constant
    Rule("logit_bias", None),  # of a loss of open_clip, as logit_scale
]
