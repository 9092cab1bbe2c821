"""Choosing the source text by CLIP."""

import jax
import numpy as np
import pytest

from nada_jax.adaptation import prompts, vocabulary
from nada_jax.errors import UserError
from nada_jax.weights import loading


def test_the_embedded_generator_is_read_as_what_it_draws(avatar_clip):
    """Of a short vocabulary CLIP finds the description of cartoon portraits."""
    generator = loading.load_generator("avatar64")
    z = jax.random.normal(jax.random.key(0), (16, generator.architecture.z_dim))
    images = np.asarray(jax.jit(lambda g, z: g.synthesize(g.map(z)))(generator, z))
    texts = ["pixel art", "golden statue", "cartoon portrait", "zombie", "robot"]
    clips = [avatar_clip]
    scores = vocabulary.scores(
        prompts.mean_features(clips, [images]), [avatar_clip.embed_texts(texts)], [2.0]
    )
    assert texts[int(scores.argmax())] == "cartoon portrait"
    expected = avatar_clip.embed_images(images, antialias=True) @ avatar_clip.embed_texts(texts).T
    np.testing.assert_allclose(scores, expected.mean(axis=0), atol=1e-5)


def test_a_vocabulary_is_a_text_a_line(tmp_path):
    own = vocabulary.read()
    assert len(own) > 80 and "cartoon portrait" in own and not any("#" in text for text in own)
    file = tmp_path / "words.txt"
    file.write_text("# comment\n\ncat  # small\n dog\ncat\n")
    assert vocabulary.read(str(file)) == ["cat", "dog"]
    # As editors of Windows save it.
    file.write_bytes("cat\n\nna\u00efve dog".encode("utf-8-sig").replace(b"\n", b"\r\n"))
    assert vocabulary.read(str(file)) == ["cat", "na\u00efve dog"]
    file.write_bytes("cat\nna\u00efve dog".encode("latin-1"))
    with pytest.raises(UserError, match="words.txt is not UTF-8: line 2 has the byte 0xef"):
        vocabulary.read(str(file))
    file.write_text("cat\n")
    with pytest.raises(UserError, match="words.txt: it holds 1 descriptions"):
        vocabulary.read(str(file))
    with pytest.raises(UserError, match="cannot read .*nowhere.txt"):
        vocabulary.read(str(tmp_path / "nowhere.txt"))
