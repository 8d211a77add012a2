"""The matrix of disagreement and its bounds."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fspo.judging.verdicts import Preferred
from fspo.synthesis.config import Disagreement
from fspo.synthesis.disagreement import disagreement_of, outside

verdicts = st.lists(
    st.lists(st.sampled_from(["first", "second", "tie"]), min_size=9, max_size=9), min_size=2, max_size=6
)


@given(verdicts)
def test_the_matrix_equals_counting(rows: list[list[str]]) -> None:
    matrix = disagreement_of([f"u{n}" for n in range(len(rows))], rows)  # type: ignore[arg-type]
    for i, one in enumerate(rows):
        for j, other in enumerate(rows):
            both = [x != y for x, y in zip(one, other, strict=True) if "tie" not in (x, y)]
            if i == j:
                assert matrix.shares[i, j] == 0
            elif len(both) < 4:
                assert math.isnan(matrix.shares[i, j])
            else:
                assert math.isclose(matrix.shares[i, j], sum(both) / len(both), abs_tol=1e-12)


def test_twins_and_strangers_are_outside() -> None:
    rows = ["aaaaaaaa", "aaaaaaab", "aaaaaaaa", "bbbbbbbb", "aaaabbbb"]
    words: dict[str, Preferred] = {"a": "first", "b": "second"}
    matrix = disagreement_of(list("vwxyz"), [[words[letter] for letter in row] for row in rows])
    found = outside(matrix, Disagreement(least=0.05, most=0.6, attempts=1))
    assert found == {"x": "too much like v", "y": "too unlike the others"}
    assert np.isclose(matrix.mean, np.mean([1/8, 0, 1, .5, 1/8, 7/8, 3/8, 1, .5, .5]))  # fmt: skip


def test_users_who_share_nothing_are_not_judged() -> None:
    matrix = disagreement_of(["u", "v"], [["first", "tie"], ["second", "first"]])
    assert math.isnan(matrix.mean)
    assert outside(matrix, Disagreement(least=0.05, most=0.6, attempts=1)) == {}
    assert disagreement_of(["u", "v"], [[], []]).shares.shape == (2, 2)
