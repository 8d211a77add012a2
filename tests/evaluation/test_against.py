"""What came out against a method is said, whatever it is, in the unit that it is in."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import pytest

from fspo.evaluation.against import Standings, negatives
from fspo.evaluation.statistics import Comparison, Estimate


def estimate(value: float, low: float, high: float, users: int = 30) -> Estimate:
    return Estimate(value, low, high, users, 100)


def test_what_came_out_against_a_method_is_said() -> None:
    metrics = {
        "fspo": {
            "reward_accuracy": estimate(0.53, 0.48, 0.58),
            "win_rate": estimate(0.3, 0.2, 0.4),
            "label_flip_rate": estimate(0.1, 0.05, 0.15),
            "user_swap_drop": estimate(0.2, 0.1, 0.3),
        }
    }
    found = negatives(metrics, {"dropped_shots": {"fspo": 2}})
    assert len(found) == 4
    assert "can't be told from 50 %" in found[0]
    assert "lies below 50 %" in found[1]
    assert "14 %" in found[2]
    assert "2 shots" in found[3]
    floored = negatives({}, {"judgements": {"fspo, plain": {"items": 9, "base_below_floor": 4}}})
    assert [("4 of 9" in sentence, "for nothing" in sentence) for sentence in floored] == [(True, True)]
    assert negatives({"fspo": {"reward_accuracy": estimate(0.8, 0.7, 0.9)}}, {}) == []


def test_a_gain_that_is_none_and_a_loss_that_is_one_are_said() -> None:
    row = {
        "gain_over_population": estimate(0.02, -0.03, 0.07),
        "gain_over_no_context": estimate(0.2, 0.1, 0.3),
        "tax_general": estimate(0.12, 0.04, 0.2),
        "tax_refusal": estimate(0.0, -0.1, 0.1),
        "shortfall": Estimate(0.2, None, None, 2, 9),
    }
    over, loses = negatives({"fspo": row}, {})
    assert (
        "no gain in reward accuracy over the model of the whole population" in over
        and "[\N{MINUS SIGN}3.0, 7.0]" in over
    )
    assert "loses 12.0 points [4.0, 20.0] of general instructions" in loses


def test_no_variant_is_hidden_by_the_choice_of_a_headline() -> None:
    wins = {"win_rate": estimate(0.7, 0.6, 0.8), "win_rate/guided": estimate(0.7, 0.6, 0.8)}
    [found] = negatives({"fspo": {**wins, "win_rate/plain": estimate(0.6, 0.49, 0.7)}}, {})
    assert "win rate (plain)" in found
    [found] = negatives({"fspo": {"reward_accuracy": Estimate(0.8, None, None, 2, 9)}}, {})
    assert "no interval, from 2 users" in found


ABOVE, LEVEL, BELOW = ((0.7, 0.6, 0.8), (0.52, 0.4, 0.64), (0.3, 0.2, 0.4))
GAINED, NEITHER, LOST = ((0.2, 0.1, 0.3), (0.02, -0.05, 0.09), (-0.2, -0.3, -0.1))


@pytest.mark.parametrize(
    ("measure", "value", "said"),
    [
        ("win_rate_by/other/plain", BELOW, "the win rate by (other, plain) of 30.0 % [20.0, 40.0] lies below 50 %"),
        ("win_rate_matched/plain", LEVEL, "win rate matched (plain) of 52.0 % [40.0, 64.0] can't be told from 50 %"),
        ("win_rate_weighted/plain", LEVEL, "can't be told from 50 %"),
        ("win_rate_without_floors/plain", LEVEL, "can't be told from 50 %"),
        ("win_rate_length_controlled/other/plain", BELOW, "lies below 50 %"),
        ("user_swap_drop", NEITHER, "user swap drop of 2.0 points"),
        ("overconfidence", GAINED, "its margins are surer than right, by 20.0 points [10.0, 30.0]"),
        ("overconfidence/fitted", GAINED, "its fitted margins are surer than right"),
        ("gain_over_oracle", LOST, "is worse in reward accuracy than the untrained model that is told"),
        ("gain_over_oracle", NEITHER, "no gain in reward accuracy over the untrained model that is told"),
        ("beyond_training_gain", LOST, "is worse in reward accuracy than itself with as many shots as it was trained"),
        (
            "wrong_labels_drop/25%",
            GAINED,
            "loses 20.0 points [10.0, 30.0] of reward accuracy where labels are wrong (25%",
        ),
        ("tax_general/bare", GAINED, "of general instructions followed against the base model, without any shot"),
        ("tax_open/training", GAINED, "knows no user, against the untrained weights given the same shots"),
        ("tax_refusal/injected", GAINED, "with such requests in the shots"),
        ("tax_fluency", GAINED, "less fluent than the base model's, by 0.20 [0.10, 0.30] nats a token"),
        ("shortfall", GAINED, "loses 20.0 points [10.0, 30.0] of reward accuracy to an ideal observer"),
    ],
)
def test_every_family_of_measures_has_its_rule(measure: str, value: tuple[float, float, float], said: str) -> None:
    [found] = negatives({"fspo": {measure: estimate(*value)}}, {})
    assert found.startswith("fspo: ")
    assert said in found
    assert negatives({"base": {measure: estimate(*value)}}, {}) == []  # the yardstick


@pytest.mark.parametrize(
    ("measure", "value"),
    [
        ("win_rate_by/other/plain", ABOVE),
        ("gain_over_oracle", GAINED),
        ("beyond_training_gain", GAINED),
        ("overconfidence", NEITHER),
        ("wrong_labels_drop/25%", NEITHER),
        ("tax_general/bare", LOST),
        ("win_rate/plain@2", LEVEL),
    ],
)
def test_what_is_for_a_method_is_not_said_against_it(measure: str, value: tuple[float, float, float]) -> None:
    assert negatives({"fspo": {measure: estimate(*value)}}, {}) == []


def test_only_who_sees_the_shots_falls_short_of_an_observer_of_them() -> None:
    row = {"shortfall": estimate(*GAINED)}
    assert negatives({"oracle": row, "ipo": row, "mine": row}, {}) == []
    assert len(negatives({"mine": row}, {"rewards": {"mine": ["score", "antisymmetric"]}})) == 1


def compared(difference: float, adjusted: float | None) -> Comparison:
    low, high = (None, None) if adjusted is None else (difference - 0.05, difference + 0.05)
    return Comparison(Estimate(difference, low, high, 30, 100), adjusted, adjusted)


def test_whom_the_lead_is_worse_than_is_said() -> None:
    paired = {"few-shot": compared(-0.15, 0.001), "ipo": compared(0.1, 0.01), "oracle": compared(-0.1, 0.3)}
    paired["pref-ft"] = compared(-0.2, None)
    [found] = negatives({}, {}, Standings("fspo", paired))
    assert found == "fspo: is worse than few-shot in reward accuracy on the same pairs, by 15.0 points [10.0, 20.0]."


def test_whose_answers_stand_before_the_leads_is_said() -> None:
    rows: list[dict[str, Any]] = [
        {"method": "few-shot", "rank": 1, "ranks": "1", "estimate": estimate(*ABOVE)},
        {"method": "base", "rank": 2, "ranks": "2 to 3", "estimate": estimate(0.5, 0.5, 0.5)},
        {"method": "fspo", "rank": 3, "ranks": "2 to 3", "estimate": estimate(*BELOW)},
    ]
    said = "fspo: ranks 3 of 3 by whose answers users prefer (ranks 2 to 3 by 95 % limits), behind few-shot and base."
    assert negatives({}, {}, Standings("fspo", ranked=rows)) == [said]
    behind, below = negatives({}, {}, Standings("fspo", ranked=rows, each_other=True))
    assert behind == said
    assert "by the ranking of all of 30.0 % [20.0, 40.0] lies below 50 %" in below


def test_an_error_of_calibration_above_what_chance_gives_is_said() -> None:
    records = MappingProxyType({"fspo": {"error_by_chance": {"mean": 0.04, "high": 0.07}}})
    for value, count in ((0.1, 1), (0.06, 0)):
        error = {"fspo": {"calibration_error": Estimate(value, None, None, 30, 100)}}
        found = negatives(error, {}, Standings(calibration=records))
        assert len(found) == count
        assert not count or "of its margins, 10.0 points, is above the 7.0 that chance alone exceeds" in found[0]


def test_the_reward_whose_decisions_flip_is_named() -> None:
    row = {"fspo": {"label_flip_rate": estimate(0.3, 0.2, 0.4)}}
    [found] = negatives(row, {"rewards": {"fspo": ["antisymmetric", "reference", "likelihood"]}})
    assert "30.0 % [20.0, 40.0] of its decisions by the reference reward" in found
