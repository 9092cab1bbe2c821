import pytest

from nada_jax.errors import UserError
from nada_jax.models.tokenizer import load_tokenizer


def test_a_missing_tokenizer_names_its_files(tmp_path):
    with pytest.raises(UserError, match="1614 tokens.*tokenizer.json.*vocab.json.*merges.txt"):
        load_tokenizer(tmp_path, 1614)
