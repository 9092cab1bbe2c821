"""Makes the adapted generators that ship as presets: adapts, packs and measures each, and shows all on one page.

    python main.py --config=configs/presets.py                                # all
    python main.py --config=configs/presets.py --config.only=sketch,zombie    # some
    python main.py --config=configs/presets.py --config.install=True          # into the package and docs, too
    python main.py --config=configs/presets.py --config.presets.sketch.adapt.steps=300 --config.only=sketch

Expected: NAME.safetensors and NAME.png of each, presets.md and presets.jpg; one to two minutes a preset on two CPU cores.
The same command again makes only what is missing. A preset is a line of `PRESETS`.
"""

from ml_collections import ConfigDict

from configs import default, evaluate
from configs.compare import follow

DRAWING = {"clip.zoom": 1.35, "loss.angle": 0.75}  # clean outlines and paper
# Only skin turns: near to the text, with the images kept apart, at a higher rate.
CHARACTER = {"loss.angle": 1.0, "loss.global_": 0.3, "optimizer.lr": 3 * 0.002 * 0.8}
STYLE = {"loss.angle": 0.5}
GLASS = {  # as in configs/nada_stained_glass.py
    "loss.angle": 0.75, "loss.style": 1.5, "style.images": "glass", "style.scale": 3.0,
    "style.layers": ("relu1_1", "relu2_1", "relu3_1"),
}  # fmt: skip
PORTRAIT = "cartoon portrait"

# Name -> what it draws, for people; source text, target text; by flat field, what differs from `config.adapt`.
PRESETS = {
    "sketch": ("pencil sketch", PORTRAIT, "pencil sketch", DRAWING | {"steps": 200}),
    "joker": ("joker", "photo", "joker", {"loss.angle": 0.25}),
    "zombie": ("zombie", "person", "zombie", CHARACTER),
    "vampire": ("vampire", "person", "vampire", CHARACTER),
    "alien": ("green alien", "person", "green alien", CHARACTER),
    "robot": ("robot", PORTRAIT, "robot", {"loss.angle": 0.5, "clip.zoom": 1.35}),
    "golden_statue": ("golden statue", PORTRAIT, "golden statue", {"loss.angle": 0.25}),
    "marble_bust": ("marble bust", PORTRAIT, "marble bust", STYLE),
    "pop_art": ("pop art", PORTRAIT, "pop art", STYLE),
    "stained_glass": ("stained glass", PORTRAIT, "stained glass", GLASS),
    "black_and_white": ("black and white", PORTRAIT, "black and white photo", STYLE),
}
# What was tried with the settings of `STYLE`, and does not ship: text -> the reason.
DROPPED = {
    "circus clown": "red noses, but the judge finds 27 % nearer to a clown than to a person, and dark faces break",
    "watercolor painting": "colours pale as they should, but eyes and mouths fade away",
    "oil painting": "faces lose eyes and mouths before a blue background",
    "neon lights": "images turn black, and faces cannot be told apart",
    "pixel art": "no blocks appear at 64 pixels; noise in the faces instead",
}


def get_config(variant: str = "") -> ConfigDict:
    """Returns all presets; there are no variants."""
    if variant:
        raise ValueError(f"config variant is {variant!r}; configs/presets.py has none")
    config = ConfigDict()
    config.task = "presets"  # the module of nada_jax.tasks that runs this config
    config.only = ""  # presets to make, with commas between them; all if empty
    config.install = False  # copy them into nada_jax/assets/presets, and write docs/presets.md
    config.rank = 8  # of what is kept of the change of a weight, at most

    config.samples = ConfigDict()  # of the images
    config.samples.seed = 6
    config.samples.truncation = 0.7  # 1 draws as trained; less is more typical

    # What all presets share: a change here changes every one that does not set the field itself.
    config.adapt = default.get_config()
    config.adapt.steps = 160
    config.adapt.clip.models = ("avatar-p16",)  # the other one judges
    config.adapt.clip.weights = (1.0,)
    # Trained in low rank, a change is packed without loss; one of all weights is not of low rank.
    config.adapt.freeze.strategy = "low_rank"
    config.adapt.freeze.rank = 8
    config.adapt.optimizer.lr = 0.003  # low rank needs three times the rate of whole weights
    config.adapt.checkpoint_every = 1000  # at the end alone: a preset takes a minute
    config.adapt.sample_every = 1000
    config.adapt.log_every = 50
    config.evaluate = evaluate.get_config()
    config.evaluate.judge = "avatar-p8"  # took no part in training
    config.evaluate.lpips.weights = ""  # its metric is not on the page

    config.presets = ConfigDict(sort_keys=False)  # name -> title, rank, adapt and evaluate
    for name, (title, source, target, changes) in PRESETS.items():
        preset = ConfigDict({"title": title, "rank": config.get_oneway_ref("rank")})
        preset.adapt, preset.evaluate = follow(config.adapt), follow(config.evaluate)
        texts = {"text.source": source, "text.target": target}
        preset.adapt.update_from_flattened_dict(texts | changes)
        config.presets[name] = preset
    config.dropped = ConfigDict(DROPPED)  # for the page
    return config
