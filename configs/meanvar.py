"""One content and one style by Gram matrices, by means and variances, and by Wasserstein distance, at growing weights.

    python main.py --config=configs/meanvar.py                         # a few minutes on two CPU cores
    python main.py --config=configs/meanvar.py --config.content=photo.jpg --config.style=painting.jpg
    python main.py --config=configs/meanvar.py --config.kinds="('gram','mean_variance')" --config.size=256

Expected: meanvar.html, a row of images for each kind, and meanvar.md, their figures. What they say: docs/style.md.
"""

from ml_collections import ConfigDict

from configs import style_transfer


def get_config(variant: str = "") -> ConfigDict:
    """Returns the defaults; variant "fine" takes more steps at more pixels."""
    shared = style_transfer.get_config(variant)  # its fields are explained there
    unused = ("blend", "masks", "colors", "strength", "start")
    config = ConfigDict({name: x for name, x in shared.items() if name not in unused})
    config.task = "meanvar"  # the module of nada_jax.tasks that runs this config
    config.kinds = ("gram", "mean_variance", "wasserstein")  # how a style is described
    del config.loss.kind
    config.loss.content = 1000.0  # weights of the style are 0.1 to 20 times as large
    config.loss.style = (100.0, 1000.0, 5000.0, 10000.0, 20000.0)  # those of the report
    if not variant:
        config.batch_size = 5
        config.size = 160
        config.scales.smallest = 113
        config.scales.first_steps = 100
    return config
