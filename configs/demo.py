"""A page on which all of this can be tried with a mouse: adapt, sample, stylise, edit.

    pip install -r requirements-demo.txt && python main.py --config=configs/demo.py
    python main.py --config=configs/demo.py:ffhq                                       # official weights, a GPU
    python main.py --config=configs/demo.py --config.demo.host=0.0.0.0 --config.demo.auth=me:secret

Expected: an address, http://127.0.0.1:7860, and the page there until Ctrl-C. What is safe to expose: docs/demo.md.
"""

from ml_collections import ConfigDict

from configs import edit, invert, style_transfer, stylize

EDIT = "text", "mode", "space", "steps", "lr", "l2", "identity", "view"  # of an optimised edit


def get_config(variant: str = "") -> ConfigDict:
    """Returns the defaults; variant "ffhq" has the official numbers for photographs of faces."""
    config = invert.get_config(variant)  # how images become latents; its fields are explained there
    config.task = "demo"  # the module of nada_jax.tasks that runs this config

    # Fields of these sections are explained in configs/edit.py and configs/style_transfer.py.
    edits = edit.get_config(variant)
    config.invert.method = stylize.get_config(variant).invert.method  # that is chosen at first
    config.clip = edits.clip
    config.edit = ConfigDict({name: edits.edit[name] for name in EDIT})
    config.vgg = style_transfer.get_config().vgg

    config.demo = ConfigDict()
    config.demo.port = 7860  # of the page; 0 takes any that is free
    config.demo.host = "127.0.0.1"  # this machine alone; "0.0.0.0": all that reach it, with auth
    config.demo.names = ()  # names by which a proxy asks for the page, such as ("demo.example.org",)
    config.demo.auth = ""  # "user:password", which browsers then ask for
    config.demo.open = False  # True: no password, though others than this machine may come
    config.demo.share = False  # True: a public link through gradio.live, with auth
    config.demo.variant = variant  # of the recipes that Adapt offers
    config.demo.presets = ()  # adapted generators to offer; (): all that ship and fit

    config.demo.upload_megabytes = 10.0  # of one image
    config.demo.pixels = 40_000_000  # of one image
    config.demo.jobs = 4  # of one visitor, waiting or running
    config.demo.waiting = 40  # of all visitors
    config.demo.minutes = 20.0  # that one job may take
    config.demo.hours = 24.0  # after which results are deleted
    config.demo.disk_megabytes = 2000.0  # of all results; beyond, the oldest are deleted
    return config
