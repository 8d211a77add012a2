"""Sensitivity: what changes with the labels and with the user, and what does not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fspo.evaluation.config import EvaluationConfig
from fspo.evaluation.metrics.reward_metrics import compute_reward_metrics, label_flips
from fspo.evaluation.metrics.rewards import Rewards
from fspo.evaluation.metrics.table import Column
from fspo.evaluation.scoring.eval_episodes import Condition, Item
from fspo.evaluation.scoring.logprob_scores import Score, Scores
from fspo.evaluation.statistics.intervals import Estimate

USERS = ("ann", "bob", "cid", "dee")
ITEMS: list[Item] = [(user, f"{user}/{number}") for user in USERS for number in range(4)]
CONFIG = EvaluationConfig(shots=2, ladder=(), queries=4)


def rewards(margins: Callable[[str, Condition], float | None]) -> Rewards:
    found = {(item, c): margins(item, c) for _, item in ITEMS for c in ("own", "flipped", "swapped")}
    rows = [Score(item, 2, c, margin, 0.0, 1, 1) for (item, c), margin in found.items() if margin is not None]
    return Rewards(Scores("shots", rows), None, tuple(ITEMS), CONFIG)


def rate(column: Column) -> Estimate:
    found = column.estimate()
    assert found is not None
    return found


def test_a_method_that_follows_the_labels_flips_always() -> None:
    found = rate(label_flips(rewards(lambda item, condition: 1.0 if condition == "own" else -1.0)))
    assert (found.value, found.users, found.items) == (1.0, 4, 16)


def test_a_method_that_reads_contents_alone_never_flips() -> None:
    assert rate(label_flips(rewards(lambda item, condition: 0.7))).value == 0.0


def test_only_correct_decisions_can_be_asked_for() -> None:
    def margins(item: str, condition: Condition) -> float:
        right = item.endswith(("0", "1"))
        own = 1.0 if right else -1.0
        return own if condition == "own" or not right else -own

    every, correct = (rate(label_flips(rewards(margins), only_correct=only)) for only in (False, True))
    assert (every.value, correct.value, correct.items) == (0.5, 1.0, 8)


def test_no_decision_is_no_flip() -> None:
    decisions = label_flips(rewards(lambda item, condition: 0.0 if condition == "own" else 1.0))
    assert set(decisions.of.values()) == {0.0}


def drops(margins: Callable[[str, Condition], float | None]) -> Column:
    return compute_reward_metrics("x", {"x": rewards(margins)})["user_swap_drop/likelihood"]


def test_the_drop_is_paired_by_item() -> None:
    def margins(item: str, condition: Condition) -> float | None:
        if condition == "swapped":
            return None if item.endswith("3") else -1.0
        return -1.0 if item.endswith("3") else 1.0

    drop = rate(drops(margins))
    assert (drop.value, drop.items) == (1.0, 12)


def test_nothing_measured_is_nothing() -> None:
    assert label_flips(rewards(lambda item, condition: 1.0 if condition == "own" else None)).of == {}
    assert drops(lambda item, condition: 1.0 if condition == "own" else None).of == {}


@given(st.lists(st.tuples(st.floats(-3, 3), st.floats(-3, 3)), min_size=16, max_size=16))
def test_flipping_is_symmetric(pairs: list[tuple[float, float]]) -> None:
    margins = {item: pair for (_, item), pair in zip(ITEMS, pairs, strict=True)}
    one = rate(label_flips(rewards(lambda item, condition: margins[item][condition == "flipped"])))
    other = rate(label_flips(rewards(lambda item, condition: margins[item][condition != "flipped"])))
    assert one.value == pytest.approx(other.value)
