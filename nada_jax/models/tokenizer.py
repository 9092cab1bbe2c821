"""Tokenizers of CLIP: Hugging Face's from files, and OpenAI's from a package."""

import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from transformers import CLIPTokenizerFast

from nada_jax.errors import UserError

OPENAI_VOCABULARY = 49408  # tokens


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """Text -> token ids without the start and end tokens, and back.

    Attributes:
      vocabulary: digest of the vocabulary; tokenizers with the same one are equal.
      start, end: ids of the tokens put around every text.
      encode, decode: text -> ids, and ids -> text.
    """

    vocabulary: str
    start: int
    end: int
    # Not compared, so that clips with equal vocabularies share one compilation.
    encode: Callable[[str], list[int]] = dataclasses.field(compare=False, repr=False)
    decode: Callable[[Sequence[int]], str] = dataclasses.field(compare=False, repr=False)


def load_tokenizer(directory: str | os.PathLike | None, vocab_size: int) -> Tokenizer:
    """Loads the tokenizer of a Hugging Face directory, or OpenAI's.

    Args:
      directory: where tokenizer.json, or vocab.json and merges.txt, are looked for.
      vocab_size: tokens that the network knows; OpenAI's tokenizer is taken where they are as many as
        its own and the directory holds none.

    Returns:
      The tokenizer.

    Raises:
      UserError: there is neither; the message says which file or package is missing.
    """
    if directory is not None:
        directory = Path(directory)
        whole = directory / "tokenizer.json"
        parts = [directory / "vocab.json", directory / "merges.txt"]
        if whole.is_file():
            return _huggingface([whole], tokenizer_file=str(whole))
        if all(part.is_file() for part in parts):
            files = {"vocab_file": str(parts[0]), "merges_file": str(parts[1])}
            return _huggingface(parts, **files)
    if vocab_size != OPENAI_VOCABULARY:
        raise UserError(
            f"no tokenizer for a vocabulary of {vocab_size} tokens: expected tokenizer.json, or "
            f"vocab.json and merges.txt, in {directory or 'the directory of the clip'}"
        )
    return _openai()


def _huggingface(files: Sequence[Path], **named: str) -> Tokenizer:
    try:
        tokenizer = CLIPTokenizerFast(**named)
    except Exception as error:  # the Rust side raises a bare Exception
        raise UserError(f"{files[0]} is not a CLIP tokenizer: {error}") from error
    return Tokenizer(
        hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest(),
        tokenizer.bos_token_id,
        tokenizer.eos_token_id,
        # Without verbose=False a long text warns here, before `Clip.tokenize` says what is left of it.
        lambda text: tokenizer(text, add_special_tokens=False, verbose=False).input_ids,
        tokenizer.decode,
    )


@functools.cache
def _openai() -> Tokenizer:
    try:
        from instant_clip_tokenizer import Tokenizer as OpenAI  # only for files without a tokenizer
    except ImportError as error:
        raise UserError(
            "the clip has no tokenizer files, and OpenAI's vocabulary is not installed: "
            "pip install instant-clip-tokenizer"
        ) from error
    tokenizer = OpenAI()
    ends = tokenizer.start_of_text(), tokenizer.end_of_text()
    return Tokenizer("OpenAI", *ends, tokenizer.encode, tokenizer.decode)
