"""Means over users and items: the interval covers both, and says where it can't."""

from __future__ import annotations

import random

import pytest

from fspo.evaluation.statistics import Estimate, clustered_mean
from fspo.evaluation.statistics.two_way_clustering import Cell, crossed_mean


def cells(
    rng: random.Random, users: int = 12, items: int = 12, by_user: float = 0.5, by_item: float = 0.5
) -> dict[Cell, float]:
    """Effects of users, items and chance, all normal around 0."""
    own = [rng.gauss(0, by_user) for _ in range(users)]
    hard = [rng.gauss(0, by_item) for _ in range(items)]
    return {(f"u{u}", f"i{i}"): own[u] + hard[i] + rng.gauss(0, 0.5) for u in range(users) for i in range(items)}


def test_it_covers_where_either_clustering_alone_does_not() -> None:
    rng, inside, alone = random.Random(0), 0, 0
    for _ in range(150):
        drawn = cells(rng)
        estimate = crossed_mean(drawn, None)
        assert estimate is not None and estimate.low is not None and estimate.high is not None
        inside += estimate.low <= 0 <= estimate.high
        single = clustered_mean(list(drawn.values()), [user for user, _ in drawn], bounds=None)
        assert single.low is not None and single.high is not None
        alone += single.low <= 0 <= single.high
    assert inside >= 0.9 * 150
    assert alone < 0.87 * 150


def test_cells_without_a_user_are_clustered_by_item_and_count_none() -> None:
    estimate = crossed_mean({("", f"i{n}"): float(n % 2) for n in range(10)}, (0.0, 1.0))
    assert estimate is not None
    assert (estimate.value, estimate.users, estimate.items) == (0.5, 0, 10)
    assert estimate.low is not None and estimate.low > 0


@pytest.mark.parametrize(
    ("users", "items", "short"),
    [
        (2, 5, "2 users, at least 3 are needed"),
        (5, 2, "2 items, at least 3 are needed"),
        (2, 1, "2 users and 1 item, at least 3 of each are needed"),
    ],
)
def test_too_few_of_either_give_no_interval_and_it_says_of_which(users: int, items: int, short: str) -> None:
    estimate = crossed_mean(cells(random.Random(0), users, items), None)
    assert estimate is not None and estimate.low is None and estimate.users == users
    assert estimate.note == f"no interval: {short}"


def test_without_users_too_few_items_are_what_is_short() -> None:
    estimate = crossed_mean({("", "i0"): 0.0, ("", "i1"): 1.0}, (0.0, 1.0))
    assert estimate is not None
    assert (estimate.low, estimate.users) == (None, 0)
    assert estimate.note == "no interval: 2 items, at least 3 are needed"
    assert Estimate(**estimate.to_json()).note == "no interval"


def test_where_one_side_is_alike_and_nothing_is_bounded_the_other_gives_the_interval() -> None:
    drawn = {(f"u{u}", f"i{i}"): float(i) for u in range(4) for i in range(5)}
    estimate, by_item = (
        crossed_mean(drawn, None),
        clustered_mean(list(drawn.values()), [i for _, i in drawn], bounds=None),
    )
    assert estimate is not None
    assert (estimate.low, estimate.high, estimate.users) == (by_item.low, by_item.high, 4)
    alike = crossed_mean(dict.fromkeys(drawn, 1.5), None)
    assert alike is not None and alike.low is None
    assert "all are alike" in alike.note


def test_no_variation_is_no_certainty() -> None:
    estimate = crossed_mean({(f"u{u}", f"i{u}{i}"): 0.0 for u in range(4) for i in range(3)}, (-1.0, 1.0))
    assert estimate is not None and estimate.value == 0.0
    assert estimate.high is not None and estimate.high > 0.3
    assert crossed_mean({}, None) is None
