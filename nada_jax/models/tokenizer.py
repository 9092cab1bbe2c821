"""Tokenizers of CLIP: Hugging Face's from files, and OpenAI's from a package.

Both only encode words; texts are repaired and split here, as OpenAI's own code does before it encodes.
"""

import dataclasses
import functools
import hashlib
import html
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from transformers import CLIPTokenizerFast

from nada_jax.errors import UserError

OPENAI_VOCABULARY = 49408  # tokens
START, END = "<|startoftext|>", "<|endoftext|>"
# What OpenAI's code encodes at once: a special token, an English ending, letters, a digit, other signs.
WORD = (
    r"""<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"""
)
# (network, what is left of a text) of all warnings: texts are embedded again.
_said: set[tuple[str, str]] = set()
CACHED_WORDS = 2**14  # texts of all templates repeat most of their words


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


def tokenize(
    tokenizer: Tokenizer, texts: Sequence[str], context: int, name: str, padding: int = 0
) -> np.ndarray:
    """Texts -> ids int32 [n, context]: start, the text, end, padding.

    A text that is too long is cut, with a warning, the first time, that shows what is left.

    Args:
      tokenizer: see `Tokenizer`.
      texts: any texts; a blank one has no tokens of its own.
      context: number of tokens that the network reads, start and end included.
      name: how messages call the network.
      padding: what follows the end. A CLIP attends backwards only and is read out at the end token, so that any would
        do; a diffusion model sees all of it.

    Returns:
      The ids.

    Raises:
      UserError: there are no texts, or one of them is of another type.
    """
    listed = isinstance(texts, Sequence) and not isinstance(texts, str | bytes)
    if not listed or not texts or not all(isinstance(text, str) for text in texts):
        raise UserError(f"expected a list of texts for {name}, got {texts!r}")
    ids = np.full((len(texts), context), padding, np.int32)
    cut = []
    for row, text in zip(ids, texts, strict=True):
        tokens = tokenizer.encode(text)
        kept = tokens[: context - 2]
        if len(kept) < len(tokens):
            left = tokenizer.decode(kept).strip()
            if (name, left) not in _said:
                _said.add((name, left))
                cut.append((len(tokens) + 2, left))
        row[: len(kept) + 2] = [tokenizer.start, *kept, tokenizer.end]
    if cut:
        (length, kept), others = cut[0], len(cut) - 1
        more = f", and {others} more like it" if others else ""
        warnings.warn(
            f'text of {length} tokens is longer than {name} reads ({context}); kept: "{kept}"{more}',
            stacklevel=4,
        )
    return ids


def clean(text: str) -> str:
    """Repairs a text as OpenAI's CLIP does: encoding, HTML, blanks, then lower case.

    Args:
      text: any text, such as " “Caf&eacute;”\n".

    Returns:
      The text that is split into words, such as '"café"'.
    """
    import ftfy  # only where there are texts, and a tenth of a second

    text = html.unescape(html.unescape(ftfy.fix_text(text)))  # twice, as captions of the web need
    return " ".join(text.split()).lower()


def _words(start: int, end: int, encode: Callable[[str], list[int]]) -> Callable[[str], list[int]]:
    """Makes the encoder of texts out of one of words."""
    import regex  # knows \p{L}, which Python's own re does not

    word, special = regex.compile(WORD, regex.IGNORECASE), {START: start, END: end}

    @functools.lru_cache(CACHED_WORDS)
    def ids(word: str) -> list[int]:
        return [special[word]] if word in special else encode(word)

    return lambda text: [i for found in word.findall(clean(text)) for i in ids(found)]


def _huggingface(files: Sequence[Path], **named: str) -> Tokenizer:
    try:
        tokenizer = CLIPTokenizerFast(**named)
        split, model = tokenizer.backend_tokenizer.pre_tokenizer, tokenizer.backend_tokenizer.model
        split.pre_tokenize_str("a")  # AttributeError where there is none
    except Exception as error:  # the Rust side raises a bare Exception
        raise UserError(f"{files[0]} is not a CLIP tokenizer: {error}") from error

    def encode(word: str) -> list[int]:
        # By the vocabulary alone: tokens that were added to it, such as "!" for padding, would be found in any word.
        pieces = split.pre_tokenize_str(word)
        return [token.id for piece, _ in pieces for token in model.tokenize(piece)]

    ends = tokenizer.bos_token_id, tokenizer.eos_token_id
    return Tokenizer(
        hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest(),
        *ends,
        _words(*ends, encode),
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
    return Tokenizer("OpenAI", *ends, _words(*ends, tokenizer.encode), tokenizer.decode)
