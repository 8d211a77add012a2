"""Measures of answers: win rates with and without floors, and what needs no judge."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fspo.evaluation.config import Floors
from fspo.evaluation.judges.answer_quality import Quality
from fspo.evaluation.judges.win_rates import Answer, JudgedAnswer
from fspo.evaluation.metrics.answer_metrics import quality_metrics, win_rates
from fspo.evaluation.metrics.table import estimates
from fspo.judging.verdicts import Judgement
from tests.evaluation.metrics.test_rewards import ITEMS


def test_win_rates_by_hand() -> None:
    won, floor = Judgement.agreed("first"), ("words",)
    drawn = [Answer("m", "guided", item, user, "p", "x") for user, item in ITEMS]
    rows = [JudgedAnswer(one, one, won, floor if one.item.endswith("0") else ()) for one in drawn]
    found = estimates(win_rates(rows, "guided", headline=True))
    assert found["win_rate"] == found["win_rate/guided"]
    assert (found["win_rate/guided"].value, found["win_rate_without_floors/guided"].value) == (0.5, 1.0)
    assert "win_rate" not in win_rates(rows, "plain", headline=False)


def test_quality_is_averaged_beside_the_floors() -> None:
    fine = Quality(log_prob=-2.0, distinct=0.9, compression=0.8, overlap=0.5, closeness=0.4, words=12)
    low = replace(fine, distinct=0.1)
    qualities = {item: low if item.endswith("0") else fine for _, item in ITEMS}
    answers = [Answer("m", "plain", item, user, "p", "x", finished=item.endswith("0")) for user, item in ITEMS]
    found = estimates(quality_metrics(answers, qualities, Floors(), "plain"))
    assert found["unfinished/plain"].value == 0.5
    assert found["fluency/plain"].value == pytest.approx(-2.0)
    assert found["distinct/plain"].value == pytest.approx(0.5)
    assert (found["words/plain"].value, found["below_floor/plain"].value) == (12.0, 0.5)
