"""Runs many recipes, measures the adapted generators, and shows all of them side by side on one page.

    python main.py --config=configs/compare.py                                    # the whole grid
    python main.py --config=configs/compare.py --config.only=Prompts,adaptive     # some groups or cells
    python main.py --config=configs/compare.py --config.adapt.steps=50            # every cell
    python main.py --config=configs/compare.py --config.cells.adaptive.adapt.freeze.k=3   # one cell
    python main.py --config=configs/compare.py:recipes                            # recipes of texts and plain NADA
    python main.py --config=configs/compare.py:distillation                       # CLIP, a diffusion model, and both

Expected: compare.html, one file with all images in it, and compare.md, the numbers alone; both are written
anew after every cell. The same command again runs only what is missing; about 25 minutes on two cores for all.
A grid of your own is a config that starts with `empty` and calls `add`.
"""

from ml_collections import ConfigDict

from configs import (
    evaluate,
    nada_golden_statue,
    nada_joker,
    nada_robot,
    nada_sketch,
    nada_zombie,
)

VARIANTS = ("", "recipes", "distillation")
# Those of texts alone: beside that of a style stands itself without the style (docs/findings.md).
RECIPES = (nada_sketch, nada_zombie, nada_joker, nada_golden_statue, nada_robot)
# The fields in which recipes differ, from each other and from what cells share.
FIELDS = (
    "steps", "text.source", "text.target", "clip.zoom", "loss.angle", "loss.global_",
    "freeze.strategy", "freeze.phase", "optimizer.lr",
)  # fmt: skip
PLAIN = {"clip.zoom": 1.0, "loss.angle": 0.0, "loss.global_": 0.0, "freeze.strategy": "none"}

# By the score of a diffusion model minus the noise that was added, or minus that of the source's image.
ALONE = {"loss.directional": 0.0, "loss.sds": 1.0}
DISTILLATION = {
    "clip": {},
    "sds": ALONE | {"sds.baseline": "noise"},
    "dds": ALONE,
    "clip_dds": {"loss.sds": 3.0},
}


def get_config(variant: str = "") -> ConfigDict:
    """Returns the grid of the embedded models.

    Variant "recipes" holds the recipes of texts against plain NADA, "distillation" a diffusion model against CLIP.
    """
    if variant not in VARIANTS:
        raise ValueError(
            f"config variant is {variant!r}; expected nothing or one of: {', '.join(VARIANTS[1:])}"
        )
    config = empty()
    if variant:
        {"recipes": add_recipes, "distillation": add_distillation}[variant](config)
        return config
    add(config, "Layers", "none")
    add(config, "Layers", "phase_all", {"freeze.strategy": "phase", "freeze.phase": "all"})
    add(config, "Layers", "late", {"freeze.strategy": "late", "freeze.k": 4})
    for strategy in ("adaptive", "adaptive_modulation"):
        add(config, "Layers", strategy, {"freeze.strategy": strategy, "freeze.k": 6})
    epochs = {"freeze.k": 6, "freeze.every": 50, "freeze.iterations": 3}
    add(
        config, "Layers", "adaptive_parameters", {"freeze.strategy": "adaptive_parameters"} | epochs
    )
    # Few parameters have to move further: at the rate of the others both change almost nothing.
    for strategy, lr in (("style_space", 0.01), ("low_rank", 0.003)):
        add(config, "Layers", strategy, {"freeze.strategy": strategy, "optimizer.lr": lr})

    add(config, "Loss weights", "none")
    for mode in ("fixed", "learned", "uncertainty"):
        add(config, "Loss weights", f"l2_{mode}", {"loss.l2": 0.5, "balancing.mode": mode})

    add(config, "Steering", "none")
    add(config, "Steering", "no_zoom", {"clip.zoom": 1.0})
    turned = {"clip.rotate": 15.0, "clip.shift": 0.1, "clip.background": "random"}
    add(config, "Steering", "views", turned)
    add(config, "Steering", "angle", {"loss.angle": 5.0})
    add(config, "Steering", "ema", {"ema": 20.0})
    # Judged from the text that the others start from, or their figures could not be compared.
    start = {"text.source": config.adapt.text.source}
    add(config, "Steering", "read_source", {"text.read_every": 50}, start)

    for target in ("joker", "joker face", "joker smile", "joker makeup", "joker cosplay"):
        texts = {"text.source": "photo", "text.target": target}
        # All are judged by the shortest, or their figures could not be compared.
        add(config, "Prompts", target.replace(" ", "_"), texts, {"text.target": "joker"})

    add(config, "Seeds", "none")  # how far two runs of one recipe lie apart
    add(config, "Seeds", "seed_1", {"seed": 1})
    add(config, "Seeds", "seed_2", {"seed": 2})

    steps = config.adapt.get_oneway_ref("steps")
    add(config, "Steps", "none")
    add(config, "Steps", "long", {"steps": steps * 3})
    return config


def add_recipes(config: ConfigDict) -> None:
    """Puts each recipe beside plain StyleGAN-NADA with its texts, steps and learning rate, by three seeds."""
    for module in RECIPES:
        name = module.__name__.rpartition("nada_")[2]
        recipe = module.get_config().to_dict()
        own = {}
        for field in FIELDS:
            part, _, leaf = field.rpartition(".")
            own[field] = recipe[part][leaf] if part else recipe[leaf]
        for seed in range(3):
            for kind, changes in (("plain", PLAIN), ("recipe", {})):
                add(config, name, f"{name}_{kind}_{seed}", own | changes | {"seed": seed})


def add_distillation(config: ConfigDict) -> None:
    """Puts CLIP's direction, score distillation by either baseline, and CLIP with it beside each other."""
    config.adapt.steps = 100  # a diffusion model needs fewer than CLIP, and more draw all alike
    for target in ("zombie", "joker", "person with red hair"):
        texts = {"text.source": "person", "text.target": target}
        for kind, changes in DISTILLATION.items():
            add(config, target, f"{target.replace(' ', '_')}_{kind}", texts | changes)


def empty() -> ConfigDict:
    """Returns what all cells share, and no cell."""
    config = ConfigDict()
    config.task = "compare"  # the module of nada_jax.tasks that runs this config
    config.only = ""  # cells or groups to run, with commas between them; all if empty

    # What all cells share: a change here changes every cell that does not set the field itself.
    config.adapt = nada_sketch.get_config()  # the fields of configs/default.py
    config.adapt.steps = 150
    config.adapt.loss.angle = 0.0  # or differences between cells would be smaller
    config.adapt.clip.models = ("avatar-p16",)
    config.adapt.clip.weights = (1.0,)
    config.adapt.checkpoint_every = 1000  # at the end alone: a cell takes a minute
    config.adapt.sample_every = 1000
    config.adapt.log_every = 50
    config.evaluate = evaluate.get_config()  # measures what the cell adapted, by the cell's texts
    config.evaluate.judge = "avatar-p8"  # took no part in training

    config.cells = ConfigDict(sort_keys=False)  # name -> adapt and evaluate
    config.groups = ConfigDict(sort_keys=False)  # heading -> names; a cell may stand in several
    return config


def add(
    config: ConfigDict,
    group: str,
    name: str,
    adapt: dict | None = None,
    evaluate: dict | None = None,
) -> None:
    """Puts a cell into a group, and makes it if there is none of this name.

    Args:
      config: the comparison.
      group: heading of the group; made if need be.
      name: of the cell, and of its directory.
      adapt: by flat field, what differs from `config.adapt`.
      evaluate: likewise from `config.evaluate`.
    """
    config.groups[group] = (*config.groups.get(group, ()), name)
    if name in config.cells:
        return
    cell = ConfigDict({"adapt": follow(config.adapt), "evaluate": follow(config.evaluate)})
    cell.adapt.update_from_flattened_dict(adapt or {})
    cell.evaluate.update_from_flattened_dict(evaluate or {})
    config.cells[name] = cell


def follow(shared: ConfigDict) -> ConfigDict:
    """A copy, each field of which follows the original until it is set in the copy."""
    copy = ConfigDict()
    for field, value in shared.items():
        nested = isinstance(value, ConfigDict)
        copy[field] = follow(value) if nested else shared.get_oneway_ref(field)
    return copy
