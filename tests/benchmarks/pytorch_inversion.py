"""Inversion and editing in PyTorch, with the structure of the official codes: one image at a time.

The projector is that of StyleGAN2-ADA (Karras et al. 2020, arXiv 2006.06676), `projector.py`: a w for all layers and the
noise buffers, the VGG-16 with LPIPS of its features, Adam. The edit is that of StyleCLIP (Patashnik et al. 2021),
`run_optimization.py`: a w for each layer, CLIP and the distance from the start, Adam. Both rates follow one schedule.
"""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F

from nada_jax.models.vgg import LPIPS_LAYERS, MEAN, STD, convolutions
from tests.benchmarks.pytorch_twin import Guide, Weights, synthesize

PEAK = 0.1  # of the learning rate
NOISE = "noises."  # keys of the noise buffers start with it


def rate(share: float, up: float = 0.05, down: float = 0.25) -> float:
    """The learning rate over its peak when a share of the steps is done."""
    falling = min(1.0, (1 - share) / down)
    return (0.5 - 0.5 * math.cos(falling * math.pi)) * min(1.0, share / up)


def relus(vgg: Weights, images: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """The features "relu1_1", "relu1_2", ... [b, c, h', w'] of a VGG-16, of images [b, 3, h, w] in [-1, 1]."""
    x = (images - vgg["mean"]) / vgg["std"]
    for name in convolutions(16):
        if name.endswith("_1") and name != "conv1_1":
            x = F.max_pool2d(x, 2)
        x = F.relu(F.conv2d(x, vgg[f"{name}.weight"], vgg[f"{name}.bias"], padding=1))
        yield name.replace("conv", "relu"), x


def perceptual(vgg: Weights, images: torch.Tensor) -> torch.Tensor:
    """[b, 3, h, w] in [-1, 1] -> features [b, n], whose squared distance is LPIPS, as the published script module has
    them: of unit length in each pixel, times the root of the layer's weights, over that of the number of pixels."""
    found = []
    for name, x in relus(vgg, images):
        if name in LPIPS_LAYERS:
            unit = x / (x.square().sum(dim=1, keepdim=True) + 1e-10).sqrt()
            weight = vgg[f"lin_{len(found)}"].view(-1, 1, 1) / (x.shape[2] * x.shape[3])
            found.append((unit * weight.sqrt()).flatten(1))
    return torch.cat(found, dim=1)


def vgg_weights(params: dict) -> Weights:
    """Weights for `relus` and `perceptual` out of the parameters of a native VGG, by flat path."""
    weights = {"mean": torch.tensor(MEAN).view(3, 1, 1), "std": torch.tensor(STD).view(3, 1, 1)}
    for path, x in params.items():
        x = torch.tensor(x)
        kernel = path.endswith("kernel")
        weights[path.replace("kernel", "weight")] = (
            x.permute(3, 2, 0, 1).contiguous() if kernel else x
        )
    return weights


def regularity(noise: dict[str, torch.Tensor]) -> torch.Tensor:
    """How far neighbours within buffers [1, 1, h, w] go together, at every resolution from 8 pixels on."""
    total = torch.zeros(())
    for x in noise.values():
        while True:
            for axis in (2, 3):
                total = total + (x * torch.roll(x, 1, dims=axis)).mean() ** 2
            if x.shape[2] <= 8:
                break
            x = F.avg_pool2d(x, 2)
    return total


class Projector:
    """An image, projected into W.

    Args:
      generator: official weights.
      vgg: see `vgg_weights`.
      image: the target [1, 3, h, h] in [-1, 1].
      w: the mean latent [w_dim], where it starts.
      deviation: of w, which scales the noise on it.
      steps: of the whole schedule.
    """

    def __init__(
        self,
        generator: Weights,
        vgg: Weights,
        image: torch.Tensor,
        w: torch.Tensor,
        deviation: float,
        steps: int,
    ):
        self.generator, self.vgg, self.deviation, self.steps = generator, vgg, deviation, steps
        self.layers = 2 * int(math.log2(image.shape[-1])) - 2
        self.w = w.clone().view(1, 1, -1).requires_grad_()
        self.noise = {
            key: torch.randn_like(x).requires_grad_()
            for key, x in generator.items()
            if key.startswith(NOISE)
        }
        with torch.no_grad():
            self.target = perceptual(vgg, image)
        self.leaves = [self.w, *self.noise.values()]
        self.adam = torch.optim.Adam(self.leaves, lr=PEAK)
        self.step = 0

    def loss(self, share: float) -> torch.Tensor:
        """LPIPS and the regularisation of the noise, when a share of the steps is done."""
        deviation = 0.05 * self.deviation * max(0.0, 1 - share / 0.75) ** 2
        ws = (self.w + deviation * torch.randn_like(self.w)).expand(-1, self.layers, -1)
        images = synthesize(self.generator | self.noise, ws, "const")
        distance = (self.target - perceptual(self.vgg, images)).square().sum()
        return distance + 1e5 * regularity(self.noise)

    def advance(self) -> torch.Tensor:
        """One step; the loss before it."""
        share = self.step / self.steps
        self.adam.param_groups[0]["lr"] = PEAK * rate(share)
        loss = self.loss(share)
        self.adam.zero_grad(set_to_none=True)
        loss.backward()
        self.adam.step()
        with torch.no_grad():
            for x in self.noise.values():
                x -= x.mean()
                x *= x.square().mean().rsqrt()
        self.step += 1
        return loss.detach()


class Edit:
    """An image, edited in W+ by a text.

    Args:
      generator: official weights.
      guide: the CLIP; `bare` is the text.
      ws: of the image [1, l, w_dim], where it starts.
      l2: factor of the distance from the start.
      steps: of the whole schedule.
    """

    def __init__(self, generator: Weights, guide: Guide, ws: torch.Tensor, l2: float, steps: int):
        self.generator, self.guide, self.l2, self.steps = generator, guide, l2, steps
        self.start = ws
        self.ws = ws.clone().requires_grad_()
        self.leaves = [self.ws]
        self.adam = torch.optim.Adam(self.leaves, lr=PEAK)
        self.step = 0

    def loss(self, share: float) -> torch.Tensor:
        """1 - cosine between image and text, and the distance from the start; the same at all times."""
        # The official code embeds the text in every step; here its feature is computed once, in favour of PyTorch.
        cosine = (
            self.guide.embed(synthesize(self.generator, self.ws, "const")) @ self.guide.bare
        ).sum()
        return 1 - cosine + self.l2 * (self.ws - self.start).square().sum()

    def advance(self) -> torch.Tensor:
        """One step; the loss before it."""
        self.adam.param_groups[0]["lr"] = PEAK * rate(self.step / self.steps)
        loss = self.loss(self.step / self.steps)
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        self.step += 1
        return loss.detach()
