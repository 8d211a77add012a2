"""Comparing methods: false alarms as rare as stated, Holm over many, and nothing said of too few users."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import nctdtrinc
from scipy.stats import ttest_rel

from fspo.errors import DataError
from fspo.evaluation.statistics.comparing import Comparison, compare, compare_all, holm
from fspo.evaluation.statistics.intervals import Spread, clustered_mean
from fspo.evaluation.statistics.power import Variation, smallest_detectable, variation
from tests.evaluation.statistics.simulations import coin, scores


def compared(seed: int, advantage: float, *, users: int) -> Comparison:
    both = scores(seed, {"one": advantage, "other": 0.0}, users=users, items=8)
    return compare(both["one"], both["other"])


def covers(low: float | None, high: float | None, truth: float) -> bool:
    assert low is not None
    assert high is not None
    return low <= truth <= high


@pytest.mark.parametrize("users", [6, 30])
def test_a_judge_who_tosses_coins_is_seen_to_give_half(users: int) -> None:
    found = [clustered_mean(*coin(seed, users=users, items=8)) for seed in range(400)]
    assert 0.92 <= sum(covers(one.low, one.high, 0.5) for one in found) / len(found) <= 0.98


@pytest.mark.parametrize("users", [8, 30])
def test_where_there_is_no_difference_one_in_twenty_tests_says_otherwise(users: int) -> None:
    found = [compared(seed, 0.0, users=users) for seed in range(400)]
    assert 0.02 <= sum(one.significant for one in found) / len(found) <= 0.08


def test_p_and_interval_agree() -> None:
    for seed in range(40):
        found = compared(seed, 0.1, users=12)
        assert found.significant != covers(found.difference.low, found.difference.high, 0.0)


def test_is_the_paired_t_test_with_one_item_a_user() -> None:
    first, second = [0.9, 0.4, 0.7, 0.3, 0.8, 0.6], [0.5, 0.5, 0.4, 0.2, 0.3, 0.6]
    found = compare(
        {(str(user), 0): value for user, value in enumerate(first)},
        {(str(user), 0): value for user, value in enumerate(second)},
    )
    assert found.p == pytest.approx(ttest_rel(first, second).pvalue)


def test_two_users_give_a_difference_and_no_p_value() -> None:
    found = compare_all("one", scores(0, {"one": 0.3, "other": 0.0}, users=2, items=8))["other"]
    assert (found.p, found.adjusted, found.significant) == (None, None, False)
    assert "2 users, at least 3" in found.difference.note


def test_users_who_all_differ_alike_are_a_sign_test() -> None:
    better = {(str(user), 0): 1.0 for user in range(6)}
    worse = dict.fromkeys(better, 0.0)
    assert compare(better, worse).p == 2 * 0.5**6
    assert compare(better, better).p == 1


@given(st.integers(3, 60), st.floats(-1, 1), st.sampled_from([(-1.0, 1.0), (-2.0, 2.0), (-0.5, 1.0)]))
def test_p_and_interval_agree_where_users_are_alike(users: int, part: float, bounds: tuple[float, float]) -> None:
    value = part * bounds[1] if part > 0 else -part * bounds[0]
    one = {(str(user), item): value for user in range(users) for item in range(2)}
    found = compare(one, dict.fromkeys(one, 0.0), bounds=bounds)
    assert found.p is not None
    if abs(found.p - 0.05) > 1e-9:
        assert (found.p < 0.05) != covers(found.difference.low, found.difference.high, 0.0)


def test_three_users_who_differ_alike_are_no_finding() -> None:
    one = {(user, item): float(item) for user in "abc" for item in range(2)}
    found = compare(one, dict.fromkeys(one, 0.0))
    assert found.difference.value == 0.5
    assert covers(found.difference.low, found.difference.high, 0.0)
    assert not found.significant


def test_items_that_only_one_method_has_are_refused_by_name() -> None:
    one = {("u", item): 1.0 for item in range(5)}
    with pytest.raises(DataError, match=r"2 items are only in the first .*\('u', 3\), \('u', 4\)"):
        compare(one, {("u", item): 1.0 for item in range(3)})
    with pytest.raises(DataError, match="no method 'none'"):
        compare_all("none", {"one": one})


def test_holm_is_the_textbook_one() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": None, "d": 0.03, "e": 0.005}) == {
        "a": pytest.approx(0.03),
        "b": pytest.approx(0.06),
        "c": None,
        "d": pytest.approx(0.06),
        "e": pytest.approx(0.02),
    }


@given(st.dictionaries(st.integers(), st.floats(0, 1), max_size=8))
def test_holm_keeps_the_order_and_never_helps(p_values: dict[int, float]) -> None:
    adjusted = holm(p_values)
    values = [value for name in sorted(p_values, key=p_values.__getitem__) if (value := adjusted[name]) is not None]
    assert values == sorted(values)
    assert all(p <= (adjusted[name] or 0) + 1e-12 <= 1 + 1e-9 for name, p in p_values.items())


def test_with_six_methods_and_no_difference_any_false_alarm_is_rare() -> None:
    rounds, any_alarm, any_uncorrected = 200, 0, 0
    for seed in range(rounds):
        found = compare_all("a", scores(seed, dict.fromkeys("abcdef", 0.0), users=20, items=6))
        any_alarm += any(one.significant for one in found.values())
        any_uncorrected += any(one.p is not None and one.p < 0.05 for one in found.values())
    assert any_alarm / rounds <= 0.08
    assert any_uncorrected / rounds > any_alarm / rounds + 0.03


def test_a_difference_as_large_as_detectable_is_detected_in_four_of_five() -> None:
    varying = variation(*_differences(0, users=3000))
    assert isinstance(varying, Variation)
    size = smallest_detectable(varying, 25, 8)
    assert isinstance(size, float)
    found = [compared(seed, size, users=25) for seed in range(300)]
    assert 0.70 <= sum(one.significant for one in found) / len(found) <= 0.90


def test_among_many_comparisons_it_is_detected_as_often_after_their_correction() -> None:
    """One method of fifteen differs from the lead, by what is called detectable."""
    varying = variation(*_differences(0, users=3000))
    assert isinstance(varying, Variation)
    found = {}
    for comparisons in (1, 15):
        size = smallest_detectable(varying, 20, 8, comparisons=comparisons)
        assert isinstance(size, float)
        names = {"lead": 0.0, "other": -size} | {f"same {n}": 0.0 for n in range(14)}
        drawn = (compare_all("lead", scores(seed, names, users=20, items=8)) for seed in range(100))
        found[comparisons] = sum(one["other"].significant for one in drawn) / 100
    assert 0.70 <= found[15] <= 0.92
    assert found[1] < 0.5


def test_the_study_at_hand_has_the_degrees_of_freedom_of_its_test() -> None:
    """Two of thirty users make up nearly all of the spread, which is then hardly known."""
    one = {(str(user), 0): float(user < 2) for user in range(30)}
    none = dict.fromkeys(one, 0.0)
    spread = Spread.of([value - 2 / 30 for value in one.values()], 30)
    assert spread.degrees < 5
    found = compare(one, none).detectable
    assert found == pytest.approx(nctdtrinc(spread.degrees, 0.2, spread.quantile) * spread.error)


def test_the_study_at_hand_detects_what_one_of_its_size_would() -> None:
    varying = variation(*_differences(1, users=400))
    assert isinstance(varying, Variation)
    both = scores(1, {"one": 0.0, "other": 0.0}, users=400, items=8)
    at_hand = compare(both["one"], both["other"]).detectable
    assert at_hand == pytest.approx(smallest_detectable(varying, 400, 8), rel=0.02)


def test_more_users_help_where_more_items_do_not() -> None:
    alike = Variation(between=0.04, within=0.01)
    base, items, users = (smallest_detectable(alike, *size) for size in ((20, 5), (20, 50), (80, 5)))
    assert isinstance(base, float)
    assert isinstance(items, float)
    assert isinstance(users, float)
    assert items > 0.95 * base
    assert users < 0.55 * base


def test_nothing_is_detectable_with_two_users() -> None:
    assert smallest_detectable(Variation(0.1, 0.1), 2, 8) is None
    assert variation([0.1, 0.2], ["a", "b"]) is None
    both = {("a", 0): 1.0, ("b", 0): 0.0}
    assert compare(both, both).detectable is None


def test_variation_finds_what_was_put_in() -> None:
    values = [float(user % 2) + (0.1 if item else -0.1) for user in range(40) for item in range(2)]
    found = variation(values, [str(user) for user in range(40) for _ in range(2)])
    assert isinstance(found, Variation)
    assert found.within == pytest.approx(0.02)
    assert found.between == pytest.approx(10 / 39 - 0.01)
    single = variation([0.0, 1.0, 0.0, 1.0], list("abcd"))
    assert isinstance(single, Variation)
    assert single.between == pytest.approx(1 / 3)
    assert single.within == 0


def _differences(seed: int, *, users: int) -> tuple[list[float], list[str]]:
    both = scores(seed, {"one": 0.0, "other": 0.0}, users=users, items=8)
    return [value - both["other"][item] for item, value in both["one"].items()], [item[0] for item in both["one"]]
