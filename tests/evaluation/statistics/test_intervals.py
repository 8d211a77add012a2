"""Statistics: the interval covers what it claims, and says when it can't."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fspo.errors import DataError
from fspo.evaluation.statistics.comparing import paired_difference
from fspo.evaluation.statistics.intervals import Cell, Estimate, clustered_mean, crossed_mean


def simulated(seed: int, users: int, items: int) -> tuple[list[float], list[str]]:
    """Right or wrong answers of users whose own rates differ around 0.7."""
    generator = random.Random(seed)
    values, names = [], []
    for user in range(users):
        rate = min(1.0, max(0.0, generator.gauss(0.7, 0.12)))
        values += [float(generator.random() < rate) for _ in range(items)]
        names += [f"u{user}"] * items
    return values, names


def covered(estimate: Estimate, truth: float) -> bool:
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.low <= truth <= estimate.high


@pytest.mark.parametrize("users", [8, 30])
def test_the_interval_covers_the_truth_as_often_as_it_claims(users: int) -> None:
    rounds = 400
    hits = sum(covered(clustered_mean(*simulated(seed, users, 10)), 0.7) for seed in range(rounds))
    assert 0.90 <= hits / rounds <= 0.99


def test_an_interval_that_forgets_the_users_is_too_narrow() -> None:
    values, users = simulated(1, 12, 40)
    clustered = clustered_mean(values, users)
    pretended = clustered_mean(values, [str(i) for i in range(len(values))])
    assert clustered.low is not None
    assert pretended.low is not None
    assert clustered.value - clustered.low > pretended.value - pretended.low


def test_items_that_repeat_add_no_certainty() -> None:
    values, users = simulated(2, 10, 5)
    once, thrice = clustered_mean(values, users), clustered_mean(values * 3, users * 3)
    assert once.low is not None
    assert thrice.low == pytest.approx(once.low)
    assert thrice.items == 3 * once.items


def test_equals_the_textbook_interval_with_one_item_a_user() -> None:
    values = [0.2, 0.4, 0.5, 0.9, 0.3]
    estimate = clustered_mean(values, list("abcde"), bounds=None)
    deviation = math.sqrt(sum((v - 0.46) ** 2 for v in values) / 4 / 5)
    assert estimate.value == pytest.approx(0.46)
    assert estimate.high == pytest.approx(0.46 + 2.7764451 * deviation)


def test_too_few_users_give_no_interval_and_say_so() -> None:
    estimate = clustered_mean([1.0, 0.0, 1.0], ["a", "a", "b"])
    assert (estimate.low, estimate.high, estimate.users) == (None, None, 2)
    assert "2 users" in estimate.note


@pytest.mark.parametrize(("value", "inner"), [(1.0, "low"), (0.0, "high")])
def test_a_perfect_record_of_few_users_is_no_certainty(value: float, inner: str) -> None:
    estimate = clustered_mean([value] * 10, list("aabbccddee"))
    assert estimate.value == value
    assert abs(getattr(estimate, inner) - value) == pytest.approx(1 - 0.025 ** (1 / 5))


def test_paired_difference_is_over_shared_items_only() -> None:
    first = {(user, item): 1.0 for user in "abcd" for item in range(3)}
    second = {(user, item): 0.0 if item else 1.0 for user in "abcd" for item in range(2)}
    estimate = paired_difference(first, second)
    assert (estimate.value, estimate.items, estimate.users) == (0.5, 8, 4)
    with pytest.raises(DataError, match="share no item"):
        paired_difference(first, {})


def test_pairing_sees_what_two_separate_intervals_do_not() -> None:
    values, users = simulated(3, 20, 10)
    items = [(user, i) for i, user in enumerate(users)]
    better = {item: min(1.0, value + 0.05) if value == 0 else value for item, value in zip(items, values, strict=True)}
    worse = dict(zip(items, values, strict=True))
    estimate = paired_difference(better, worse)
    assert estimate.low is not None
    assert estimate.low > 0


@pytest.mark.parametrize(
    ("values", "users", "words"),
    [([], [], "no items"), ([1.0], ["a", "b"], "1 values came with 2 users"), ([math.nan], ["a"], "finite")],
)
def test_bad_input_is_refused(values: list[float], users: list[str], words: str) -> None:
    with pytest.raises(DataError, match=words):
        clustered_mean(values, users)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.sampled_from("abcdef")), min_size=1, max_size=40), st.randoms())
def test_order_does_not_matter_and_bounds_hold(rows: list[tuple[float, str]], shuffler: random.Random) -> None:
    estimate = clustered_mean([v for v, _ in rows], [u for _, u in rows])
    shuffler.shuffle(rows)
    again = clustered_mean([v for v, _ in rows], [u for _, u in rows])
    assert again.value == pytest.approx(estimate.value)
    assert Estimate(**estimate.to_json()) == estimate
    if estimate.low is not None and estimate.high is not None:
        assert 0 <= estimate.low <= estimate.value + 1e-12
        assert estimate.value - 1e-12 <= estimate.high <= 1


def bootstrap(values: list[float], users: list[str], draws: int = 2000) -> tuple[float, float]:
    """The percentile interval of the mean when whole users are drawn anew, which assumes no distribution."""
    groups = [[v for v, u in zip(values, users, strict=True) if u == user] for user in sorted(set(users))]
    generator = random.Random(1)
    samples = (generator.choices(groups, k=len(groups)) for _ in range(draws))
    means = sorted(sum(map(sum, sample)) / sum(map(len, sample)) for sample in samples)
    return means[int(0.025 * draws)], means[int(0.975 * draws)]


def test_the_interval_is_about_that_of_the_bootstrap() -> None:
    values, users = simulated(4, 60, 8)
    interval, estimate = bootstrap(values, users), clustered_mean(values, users)
    assert interval == (pytest.approx(estimate.low, abs=0.02), pytest.approx(estimate.high, abs=0.02))


def test_near_the_bounds_a_share_keeps_its_doubt() -> None:
    users = [f"u{i // 3}" for i in range(90)]
    none, one = clustered_mean([0.0] * 90, users), clustered_mean([1.0] + [0.0] * 89, users)
    assert none.high == pytest.approx(1 - 0.025 ** (1 / 30))
    assert one.low is not None
    assert one.high is not None
    assert 0 < one.low < 0.011 < 0.05 < one.high


def test_users_who_are_all_alike_are_no_certainty() -> None:
    estimate = clustered_mean([1.0, 1.0, 0.0] * 3, list("aaabbbccc"))
    assert estimate.low is not None
    assert estimate.high is not None
    assert estimate.low < 0.3
    assert estimate.high > 0.9


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-1.0, 2.0)])
def test_ties_alone_leave_as_much_doubt_as_there_are_few_users(bounds: tuple[float, float]) -> None:
    for users in (10, 100):
        ties = clustered_mean([0.5] * 4 * users, [str(place // 4) for place in range(4 * users)], bounds=bounds)
        assert ties.low is not None
        assert ties.high is not None
        assert ties.high - 0.5 == pytest.approx(0.5 - ties.low)
        # If users beyond this share had the greatest value, all of these would have tied with a chance of 2.5%.
        others = (ties.high - 0.5) / (bounds[1] - 0.5)
        assert (1 - others) ** users == pytest.approx(0.025)


def test_methods_that_agree_on_every_item_differ_little() -> None:
    agreeing = clustered_mean([0.0] * 84, [str(place // 6) for place in range(84)], bounds=(-1.0, 1.0))
    assert agreeing.low is not None and agreeing.high is not None
    assert agreeing.value == 0 and -0.25 < agreeing.low < agreeing.high < 0.25


def test_where_all_are_alike_and_nothing_is_bounded_there_is_no_interval() -> None:
    alike = clustered_mean([7.0] * 10, list("abcdefghij"), bounds=None)
    assert (alike.value, alike.low, alike.high) == (7.0, None, None)
    assert "all values are equal" in alike.note
    assert Estimate(**alike.to_json()).note == "no interval"


@pytest.mark.parametrize("rate", [0.03, 0.5, 0.97])
def test_intervals_of_rare_and_common_events_cover_the_truth(rate: float) -> None:
    """Each user's own rate is drawn from a beta distribution around `rate`, so that a user's items are correlated."""
    hits, rounds = 0, 300
    for seed in range(rounds):
        generator = random.Random(seed)
        values, users = [], []
        for user in range(30):
            own = generator.betavariate(rate * 20, (1 - rate) * 20)
            values += [float(generator.random() < own) for _ in range(8)]
            users += [str(user)] * 8
        hits += covered(clustered_mean(values, users), rate)
    assert hits / rounds >= 0.92


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
    assert "all values are equal" in alike.note


def test_no_variation_is_no_certainty() -> None:
    estimate = crossed_mean({(f"u{u}", f"i{u}{i}"): 0.0 for u in range(4) for i in range(3)}, (-1.0, 1.0))
    assert estimate is not None and estimate.value == 0.0
    assert estimate.high is not None and estimate.high > 0.3
    assert crossed_mean({}, None) is None
