"""Draws prompts by a diffusion model that a loss of the coming image guides: here the style of a reference.

    python main.py --config=configs/guided_diffusion.py                                   # portraits in the style of a mosaic
    python main.py --config=configs/guided_diffusion.py --config.prompt="an old man" --config.guidance.reference=painting.jpg
    python main.py --config=configs/guided_diffusion.py --config.prompt=prompts.txt --config.count=4
    python main.py --config=configs/guided_diffusion.py --config.guidance.weight=0        # the prompt alone
    python main.py --config=configs/guided_diffusion.py:free20                            # no style in the first 20 % of the steps
    python main.py --config=configs/guided_diffusion.py:sd                                # Stable Diffusion 1.5: for a GPU

Expected: images/NAME.png; grid.png, all images; paths/NAME.png, a reference beside the images that were predicted on the way;
loss.png; and guided_diffusion.html and guided_diffusion.md, all results of the workdir. What each setting does: docs/diffusion.md.
"""

from ml_collections import ConfigDict

VARIANTS = ("", "free20", "sd")


def get_config(variant: str = "") -> ConfigDict:
    """Returns the defaults, for the embedded model.

    Variant "free20" begins with steps that nothing guides; "sd" draws by Stable Diffusion 1.5 at 512 pixels.
    """
    if variant not in VARIANTS:
        raise ValueError(
            f"config variant is {variant!r}; expected nothing or one of: {', '.join(VARIANTS[1:])}"
        )
    config = ConfigDict()
    config.task = "guided_diffusion"  # the module of nada_jax.tasks that runs this config
    # What the images show; or a file .txt with a prompt in each line, of which each is drawn.
    config.prompt = "a person with red hair and glasses"
    config.negative = ""  # what they should not show
    config.seed = 0  # of the noise of the first image
    config.count = 4  # images of each prompt, of seeds that count up
    config.batch_size = 4  # images at once
    config.overwrite = False  # delete an earlier run in the workdir and start anew
    config.precision = "float32"  # or "bfloat16", of the UNet; images are decoded in float32

    config.diffusion = ConfigDict()
    # The embedded model; or a directory in diffusers' layout, or a hub name; see docs/weights.md.
    config.diffusion.weights = "avatar-diffusion"
    config.sampler = ConfigDict()
    config.sampler.method = "ddim"  # or "pndm", "euler"
    config.sampler.steps = 100  # as in the report
    config.sampler.scale = (
        7.5  # of classifier-free guidance: how much the prompt counts; 1 for none
    )
    config.sampler.eta = 0.0  # share of new noise in each step of ddim
    config.sampler.size = 0  # side of the images in pixels; 0 for the model's own

    config.guidance = ConfigDict()
    # An image, or the name of one that ships, such as "waves": its style is that of gram, mean_variance and wasserstein.
    config.guidance.reference = "mosaic"
    config.guidance.content = (
        ""  # an image that l2 and lpips hold to, and direction leads away from
    )
    config.guidance.text_source = ""  # for direction: what the content shows
    config.guidance.text_target = ""  # for direction and similarity: what is to be seen
    config.guidance.loss = ConfigDict()  # factors; 0 leaves a loss out
    config.guidance.loss.gram = 1.0  # Gram matrices of features of the VGG
    config.guidance.loss.mean_variance = 0.0  # their means and variances
    config.guidance.loss.wasserstein = 0.0  # the distance between Gaussians
    config.guidance.loss.direction = 0.0  # of a CLIP, from text_source to text_target
    config.guidance.loss.similarity = 0.0  # of a CLIP, to text_target
    config.guidance.loss.l2 = 0.0  # of pixels, to the content
    config.guidance.loss.lpips = 0.0  # of features, to the content
    config.guidance.vgg = "lpips"  # a VGG-16; or "vgg19" (fetched once), or a file
    config.guidance.layers = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")  # of styles
    config.guidance.clip = "avatar-p8"  # a name, a directory or a hub name
    config.guidance.size = 0  # side in pixels at which the VGG looks; 0 for that of the images
    config.guidance.weight = 0.6  # of the gradient; 0 draws the prompt alone
    config.guidance.boost = 1.5  # factor of the weight ...
    config.guidance.boost_from = 0.5  # ... from this share of the steps on
    config.guidance.free = 0.0  # share of the steps, at the start, that nothing guides
    config.guidance.until = 1.0  # share of the steps from which nothing guides
    config.guidance.through = "estimate"  # or "denoiser": the gradient goes through it as well
    config.guidance.scaling = (
        "noise"  # unit of the weight; or "gradient", "freedom": see docs/diffusion.md
    )
    config.guidance.repeats = 1  # how often steps are taken, with new noise in between ...
    config.guidance.repeat_from = 0.3  # ... from this share of the steps
    config.guidance.repeat_until = 0.7  # ... to this one
    config.guidance.backward = 0  # further steps on the predicted image itself
    config.guidance.backward_rate = 0.1  # their length
    config.guidance.remat = (
        False  # compute a whole network again for its gradient: a little less memory
    )

    config.strip = ConfigDict()
    config.strip.columns = 8  # predicted images in the strip of each result; 0 for no strips
    config.mesh = ConfigDict()  # devices that share a batch
    config.mesh.data = 0  # 0: as many as there are and as divide it
    config.mesh.fsdp = 1  # a second axis, over which the weights are split as well

    if variant == "free20":
        config.guidance.free = 0.2
    if variant == "sd":
        config.diffusion.weights = "stable-diffusion-v1-5/stable-diffusion-v1-5"
        config.prompt = "a photograph of a lighthouse on a cliff"
        config.count = 1
        config.batch_size = 1
        config.guidance.clip = "openai/clip-vit-base-patch32"
        config.guidance.layers = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
    return config
