"""Draws given images in adapted domains: each is aligned, inverted, and drawn by every adapted generator.

    python main.py --config=configs/stylize.py                     # by presets that ship
    python main.py --config=configs/stylize.py --config.generators="('preset:vampire','run:sketch')" --config.strength=0.7
    python main.py --config=configs/stylize.py:ffhq --config.images=photo.jpg --config.paste=True \\
        --config.generators="('runs/nada_sketch_ffhq/generator.safetensors','runs/nada_joker_ffhq/generator.safetensors')"

Expected: strips/NAME.png, each image, its reconstruction by the source, and every domain; stylize.html, all of them on
one page. The same command with other generators, strengths or paste draws the latents that it has found already.
"""

from ml_collections import ConfigDict

from configs import invert


def get_config(variant: str = "") -> ConfigDict:
    """Returns the defaults; variant "ffhq" has the official numbers for photographs of faces."""
    config = invert.get_config(variant)  # how images become latents; its fields are explained there
    config.task = "stylize"  # the module of nada_jax.tasks that runs this config
    config.latents = ""  # in place of images: latents, such as runs/invert/latents
    # What draws: presets, runs by name (run:NAME, or a recipe's name alone, such as sketch), files of adapted
    # generators, or style deltas (of the strategy style_space).
    config.generators = ("preset:sketch", "preset:joker", "preset:zombie")
    # 0 is the reconstruction, 1 the adapted generator; one number, or one for each.
    config.strength = (1.0,)
    config.paste = False  # also put what is drawn back into the whole photograph
    config.invert.method = "encoder"  # instant, and latents that adapted generators draw well
    if variant == "ffhq":
        config.generators = ("sketch_ffhq",)
        config.invert.method = "pti"  # keeps the face, also in other domains
    return config
