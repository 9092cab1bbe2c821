"""A prompt drawn in a style in several ways: by guidance, by style transfer of what the prompt gives, by words for the style.

    python main.py --config=configs/guided_vs_prompt.py                                   # a few minutes on two CPU cores
    python main.py --config=configs/guided_vs_prompt.py --config.guidance.reference=painting.jpg --config.named="a painting of an old man" --config.prompt="an old man"
    python main.py --config=configs/guided_vs_prompt.py --config.seed=8                   # eight more images of each, beside the first
    python main.py --config=configs/guided_vs_prompt.py:sd                                # Stable Diffusion 1.5: for a GPU

Expected: guided_vs_prompt.html, a row of images for each way, a column for each seed, and guided_vs_prompt.md, their figures.
What they say: docs/style.md.
"""

from ml_collections import ConfigDict

from configs import guided_diffusion, style_transfer

VARIANTS = ("", "sd")


def get_config(variant: str = "") -> ConfigDict:
    """Returns the defaults; variant "sd" draws by Stable Diffusion 1.5 at 512 pixels."""
    if variant not in VARIANTS:
        raise ValueError(f"config variant is {variant!r}; expected nothing or: sd")
    shared = guided_diffusion.get_config(variant)  # its fields are explained there
    config = ConfigDict({name: x for name, x in shared.items() if name not in ("strip", "mesh")})
    config.task = "guided_vs_prompt"  # the module of nada_jax.tasks that runs this config
    # "prompt", which the others are held against, and out of these: "transfer" of its images, "guided", "words", "constant"
    # (the same weight at all steps), "late" (the first steps free).
    config.ways = ("prompt", "transfer", "guided", "words", "constant", "late")
    # The prompt of the way "words"; the figures of all ways are by `prompt`.
    config.named = "a mosaic of a person with red hair and glasses"
    config.guidance.reference = "mosaic"
    config.free = 0.2  # share of the steps, at the start, that nothing guides in the way "late"
    config.judge = "avatar-p8"  # the CLIP that measures; it has to take no part in the drawing
    config.count = 8  # images of each way, of seeds that count up
    config.batch_size = 4

    transfer = style_transfer.get_config()  # explained there, too
    config.transfer = ConfigDict()  # the way "transfer": of the images that the prompt gives
    config.transfer.loss = transfer.loss
    config.transfer.loss.style_layers = config.guidance.layers  # that both lower the same distance
    config.transfer.scales = transfer.scales
    config.transfer.scales.smallest = 64
    config.transfer.optimizer = transfer.optimizer
    if variant == "sd":
        config.named = "a photograph of a lighthouse on a cliff, in the style of a mosaic"
        config.judge = "openai/clip-vit-base-patch32"
        config.guidance.clip = ""
        config.count = 4
        config.batch_size = 1
        config.transfer.scales.smallest = 128
    return config
