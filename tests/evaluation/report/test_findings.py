"""Every figure that misses its threshold is listed, whichever method it is of, in the unit that it is in."""

from __future__ import annotations

from typing import Any

import pytest

from fspo.evaluation.artifacts import CalibrationRecord, ErrorByChance
from fspo.evaluation.report.findings import RULES, Finding, Rule, Standings, findings
from fspo.evaluation.report.formatting import amount
from fspo.evaluation.statistics.comparing import Comparison
from fspo.evaluation.statistics.intervals import Estimate
from tests.evaluation.report.rendering import caveats, headline

ABOVE, LEVEL, BELOW = ((0.7, 0.6, 0.8), (0.52, 0.4, 0.64), (0.3, 0.2, 0.4))
GAINED, NEITHER, LOST = ((0.2, 0.1, 0.3), (0.02, -0.05, 0.09), (-0.2, -0.3, -0.1))
MINUS = "\N{MINUS SIGN}"


def estimate(value: float, low: float, high: float, users: int = 30) -> Estimate:
    return Estimate(value, low, high, users, 100)


def of(measure: str, value: tuple[float, float, float], method: str = "fspo") -> list[Finding]:
    return findings({method: {measure: estimate(*value)}}, {})


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.family)
def test_every_rule_lists_what_misses_its_threshold_and_nothing_else(rule: Rule) -> None:
    shown = {"label_flip_rate": estimate(0.9, 0.8, 1.0)}  # a method that sees shots
    for place, value in (
        ("below", rule.threshold - 0.2),
        ("not distinguishable", rule.threshold),
        ("above", rule.threshold + 0.2),
    ):
        found = findings({"mine": shown | {rule.family: estimate(value, value - 0.05, value + 0.05)}}, {})
        missed = place == "above" if rule.good == "not above" else place != "above"
        assert [row.outcome for row in found] == ([place] if missed else [])
        for row in found:
            assert row.what.startswith(rule.label)
            assert row.value.startswith(amount(value, rule.unit))
        assert of(rule.family, (value, value - 0.05, value + 0.05), "base") == []  # the yardstick


@pytest.mark.parametrize(
    ("measure", "value", "said"),
    [
        ("win_rate_by/other/plain", BELOW, "by another judge (other, plain)"),
        ("win_rate_matched/plain", LEVEL, "matched answer (plain)"),
        ("overconfidence/fitted", GAINED, "(fitted margins)"),
        ("wrong_labels_drop/25%", GAINED, "wrong labels (25%)"),
        ("tax_general/bare", GAINED, "(without any shot)"),
        ("tax_open/training", GAINED, "against the untrained weights"),
        ("tax_refusal/injected", GAINED, "in the shots"),
    ],
)
def test_a_variant_is_named(measure: str, value: tuple[float, float, float], said: str) -> None:
    [found] = of(measure, value)
    assert said in found.what


def test_no_variant_is_hidden_by_the_choice_of_a_headline() -> None:
    wins = {"win_rate": estimate(*ABOVE), "win_rate/guided": estimate(*ABOVE)}
    [found] = findings({"fspo": {**wins, "win_rate/plain": estimate(0.6, 0.49, 0.7)}}, {})
    assert found.what == "win rate (plain)"
    assert (found.value, found.threshold) == ("60.0% [49.0, 70.0]", "50%")
    assert of("win_rate/plain@2", LEVEL) == []  # a rung of a curve


def test_a_figure_without_an_interval_clears_no_threshold() -> None:
    [found] = findings({"fspo": {"reward_accuracy": Estimate(0.8, None, None, 2, 9)}}, {})
    assert (found.value, found.outcome) == ("80.0%", "no interval")
    assert findings({"fspo": {"tax_general": Estimate(0.2, None, None, 2, 9)}}, {}) == []


def test_only_methods_that_see_the_shots_fall_short_of_an_observer_of_them() -> None:
    row = {"shortfall": estimate(*GAINED)}
    assert findings({"oracle": row, "ipo": row, "mine": row}, {}) == []
    assert len(findings({"mine": row}, {"rewards": {"mine": ["score", "antisymmetric"]}})) == 1
    assert len(findings({"fspo": row}, {})) == 1


def compared(difference: float, adjusted: float | None) -> Comparison:
    low, high = (None, None) if adjusted is None else (difference - 0.05, difference + 0.05)
    return Comparison(Estimate(difference, low, high, 30, 100), adjusted, adjusted)


def test_methods_that_beat_the_lead_are_listed() -> None:
    paired = {"few-shot": compared(-0.15, 0.001), "ipo": compared(0.1, 0.01), "oracle": compared(-0.1, 0.3)}
    paired["pref-ft"] = compared(-0.2, None)
    [found] = findings({}, {}, Standings("fspo", paired))
    assert found.method == "fspo" and "few-shot" in found.what
    assert found.value == f"{MINUS}15.0 points [{MINUS}20.0, {MINUS}10.0]"


def test_answers_that_rank_before_the_leads_are_listed() -> None:
    rows: list[dict[str, Any]] = [
        {"method": "few-shot", "rank": 1, "ranks": "1", "estimate": estimate(*ABOVE)},
        {"method": "base", "rank": 2, "ranks": "2 to 3", "estimate": estimate(0.5, 0.5, 0.5)},
        {"method": "fspo", "rank": 3, "ranks": "2 to 3", "estimate": estimate(*BELOW)},
    ]
    [behind] = findings({}, {}, Standings("fspo", ranked=rows))
    assert (behind.value, behind.outcome) == ("3 of 3 [2 to 3]", "behind few-shot and base")
    again, below = findings({}, {}, Standings("fspo", ranked=rows, each_other=True))
    assert again == behind
    assert (below.value, below.threshold, below.outcome) == ("30.0% [20.0, 40.0]", "50%", "below")


def test_an_error_of_calibration_above_what_chance_gives_is_listed() -> None:
    records = {"fspo": CalibrationRecord(error_by_chance=ErrorByChance(mean=0.04, high=0.07))}
    for value, count in ((0.1, 1), (0.06, 0)):
        error = {"fspo": {"calibration_error": Estimate(value, None, None, 30, 100)}}
        found = findings(error, {}, Standings(calibration=records))
        assert len(found) == count
        assert not count or (found[0].value, found[0].threshold[:10]) == ("10.0 points", "7.0 points")


def test_the_reward_whose_decisions_flip_is_named() -> None:
    row = {"fspo": {"label_flip_rate": estimate(0.3, 0.2, 0.4)}}
    [found] = findings(row, {"rewards": {"fspo": ["antisymmetric", "reference", "likelihood"]}})
    assert "(reference reward)" in found.what


def test_counts_of_what_failed_are_listed() -> None:
    counts = {"items": 9, "inconsistent": 1, "unreadable": 2, "refused": 3, "base_below_floor": 4, "below_floor": 5}
    details = {"dropped_shots": {"fspo": 2, "ipo": 0}, "judgements": {"fspo, plain": counts}}
    found = findings({}, details)
    assert [row.value for row in found] == ["2", "1 of 9", "2 of 9", "3 of 9", "4 of 9", "5 of 9"]
    assert findings({}, {"judgements": {"fspo, plain": {"items": 9}}}) == []


def test_the_first_sentence_names_its_variants() -> None:
    metrics = {"fspo": {"reward_accuracy": estimate(0.8, 0.7, 0.9), "win_rate": estimate(0.7, 0.6, 0.8)}}
    said = headline(metrics, "fspo", {"reward": "antisymmetric", "sampling": "guided"})
    assert "of held-out pairs by the antisymmetric reward" in said
    assert "answer with guided sampling" in said


def test_few_users_are_a_caveat() -> None:
    few = {"fspo": {"reward_accuracy": estimate(0.8, 0.7, 0.9, users=5)}}
    assert any("5 users" in sentence for sentence in caveats(few, {}))
    assert not any("5 users" in sentence for sentence in caveats({}, {}))
    assert headline({}, "fspo", {}) == ""


def test_shared_questions_are_a_caveat_where_there_are_any() -> None:
    for shared, said in ((3, "share 3 held-out questions;"), (1, "share 1 held-out question;"), (None, "may share")):
        assert any(said in sentence for sentence in caveats({}, {}, shared))
    assert not any("question" in sentence for sentence in caveats({}, {}, 0))


def test_readers_of_answers_are_told_with_what_they_read_and_whom_they_leave_out() -> None:
    reading = {"questions": 20, "pairs": 336, "balanced": 0.7}
    details = {
        "judge_kind": "declared",
        "readers": {"length": reading | {"ordered": 1.0}, "sentiment": reading | {"ordered": 0.744}},
        "users": 24,
        "unjudged_users": 16,
    }
    won = {"fspo": {"win_rate": Estimate(0.6, 0.5, 0.7, 8, 16)}}
    (said,) = [sentence for sentence in caveats(won, details) if "readers" in sentence]
    assert "sentiment 74.4% of 336" in said and "16 of 24 users" in said and "less than 80% of pairs" in said
    assert not [sentence for sentence in caveats({}, details) if "readers" in sentence]
