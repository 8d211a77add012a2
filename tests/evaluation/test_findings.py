"""What is said first, and what the figures can't say."""

from __future__ import annotations

from fspo.evaluation.findings import caveats, headline
from fspo.evaluation.statistics import Estimate


def estimate(value: float, low: float, high: float, users: int = 30) -> Estimate:
    return Estimate(value, low, high, users, 100)


def test_the_first_sentence_names_its_variants() -> None:
    metrics = {"fspo": {"reward_accuracy": estimate(0.8, 0.7, 0.9), "win_rate": estimate(0.7, 0.6, 0.8)}}
    said = headline(metrics, "fspo", {"reward": "antisymmetric", "sampling": "guided"})
    assert "of held-out pairs by the antisymmetric reward" in said
    assert "answer with guided sampling" in said


def test_few_users_are_a_caveat() -> None:
    few = {"fspo": {"reward_accuracy": estimate(0.8, 0.7, 0.9, users=5)}}
    assert any("5 users" in sentence for sentence in caveats(few, {}))
    assert not any("rest on" in sentence for sentence in caveats({}, {}))
    assert headline({}, "fspo") == ""


def test_shared_questions_are_a_caveat_where_there_are_any() -> None:
    for shared, said in ((3, "3 held-out questions were asked"), (1, "1 held-out question was"), (None, "may share")):
        assert any(said in sentence for sentence in caveats({}, {}, "", shared))
    assert not any("question" in sentence for sentence in caveats({}, {}, "", 0))
