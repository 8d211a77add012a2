"""Calibration: figures by hand, and margins made with known chances."""

from __future__ import annotations

import math
import random
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fspo.evaluation.artifacts import ErrorByChance
from fspo.evaluation.calibration import BINS, calibration_metrics, error_by_chance, fitted_margins, reliability_bins
from fspo.evaluation.metrics.table import Table, estimates, missing_interval_note, per_user
from fspo.evaluation.scoring.eval_episodes import Item


def value(measured: Table, name: str) -> float:
    return estimates(measured)[name].value


def made(scale: float, *, users: int = 40, items: int = 50, seed: int = 0) -> dict[Item, float]:
    """Margins whose sigmoid at `scale` 1 is the chance that what they favour was chosen."""
    generator = random.Random(seed)
    found = {}
    for user in range(users):
        for number in range(items):
            margin = generator.gauss(0, 2)
            chosen = generator.random() < 1 / (1 + math.exp(-margin))
            found[f"u{user}", f"u{user}/{number}"] = scale * (margin if chosen else -margin)
    return found


def test_figures_by_hand() -> None:
    sure = math.log(9)  # a confidence of 0.9
    margins = {("a", "1"): sure, ("a", "2"): sure, ("b", "3"): -sure, ("c", "4"): 0.0}
    found = calibration_metrics(margins)
    assert value(found, "calibration_error") == pytest.approx((3 * abs(0.9 - 2 / 3) + 0) / 4)
    assert value(found, "brier") == pytest.approx((0.01 + 0.01 + 0.81 + 0.25) / 4)
    assert value(found, "overconfidence") == pytest.approx((3 * 0.9 + 0.5) / 4 - 2.5 / 4)
    first, last = reliability_bins(margins)
    assert (first.low, first.items, first.accuracy) == (0.5, 1, 0.5)
    assert (last.users, last.items, last.accuracy) == (2, 3, pytest.approx(2 / 3))
    assert last.confidence == pytest.approx(0.9)


def test_true_chances_are_calibrated_and_inflated_ones_are_not() -> None:
    for scale, least, most in ((1.0, 0.0, 0.03), (4.0, 0.1, 0.3)):
        found = calibration_metrics(made(scale))
        assert least <= value(found, "calibration_error") <= most
    inflated = estimates(calibration_metrics(made(4.0)))["overconfidence"]
    assert inflated.low is not None
    assert inflated.low > 0
    assert value(calibration_metrics(made(0.1)), "overconfidence") < -0.1


def test_the_error_has_no_interval_and_is_nothing_of_a_single_user() -> None:
    measured = calibration_metrics(made(1.0))
    found = estimates(measured)["calibration_error"]
    assert (found.low, found.high) == (None, None)
    assert "chance alone" in found.note
    assert missing_interval_note([("x", found)]) == ""
    assert set(per_user(measured)) == {"brier", "overconfidence"}
    assert "2 users" in missing_interval_note(estimates(calibration_metrics(made(1.0, users=2))).items())


def test_perfect_calibration_exceeds_what_chance_gives_once_in_twenty() -> None:
    above, errors, means = 0, [], []
    for seed in range(200):
        margins = made(1.0, users=10, items=8, seed=seed)
        chance = error_by_chance(margins, draws=200, seed=seed)
        assert chance is not None
        errors.append(value(calibration_metrics(margins), "calibration_error"))
        means.append(chance.mean)
        above += errors[-1] > chance.high
    assert 0.02 <= above / 200 <= 0.09
    assert fmean(errors) == pytest.approx(fmean(means), rel=0.1)


def test_what_chance_gives_is_far_below_the_error_of_inflated_margins() -> None:
    margins = made(4.0)
    chance = error_by_chance(margins)
    assert chance is not None
    assert value(calibration_metrics(margins), "calibration_error") > 5 * chance.high
    assert error_by_chance(margins) == chance
    assert error_by_chance({}) is None
    assert error_by_chance({("a", "1"): 0.0, ("b", "2"): 0.0}) == ErrorByChance(mean=0.0, high=0.0)


@pytest.mark.parametrize("scale", [0.01, 1.0, 50.0])
def test_a_scale_fitted_on_the_other_users_undoes_any_scale(scale: float) -> None:
    found = calibration_metrics(fitted_margins(made(scale)), "/fitted")
    assert value(found, "calibration_error/fitted") < 0.03
    assert value(found, "brier/fitted") == pytest.approx(value(calibration_metrics(made(1.0)), "brier"), abs=0.003)


def test_nobody_is_fitted_on_themselves() -> None:
    margins = {("a", "1"): 1.0, ("a", "2"): 1.0, ("b", "3"): -1.0, ("b", "4"): 1.0, ("c", "5"): 1.0}
    fitted = fitted_margins(margins)
    assert fitted["b", "4"] > 10  # all that is known of the others is that they were right
    assert fitted["a", "1"] < 2
    assert fitted_margins({("a", "1"): 1.0}) == {}
    assert set(fitted_margins(dict.fromkeys(margins, 0.0)).values()) == {0.0}


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.floats(-800, 800)), min_size=1, max_size=40))
def test_bins_hold_every_item_once_and_the_error_is_theirs(rows: list[tuple[str, float]]) -> None:
    margins = {(user, f"{user}/{place}"): margin for place, (user, margin) in enumerate(rows)}
    bins = reliability_bins(margins)
    assert sum(row.items for row in bins) == len(rows)
    assert len(bins) <= BINS
    error = sum(row.items * abs(row.confidence - row.accuracy) for row in bins) / len(rows)
    assert value(calibration_metrics(margins), "calibration_error") == pytest.approx(error, abs=1e-9)
