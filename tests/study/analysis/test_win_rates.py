"""Win rates against known truths, and the paper's test against the one that knows people."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from fspo.evaluation.statistics.intervals import clustered_mean
from fspo.study.analysis.win_rates import binomial_p, p_above_half, score_estimate, win_rates
from tests.study.made_records import PAIR, attention, attentive, item, own_rate


def test_scores_follow_the_arm_and_not_the_side() -> None:
    items = [
        item("a", 1, choice="first"),
        item("a", 2, first_arm="base", second_arm="personal", choice="second"),
        item("b", 1, choice="tie"),
        item("c", 1, choice="second"),
        item("c", 2, choice=None),
        item("c", 3, first="", second="", choice="first"),
        attention("c", 4, "first", "first"),
    ]
    (rate,) = win_rates(items, [PAIR])
    assert (rate.wins, rate.losses, rate.ties) == (2, 1, 1)
    assert rate.estimate.value == pytest.approx(2.5 / 4)
    assert (rate.estimate.users, rate.estimate.items) == (3, 4)
    (other,) = win_rates(items, [PAIR[::-1]])
    assert other.estimate.value == pytest.approx(1.5 / 4)
    assert score_estimate(items, ("personal", "third")) is None


@given(st.integers(0, 60), st.integers(0, 60))
def test_the_binomial_test_is_the_one_of_the_paper(wins: int, losses: int) -> None:
    if wins + losses:
        expected = binomtest(wins, wins + losses, alternative="greater").pvalue
        assert binomial_p(wins, losses) == pytest.approx(expected, abs=1e-9)
    else:
        assert binomial_p(wins, losses) is None


@settings(max_examples=60)
@given(st.lists(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=8), min_size=3, max_size=12))
def test_p_and_interval_agree(groups: list[list[float]]) -> None:
    scores = [score for group in groups for score in group]
    people = [str(number) for number, group in enumerate(groups) for _ in group]
    p, interval = p_above_half(scores, people), clustered_mean(scores, people)
    assert p is not None and 0 <= p <= 1
    assert interval.low is not None and interval.high is not None
    if not math.isclose(interval.low, 0.5, abs_tol=1e-6):
        assert (p < 0.025) == (interval.low > 0.5)
    if not math.isclose(interval.high, 0.5, abs_tol=1e-6):
        assert (p > 0.975) == (interval.high < 0.5)
    mirrored = p_above_half([1 - score for score in scores], people)
    assert mirrored == pytest.approx(1 - p, abs=1e-9)


def test_too_few_people_have_no_p_value() -> None:
    (rate,) = win_rates([item("a", 1), item("b", 1)], [PAIR])
    assert rate.p is None and rate.adjusted is None and rate.design_effect is None
    assert rate.estimate.low is None


def test_intervals_cover_the_truth_and_clustering_keeps_false_alarms_at_five_percent() -> None:
    """Where there is no difference, the paper's test has too many false alarms and the clustered one has not."""
    chance, covered, alarms, binomial_alarms, studies = random.Random(7), 0, 0, 0, 300
    for _ in range(studies):
        scores: list[float] = []
        people: list[str] = []
        for number in range(20):
            rate = own_rate(chance, 0.5, 0.25)
            scores += [float(chance.random() < rate) for _ in range(11)]
            people += [str(number)] * 11
        interval, p = clustered_mean(scores, people), p_above_half(scores, people)
        assert p is not None and interval.low is not None and interval.high is not None
        covered += interval.low <= 0.5 <= interval.high
        alarms += p < 0.05
        binomial = binomial_p(scores.count(1.0), scores.count(0.0))
        assert binomial is not None
        binomial_alarms += binomial < 0.05
    assert 0.92 <= covered / studies <= 0.98
    assert 0.02 <= alarms / studies <= 0.09
    assert binomial_alarms / studies > 0.12


def test_the_design_effect_says_how_alike_the_votes_of_a_person_are() -> None:
    chance = random.Random(3)
    alike = [one for n in range(30) for one in attentive(f"p{n}", chance, own_rate(chance, 0.5, 0.4))]
    independent = [one for n in range(30) for one in attentive(f"p{n}", chance, 0.5)]
    (of_alike,), (of_independent,) = win_rates(alike, [PAIR]), win_rates(independent, [PAIR])
    assert of_alike.design_effect is not None and of_alike.design_effect > 3
    assert of_independent.design_effect is not None and 0.4 < of_independent.design_effect < 1.8


def test_several_pairs_are_corrected_together() -> None:
    chance = random.Random(5)
    items = [one for n in range(12) for one in attentive(f"p{n}", chance, 0.8)]
    names = {"personal": "third", "base": "base"}
    items += [
        one.model_copy(update={"first_arm": names[one.first_arm], "second_arm": names[one.second_arm]})
        for n in range(12)
        for one in attentive(f"p{n}", chance, 0.6)
    ]
    rates = win_rates(items, [PAIR, ("third", "base")])
    smaller, larger = sorted(rates, key=lambda rate: rate.p or 0)
    assert smaller.p is not None and smaller.adjusted == pytest.approx(2 * smaller.p)
    assert larger.adjusted == pytest.approx(max(larger.p or 0, smaller.adjusted))
