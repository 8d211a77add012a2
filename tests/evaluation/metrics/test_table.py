"""Values by item: the estimate, each user's own figure, and what is said where there is no interval."""

from __future__ import annotations

import pytest

from fspo.evaluation.artifacts import UserMean
from fspo.evaluation.config import EvaluationConfig
from fspo.evaluation.judges.win_rates import Answer, JudgedAnswer
from fspo.evaluation.metrics.answer_metrics import win_rates
from fspo.evaluation.metrics.reward_metrics import compute_reward_metrics
from fspo.evaluation.metrics.rewards import Rewards
from fspo.evaluation.metrics.table import Column, Table, compare_tables, estimates, missing_interval_note, per_user
from fspo.judging.verdicts import Judgement, Preferred
from tests.evaluation.metrics.test_rewards import ITEMS as RATED
from tests.evaluation.metrics.test_rewards import scores

ITEMS = {("ann", "1"): 1.0, ("ann", "2"): 0.0, ("bob", "3"): 1.0, ("cid", "4"): 0.5}


def test_a_figure_for_all_and_one_for_each() -> None:
    measured = {"x": Column(ITEMS), "nothing": Column({})}
    assert estimates(measured)["x"].value == pytest.approx(2.5 / 4)
    assert set(estimates(measured)) == set(per_user(measured)) == {"x"}
    assert per_user(measured)["x"]["ann"] == UserMean(value=0.5, items=2)


def test_differences_are_of_the_items_both_have() -> None:
    other = {("ann", "1"): 0.0, ("bob", "3"): 1.0, ("dee", "5"): 1.0}
    assert (Column(ITEMS) - Column(other)).of == {("ann", "1"): 1.0, ("bob", "3"): 0.0}


def test_too_few_users_are_told_and_have_no_interval() -> None:
    few = Column({item: value for item, value in ITEMS.items() if item[0] != "cid"}).estimate()
    enough = Column(ITEMS).estimate()
    assert few is not None
    assert enough is not None
    assert (few.low, few.high) == (None, None)
    assert enough.low is not None
    assert "2 users, at least 3 are needed" in missing_interval_note([("few", few), ("enough", enough)])
    assert missing_interval_note([("enough", enough)]) == ""
    assert " for label flip rate (correct): " in missing_interval_note([("label_flip_rate/correct", few)])
    many = missing_interval_note((name, few) for name in ("one", "two", "three", "four", "one"))
    assert many == "No interval for one, two, three and 1 more: 2 users, at least 3 are needed."


CONFIG = EvaluationConfig(shots=2, ladder=(0, 2), queries=2, headline_reward="antisymmetric")


def rewards(context: str, margins: dict[tuple[int, str], float]) -> Rewards:
    return Rewards(scores(context, margins), scores("none", {(0, "own"): 0.0}), RATED, CONFIG)  # type: ignore[arg-type]


def judged(preferred: Preferred) -> list[JudgedAnswer]:
    drawn = [Answer("m", "plain", item, user, "p", "x") for user, item in RATED]
    return [JudgedAnswer(one, one, Judgement.agreed(preferred)) for one in drawn]


def test_like_is_compared_with_like() -> None:
    rows = {
        "few-shot": rewards("shots", {(0, "own"): 1.0, (2, "own"): -1.0, (2, "flipped"): 1.0}),
        "ipo": rewards("none", {(0, "own"): -1.0}),
        "fspo": rewards("shots", {(0, "own"): 1.0, (2, "own"): 1.0, (2, "flipped"): -1.0}),
    }
    tables: dict[str, Table] = {name: compute_reward_metrics(name, rows) for name in rows}
    for name, sampling, outcome in (
        ("few-shot", "plain", "tie"),
        ("ipo", "plain", "second"),
        ("fspo", "plain", "first"),
        ("fspo", "guided", "first"),
    ):
        tables[name] |= win_rates(judged(outcome), sampling, headline=False)  # type: ignore[arg-type]
    samplings = {"few-shot": "plain", "ipo": "plain", "fspo": "guided"}
    headlines = {"reward_accuracy": {name: row.headline for name, row in rows.items()}, "win_rate": samplings}
    found = compare_tables("fspo", tables, headlines)
    assert list(found) == ["few-shot", "ipo"]
    assert found["few-shot"]["reward_accuracy"] == found["few-shot"]["reward_accuracy/antisymmetric"]
    assert found["few-shot"]["reward_accuracy"].value == pytest.approx(1.0)
    assert found["ipo"]["reward_accuracy/reference"].value == pytest.approx(1.0)
    assert found["ipo"]["win_rate/plain"].value == pytest.approx(1.0)
    assert found["few-shot"]["win_rate/plain"].value == pytest.approx(0.5)
    # The headlines are of different variants.
    assert "reward_accuracy" not in found["ipo"]
    assert not {"win_rate", "win_rate/guided"} & (found["ipo"].keys() | found["few-shot"].keys())
