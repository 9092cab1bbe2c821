"""From prompts to images in one call, without a workdir."""

import operator
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from nada_jax import files, images
from nada_jax.diffusion import sampling
from nada_jax.diffusion.objectives import OBJECTIVES, Loss
from nada_jax.diffusion.settings import Guidance, Model, Sampling
from nada_jax.models.diffusion import Diffusion
from nada_jax.settings import SEEDS, need
from nada_jax.style.painting import Source, opened


def guided_diffusion(
    prompt: str | Sequence[str],
    reference: Source | None = None,
    *,
    seeds: Sequence[int] = (0,),
    negative: str = "",
    weights: str | os.PathLike | Diffusion = "avatar-diffusion",
    precision: str = "float32",
    method: str = "ddim",
    steps: int = 100,
    scale: float = 7.5,
    eta: float = 0.0,
    size: int = 0,
    loss: Mapping[str, float] | None = None,
    content: Source | None = None,
    report: Callable[[int, int], None] | None = None,
    **guidance: Any,
) -> np.ndarray:
    """Draws prompts by a diffusion model that a loss of the coming image guides, such as the style of a reference.

    Args:
      prompt: what all images show; or a prompt for each of them.
      reference: a style: a file, the name of an image that ships, an image of Pillow, or an array [h, w, 3] in [-1, 1] or
        of uint8.
      seeds: of the noise, one for each image; all are drawn at once.
      negative: what images should not show.
      weights: an embedded name, a directory in diffusers' layout, a hub name, or a model.
      precision: of a model that is loaded, "float32" or "bfloat16".
      method, steps, scale, eta, size: fields of `sampler` in `configs/guided_diffusion.py`.
      loss: objective -> factor; by default {"gram": 1.0} with a reference, and otherwise nothing guides.
      content: for the objectives l2, lpips and direction; as `reference`.
      report: is called every few steps with the number of those taken and of all.
      guidance: other fields of `guidance` in that config, such as weight=0.3 or through="denoiser".

    Returns:
      float32 [n, size, size, 3] in [-1, 1], an image for each seed.

    Raises:
      UserError: an image or a setting cannot be used.
    """
    try:
        numbers = [operator.index(seed) for seed in seeds]
    except TypeError:  # no sequence, or not of whole numbers
        numbers = []
    prompts = [prompt] * len(numbers) if isinstance(prompt, str) else list(prompt)
    good = len(numbers) > 0 and all(seed in SEEDS for seed in numbers)
    need(good, "seeds", seeds, "one or more whole numbers in 0..2^32 - 1")
    need(len(prompts) == len(numbers), "prompt", prompt, f"one text, or {len(numbers)}, as seeds")
    given = {"reference": reference, "content": content}
    found = {name: opened(x, name) for name, x in given.items() if x is not None}
    factors = ({"gram": 1.0} if "reference" in found else {}) if loss is None else dict(loss)
    need(set(factors) <= set(OBJECTIVES), "loss", factors, f"factors of {', '.join(OBJECTIVES)}")
    said = {
        name: x if isinstance(x, str) else "an image" for name, x in given.items() if name in found
    }
    wanted = DEFAULTS | said | guidance
    wanted |= {} if any(factors.values()) else {"weight": 0.0}
    wanted["loss"] = Loss(**dict.fromkeys(OBJECTIVES, 0.0) | factors)
    unknown = sorted(set(guidance) - set(DEFAULTS))
    need(not unknown, "guidance", ", ".join(unknown), f"fields out of {', '.join(DEFAULTS)}")
    section = Guidance(**wanted)
    sampler = Sampling(method=method, steps=steps, scale=scale, eta=eta, size=size)
    model = weights
    if not isinstance(model, Diffusion):
        model = Model(weights=files.spelled(weights, "weights")).load(precision)
    side = sampler.side(model)
    drawing = sampling.prepare(
        model,
        sampler,
        section,
        prompts,
        negatives=(negative,),
        **{name: images.square(image, side)[None] for name, image in found.items()},
    )
    state = drawing.start(numbers)
    for chunk in range(drawing.chunks):
        state, _ = drawing.advance(state, chunk)
        if report is not None:
            report(min((chunk + 1) * drawing.chunk, drawing.steps), drawing.steps)
    drawn = np.asarray(drawing.decode(state.carry.x))
    images.check_finite(drawn)
    return np.clip(drawn, -1, 1)


# Those of configs/guided_diffusion.py.
DEFAULTS = {
    "reference": "",
    "content": "",
    "text_source": "",
    "text_target": "",
    "vgg": "lpips",
    "clip": "avatar-p8",
    "layers": ("relu1_1", "relu2_1", "relu3_1", "relu4_1"),
    "size": 0,
    "weight": 0.6,
    "boost": 1.5,
    "boost_from": 0.5,
    "free": 0.0,
    "until": 1.0,
    "through": "estimate",
    "scaling": "noise",
    "repeats": 1,
    "repeat_from": 0.3,
    "repeat_until": 0.7,
    "backward": 0,
    "backward_rate": 0.1,
    "remat": False,
}
