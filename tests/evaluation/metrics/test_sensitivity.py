"""Sensitivity: what changes with the labels and with the user, and what does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fspo.evaluation.metrics.measures import mean_of
from fspo.evaluation.metrics.sensitivity import Item, flipped_decisions, swap_drops
from fspo.evaluation.scoring.logprob_scores import Condition

USERS = ("ann", "bob", "cid", "dee")
ITEMS: list[Item] = [(user, f"{user}/{number}") for user in USERS for number in range(4)]


def test_a_method_that_follows_the_labels_flips_always() -> None:
    rate = mean_of(flipped_decisions(ITEMS, lambda item, condition: 1.0 if condition == "own" else -1.0))
    assert rate is not None
    assert (rate.value, rate.users, rate.items) == (1.0, 4, 16)


def test_a_method_that_reads_contents_alone_never_flips() -> None:
    rate = mean_of(flipped_decisions(ITEMS, lambda item, condition: 0.7))
    assert rate is not None
    assert rate.value == 0.0


def test_only_correct_decisions_can_be_asked_for() -> None:
    def margins(item: str, condition: Condition) -> float:
        right = item.endswith(("0", "1"))
        own = 1.0 if right else -1.0
        return own if condition == "own" or not right else -own

    every, correct = (mean_of(flipped_decisions(ITEMS, margins, only_correct=only)) for only in (False, True))
    assert every is not None
    assert correct is not None
    assert (every.value, correct.value, correct.items) == (0.5, 1.0, 8)


def test_no_decision_is_no_flip() -> None:
    decisions = flipped_decisions(ITEMS[:1], lambda item, condition: 0.0 if condition == "own" else 1.0)
    assert list(decisions.values()) == [0.0]


def test_the_drop_is_paired_by_item() -> None:
    def margins(item: str, condition: Condition) -> float | None:
        if condition == "swapped":
            return None if item.endswith("3") else -1.0
        return -1.0 if item.endswith("3") else 1.0

    drop = mean_of(swap_drops(ITEMS, margins))
    assert drop is not None
    assert (drop.value, drop.items) == (1.0, 12)


def test_nothing_measured_is_nothing() -> None:
    assert flipped_decisions(ITEMS, lambda item, condition: 1.0 if condition == "own" else None) == {}
    assert swap_drops(ITEMS, lambda item, condition: 1.0 if condition == "own" else None) == {}


@given(st.lists(st.tuples(st.floats(-3, 3), st.floats(-3, 3)), min_size=16, max_size=16))
def test_flipping_is_symmetric(pairs: list[tuple[float, float]]) -> None:
    margins = {item: pair for (_, item), pair in zip(ITEMS, pairs, strict=True)}
    one = mean_of(flipped_decisions(ITEMS, lambda item, condition: margins[item][condition == "flipped"]))
    other = mean_of(flipped_decisions(ITEMS, lambda item, condition: margins[item][condition != "flipped"]))
    assert one is not None
    assert other is not None
    assert one.value == pytest.approx(other.value)
