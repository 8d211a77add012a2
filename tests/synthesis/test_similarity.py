from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fspo.synthesis.similarity import jaccard, shingles

text = st.lists(st.sampled_from(["the", "film", "is", "a", "slow", "and", "warm", "one"]), max_size=12).map(" ".join)


@given(text, text)
def test_overlap_is_symmetric_and_a_share(a: str, b: str) -> None:
    one, other = shingles(a), shingles(b)
    assert jaccard(one, other) == jaccard(other, one)
    assert 0 <= jaccard(one, other) <= 1
    assert jaccard(one, one) == 1


def test_form_does_not_count() -> None:
    assert shingles("- The film is slow! 🎬") == shingles("The film is slow.")
