from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fspo.synthesis.figures import correlation, histogram


@given(st.lists(st.floats(-5, 5, allow_nan=False), min_size=1, max_size=50))
def test_a_histogram_counts_everything_once(figures: list[float]) -> None:
    drawn = histogram(figures)
    assert sum(drawn["counts"]) == len(figures)
    assert len(drawn["edges"]) == len(drawn["counts"]) + 1
    assert drawn["edges"] == sorted(drawn["edges"])


def test_few_distinct_figures_get_a_bin_each() -> None:
    assert histogram([0, 0, 1, 2, 2, 2])["counts"] == [2, 1, 3]
    assert histogram([3.0, 3.0])["counts"] == [2]


def test_correlation_is_pearsons() -> None:
    table = correlation({"a": [1, 2, 3], "b": [3, 2, 1], "c": [1, 1, 1]})
    assert table["matrix"] == [[1, -1, 0], [-1, 1, 0], [0, 0, 1]]
    assert table["largest"] == 1
