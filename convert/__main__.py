"""python -m convert KIND SOURCE DESTINATION: converts a checkpoint, in the direction of the endings."""

import argparse
import sys
import warnings
from pathlib import Path

from convert import clip, kinds, rules
from nada_jax.errors import UserError

EXAMPLES = """examples:
  python -m convert stylegan2 stylegan2-ffhq-config-f.pkl ffhq.safetensors   NVIDIA -> native
  python -m convert stylegan2 ffhq.pt ffhq.safetensors       rosinality, StyleGAN-NADA -> native
  python -m convert stylegan2 sketch.safetensors sketch.pt   native -> rosinality
  python -m convert clip clip-vit-base-patch32 my-clip       Hugging Face directory -> native directory
  python -m convert clip ViT-B-32.pt my-clip                 OpenAI or open_clip -> native directory
  python -m convert encoder e4e_ffhq_encode.pt e4e.safetensors
                                 and the generator in it -> e4e-generator.safetensors
  python -m convert irse50 model_ir_se50.pth irse50.safetensors
  python -m convert mapper afro.pt afro.safetensors
  python -m convert vgg vgg16-397923af.pth vgg16.safetensors --lpips vgg.pth
"""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m convert",
        description="Converts official checkpoints to native weights, and back.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kind", choices=kinds.KINDS, help="what the file holds")
    parser.add_argument("source", type=Path)
    parser.add_argument("destination", type=Path)
    parser.add_argument("--check", action="store_true", help="print a table of what was matched")
    parser.add_argument(
        "--activation",
        choices=clip.ACTIVATIONS,
        help="clip: that of the network, which a state dict cannot say; OpenAI's quick_gelu by default",
    )
    parser.add_argument(
        "--lpips", type=Path, metavar="FILE", help="vgg: linear layers that make it LPIPS-VGG"
    )
    options = parser.parse_args(arguments)
    extra = {"activation": "clip", "lpips": "vgg"}
    given = {name: getattr(options, name) for name in extra if getattr(options, name) is not None}
    try:
        for name in given:
            if extra[name] != options.kind:
                raise UserError(f"--{name} is for {extra[name]} alone, not for {options.kind}")
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            matches = kinds.convert(options.kind, options.source, options.destination, **given)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.check:
        print(rules.table(matches))
    print(f"{len(matches)} arrays: {options.source} -> {options.destination}")
    return 0


def _warn(message: Warning | str, *_, **__) -> None:
    print(f"warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
