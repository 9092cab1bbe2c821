import pytest
from transformers import CLIPTokenizerFast

from nada_jax.errors import UserError
from nada_jax.models.tokenizer import END, START, clean, load_tokenizer
from nada_jax.weights import registry


def test_a_missing_tokenizer_names_its_files(tmp_path):
    with pytest.raises(UserError, match="1614 tokens.*tokenizer.json.*vocab.json.*merges.txt"):
        load_tokenizer(tmp_path, 1614)


@pytest.fixture(scope="module")
def openai():
    return load_tokenizer(None, 49408)


def test_odd_texts_get_the_ids_of_openai(openai, golden):
    for text, expected in ((row["text"], row["ids"]) for row in golden("tokens.json")):
        ids = [openai.start, *openai.encode(text)[:75], openai.end]
        assert ids == expected, text


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("\ufeff Caf\u00c3\u00a9 &amp;amp; bar\r\n", "caf\u00e9 & bar"),
        ("cafe\u0301", "caf\u00e9"),
        ("\uff32\uff4f\uff42\uff4f\uff54", "robot"),
        ("a\u00a0 b\u2028c\x1b[31m", "a b c"),
    ],
)
def test_texts_are_repaired(text, cleaned):
    assert clean(text) == cleaned


def test_special_tokens_within_a_text_are_those_of_openai(openai):
    inside = openai.encode(f"cat {END.upper()} dog{START}")
    assert inside == [2368, openai.end, 1929, openai.start]
    # OpenAI's expression has taken the signs before it.
    assert openai.end not in openai.encode(f"cat!{END}")


def test_a_tokenizer_of_files_repairs_texts_as_well(avatar_clip):
    encode = avatar_clip.tokenizer.encode
    assert encode("\u201cZombie\u201d  &amp;\nROBOT") == encode('"zombie" & robot')
    assert encode("pencil sketch") == encode(" Pencil\u00a0SKETCH")


def test_tokens_added_to_a_vocabulary_are_found_in_no_word(tmp_path):
    """transformers keeps "!" for padding beside the vocabulary, and would find it in any text."""
    plain = registry.ASSETS / "clip-avatar-p8"
    files = (str(plain / name) for name in ("vocab.json", "merges.txt"))
    tokenizer = CLIPTokenizerFast(*files, pad_token="!")
    tokenizer.add_tokens(["sketch"])
    tokenizer.save_pretrained(tmp_path)
    ours, right = (load_tokenizer(path, 0).encode for path in (tmp_path, plain))
    for text in ("a cat!", "wow!!!", "a pencil sketch, sketched"):
        assert ours(text) == right(text)
