"""python -m convert KIND SOURCE DESTINATION: converts a checkpoint, in the direction of the endings."""

import argparse
import sys
from pathlib import Path

from convert import clip, rules, stylegan2
from nada_jax.errors import UserError

KINDS = {"stylegan2": stylegan2.convert, "clip": clip.convert}
EXAMPLES = """examples:
  python -m convert stylegan2 ffhq.pt ffhq.safetensors      official (rosinality) -> native
  python -m convert stylegan2 sketch.safetensors sketch.pt  native -> official
  python -m convert clip clip-vit-base-patch32 my-clip      Hugging Face directory -> native directory
  python -m convert clip vit-b-32.pt my-clip                OpenAI state dict -> native directory
"""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m convert",
        description="Converts official checkpoints to native weights, and back.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kind", choices=KINDS, help="what the file holds")
    parser.add_argument("source", type=Path)
    parser.add_argument("destination", type=Path)
    parser.add_argument("--check", action="store_true", help="print a table of what was matched")
    options = parser.parse_args(arguments)
    try:
        matches = KINDS[options.kind](options.source, options.destination)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.check:
        print(rules.table(matches))
    print(f"{len(matches)} arrays: {options.source} -> {options.destination}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
