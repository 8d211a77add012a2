from __future__ import annotations

import pytest

from fspo.evaluation.config import EvaluationConfig
from fspo.evaluation.judges.win_rates import JudgedAnswer
from fspo.evaluation.metrics.answer_metrics import win_rates
from fspo.evaluation.metrics.comparisons import compare_tables
from fspo.evaluation.metrics.reward_metrics import compute_reward_metrics
from fspo.evaluation.metrics.rewards import Rewards
from fspo.evaluation.metrics.table import Table
from fspo.judging.verdicts import Judgement, Preferred
from tests.evaluation.metrics.test_rewards import ITEMS, scores

CONFIG = EvaluationConfig(shots=2, ladder=(0, 2), queries=2, headline_reward="antisymmetric")


def rewards(context: str, margins: dict[tuple[int, str], float]) -> Rewards:
    return Rewards(scores(context, margins), scores("none", {(0, "own"): 0.0}), ITEMS, CONFIG)  # type: ignore[arg-type]


def judged(preferred: Preferred) -> list[JudgedAnswer]:
    return [JudgedAnswer(item, user, Judgement.agreed(preferred)) for user, item in ITEMS]


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
