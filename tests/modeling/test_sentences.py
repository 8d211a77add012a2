from __future__ import annotations

import pytest

from fspo.modeling import sentences
from fspo.modeling.sentences import SentenceEmbedder


@pytest.mark.builtin_model
def test_what_means_the_same_is_closer_than_what_does_not() -> None:
    embedder = SentenceEmbedder.load()
    wanted = "Likes enthusiastic reviews and dislikes critical ones."
    close, far, other = embedder.closeness(
        ["Enjoys reviews full of praise.", "Prefers long reviews to short ones.", "The bus leaves at noon."], wanted
    )
    assert 1 > close > far > other > -1
    assert embedder.closeness([wanted], wanted)[0] == pytest.approx(1, abs=1e-5)
    assert embedder.embed(["a"] * 70).norm(dim=-1).tolist() == pytest.approx([1.0] * 70, abs=1e-5)
    assert (sentences.folder() / "source.json").is_file()
    assert sentences.obtain() == sentences.folder()
