"""Numbers for an adapted generator: how well it meets the text, and how much of its source it kept.

    python main.py --config=configs/evaluate.py --config.generator.weights=runs/nada_sketch/generator.safetensors
    python main.py --config=configs/evaluate.py --config.generator.weights=sketch.pt --config.source.weights=ffhq1024 \
        --config.text.source=photo --config.text.target=sketch --config.judge=openai/clip-vit-large-patch14

Expected: evaluation.md, a table of metrics with intervals. As it stands, avatar64 is measured against itself, which
shows the figures of no change.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Returns the defaults; there are no variants."""
    if variant:
        raise ValueError(f"config variant is {variant!r}; configs/evaluate.py has none")
    config = ConfigDict()
    config.task = "evaluate"  # the module of nada_jax.tasks that runs this config
    config.precision = "float32"  # generators and judge compute in float32 or bfloat16
    config.seed = 0  # of the latents, the clusters and the resamples
    config.samples = 256  # latents, drawn by both generators; kid and clip_fid need thousands
    config.batch_size = 64  # pairs of images at once; 2 to 8 for 1024 pixels
    config.truncation = 1.0  # 1 draws as trained; less is more typical and hides lost diversity

    config.generator = ConfigDict()
    config.generator.weights = "avatar64"  # the adapted one: a name, .safetensors or official file
    config.source = ConfigDict()
    config.source.weights = ""  # what it was adapted from; "" reads it in the adapted one's header
    config.text = ConfigDict()
    config.text.source = ""  # what the source draws; "" reads it in the header
    config.text.target = ""  # what the adapted one should draw; "" reads it in the header

    config.judge = "avatar-p8"  # CLIP that embeds the images; best one without part in training
    config.identity = ConfigDict()
    config.identity.weights = ""  # face identity network (irse50), for `identity`; "" leaves it out
    config.lpips = ConfigDict()
    config.lpips.weights = "lpips"  # network of `cluster_lpips`: a name or a file; "" leaves it out
    config.lpips.pairs = 25  # of a cluster at most; each takes 30 ms on a CPU at 64 pixels
    config.folder = ""  # images of the target domain for kid and clip_fid; "" takes the source's
    config.clusters = 8  # of the adapted images, for `cluster_clip` and `cluster_lpips`
    config.bootstrap = 1000  # resamples behind each interval
    config.confidence = 0.95  # share of the resamples within an interval
    return config
