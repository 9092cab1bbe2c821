"""The training step of StyleGAN-NADA in PyTorch, with the structure of the official code.

Kernels modulated per sample and one grouped convolution over the batch (Karras et al. 2020, rosinality's layout
and keys), upsampling by a transposed convolution and an FIR filter over inserted zeros, Hugging Face's CLIP.
"""

import dataclasses
from typing import NamedTuple

import torch
import torch.nn.functional as F
from transformers import CLIPVisionModelWithProjection

from nada_jax.performance.workloads import ARCHITECTURES, Workload

Weights = dict[str, torch.Tensor]  # official key -> tensor


# -- The generator -----------------------------------------------------------------------------------


def equal_linear(x: torch.Tensor, weights: Weights, name: str, lr_mul: float = 1.0) -> torch.Tensor:
    """Equalised dense layer `name`: [b, i] -> [b, o]."""
    weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    return F.linear(x, weight * (lr_mul / weight.shape[1] ** 0.5), bias * lr_mul)


def map_latents(weights: Weights, z: torch.Tensor) -> torch.Tensor:
    """Mapping network: z [b, z_dim] -> w [b, w_dim]."""
    x = z * torch.rsqrt(z.square().mean(dim=1, keepdim=True) + 1e-8)
    depth = sum(key.startswith("style.") and key.endswith(".weight") for key in weights)
    for n in range(1, depth + 1):
        x = F.leaky_relu(equal_linear(x, weights, f"style.{n}", lr_mul=0.01), 0.2) * 2**0.5
    return x


def upfirdn(x: torch.Tensor, fir: torch.Tensor, up: int, padding: tuple[int, int]) -> torch.Tensor:
    """Zero insertion, padding, filter, as the official code does without its CUDA extension.

    There every channel becomes a picture of its own, [b * c, 1, h, w]; the same as a depthwise convolution
    makes the whole step about twice as fast on CPUs.

    Args:
      x: [b, c, h, w].
      fir: [4, 4].
      up: the distance of the pixels after zeros were put between them.
      padding: zeros (before, after) both axes.

    Returns:
      [b, c, up * h + sum(padding) - 3, up * w + sum(padding) - 3].
    """
    b, c, h, w = x.shape
    if up > 1:
        x = F.pad(x.reshape(b, c, h, 1, w, 1), (0, up - 1, 0, 0, 0, up - 1))
    x = F.pad(x.reshape(b, c, h * up, w * up), padding * 2)
    return F.conv2d(x, fir.flip(0, 1).expand(c, 1, -1, -1), groups=c)


def modulated_conv(
    x: torch.Tensor,
    weights: Weights,
    name: str,
    w: torch.Tensor,
    *,
    up: bool = False,
    demodulate: bool = True,
) -> torch.Tensor:
    """Modulated convolution `name`, Karras et al. 2020, eqs. 1 and 3: a kernel per sample, one group each.

    Args:
      x: [b, i, h, w].
      w: latents [b, w_dim].

    Returns:
      [b, o, h, w], or [b, o, 2h, 2w].
    """
    b, i, height, width = x.shape
    style = equal_linear(w, weights, f"{name}.modulation").view(b, 1, i, 1, 1)
    kernel = weights[f"{name}.weight"]  # [1, o, i, k, k]
    o, k = kernel.shape[1], kernel.shape[3]
    kernel = (i * k**2) ** -0.5 * kernel * style
    if demodulate:
        kernel = kernel * torch.rsqrt(kernel.square().sum((2, 3, 4), keepdim=True) + 1e-8)
    x = x.reshape(1, b * i, height, width)
    if up:
        kernel = kernel.transpose(1, 2).reshape(b * i, o, k, k)
        y = F.conv_transpose2d(x, kernel, stride=2, groups=b)
        y = y.view(b, o, *y.shape[2:])
        return upfirdn(y, weights[f"{name}.blur.kernel"], up=1, padding=(1, 1))
    y = F.conv2d(x, kernel.view(b * o, i, k, k), padding=k // 2, groups=b)
    return y.view(b, o, height, width)


def styled_conv(
    x: torch.Tensor,
    weights: Weights,
    name: str,
    w: torch.Tensor,
    noise: torch.Tensor | None,
    up: bool = False,
) -> torch.Tensor:
    """Convolution, noise [1, 1, h, w] (fresh where None), bias and leaky ReLU."""
    y = modulated_conv(x, weights, f"{name}.conv", w, up=up)
    if noise is None:
        noise = y.new_empty(len(y), 1, *y.shape[2:]).normal_()
    y = y + weights[f"{name}.noise.weight"] * noise
    return F.leaky_relu(y + weights[f"{name}.activate.bias"].view(1, -1, 1, 1), 0.2) * 2**0.5


def synthesize(weights: Weights, ws: torch.Tensor, noise: str = "fresh") -> torch.Tensor:
    """ws [b, l, w_dim] -> pictures [b, 3, size, size]; noise is "fresh" or "const", the buffers."""

    def buffer(layer):
        return weights[f"noises.noise_{layer}"] if noise == "const" else None

    def to_rgb(name, w):
        rgb = modulated_conv(x, weights, f"{name}.conv", w, demodulate=False)
        return rgb + weights[f"{name}.bias"]

    x = weights["input.input"].repeat(len(ws), 1, 1, 1)
    x = styled_conv(x, weights, "conv1", ws[:, 0], buffer(0))
    image = to_rgb("to_rgb1", ws[:, 1])
    for i in range(ws.shape[1] // 2 - 1):
        j = 2 * i + 1
        x = styled_conv(x, weights, f"convs.{j - 1}", ws[:, j], buffer(j), up=True)
        x = styled_conv(x, weights, f"convs.{j}", ws[:, j + 1], buffer(j + 1))
        fir = weights[f"to_rgbs.{i}.upsample.kernel"]
        image = to_rgb(f"to_rgbs.{i}", ws[:, j + 2]) + upfirdn(image, fir, up=2, padding=(2, 1))
    return image


# -- The step ----------------------------------------------------------------------------------------


class Guide(NamedTuple):
    """A CLIP, what it normalises pictures with [3, 1, 1], and the unit texts [d] of the losses."""

    network: CLIPVisionModelWithProjection
    mean: torch.Tensor
    std: torch.Tensor
    direction: torch.Tensor
    bare: torch.Tensor

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """[b, 3, h, h] in [-1, 1] -> unit features [b, d]."""
        pixels, side = (images.float() + 1) / 2, self.network.config.image_size
        if pixels.shape[-1] != side:
            pixels = F.interpolate(pixels, (side, side), mode="bicubic", align_corners=False)
        features = self.network((pixels - self.mean) / self.std).image_embeds
        return F.normalize(features.float(), dim=-1)


@dataclasses.dataclass
class Twin:
    """What the step in PyTorch reads and changes.

    Attributes:
      workload: the choices.
      source, adapted: the two generators.
      labels: official key -> label, of the parameters that train or may be chosen to.
      guides: the CLIPs.
      optimizer: over the parameters with a label.
    """

    workload: Workload
    source: Weights
    adapted: Weights
    labels: dict[str, str]
    guides: list[Guide]
    optimizer: torch.optim.Optimizer

    @property
    def device(self) -> torch.device:
        """Where all tensors are."""
        return self.source["input.input"].device

    def autocast(self) -> torch.autocast:
        """The context that brings the workload's precision."""
        low = self.workload.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=low)

    def draw_latents(self, batch: int) -> torch.Tensor:
        """Fresh ws [batch, l, w_dim]."""
        architecture = ARCHITECTURES[self.workload.size]
        z = torch.randn(batch, architecture.z_dim, device=self.device)
        return self.broadcast(z)

    def broadcast(self, z: torch.Tensor) -> torch.Tensor:
        """z [b, z_dim] -> ws [b, l, w_dim]."""
        with torch.no_grad():
            w = map_latents(self.source, z)
        return w[:, None].repeat(1, ARCHITECTURES[self.workload.size].num_layers, 1)

    def scores(self, ws: torch.Tensor, noise: str = "fresh") -> torch.Tensor:
        """How far each latent of ws [n, l, w_dim] moves, Gal et al. 2022, section 4.3: [l]."""
        for key in self.labels:
            self.adapted[key].requires_grad_(False)
        # The way from ws rather than the place: a difference of nearly equal numbers would be rounded.
        way = torch.zeros_like(ws).requires_grad_()
        optimizer = torch.optim.SGD([way], lr=0.01)
        for _ in range(self.workload.settings.freeze.iterations):
            with self.autocast():
                images = synthesize(self.adapted, ws + way, noise)
                loss = sum((1 - guide.embed(images) @ guide.bare).mean() for guide in self.guides)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return way.detach().abs().mean(dim=(0, 2))

    def train_only(self, chosen: set[str]) -> None:
        """Lets the parameters train whose label is among the chosen; the others rest."""
        for key, label in self.labels.items():
            self.adapted[key].requires_grad_(label in chosen)

    def loss(self, ws: torch.Tensor, noise: str = "fresh") -> torch.Tensor:
        """Directional CLIP loss, Gal et al. 2022, eq. 3, of ws [b, l, w_dim]; a sum over the CLIPs."""
        total = 0
        with self.autocast():
            with torch.no_grad():
                source = synthesize(self.source, ws, noise)
            adapted = synthesize(self.adapted, ws, noise)
            for guide in self.guides:
                edit = F.normalize(guide.embed(adapted) - guide.embed(source), dim=-1)
                total = total + (1 - edit @ guide.direction).mean()
        return total

    def train_step(self) -> torch.Tensor:
        """One step; the loss."""
        settings = self.workload.settings
        if settings.freeze.chooses:
            scores = self.scores(self.draw_latents(settings.freeze.batch_size))
            self.train_only(set(scores.topk(settings.freeze.k).indices.tolist()))
        loss = self.loss(self.draw_latents(settings.batch_size))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach()
