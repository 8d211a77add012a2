"""Measures: which variants a method has, what the headline is, and the figures by hand."""

from __future__ import annotations

from typing import Any

import pytest

from fspo.evaluation.config import EvaluationConfig
from fspo.evaluation.metrics.reward_metrics import compute_reward_metrics
from fspo.evaluation.metrics.rewards import Rewards, decision
from fspo.evaluation.metrics.table import estimates
from fspo.evaluation.scoring.logprob_scores import Score, Scores
from fspo.evaluation.statistics.intervals import Estimate

USERS = ("ann", "bob", "cid", "dee")
ITEMS = tuple((user, f"{user}/0/{number}") for user in USERS for number in range(2))
CONFIG = EvaluationConfig(shots=2, ladder=(0, 2), queries=2)


def estimates_of(rewards: Rewards) -> dict[str, Estimate]:
    return estimates(compute_reward_metrics("x", {"x": rewards}))


def scores(context: Any, margins: dict[tuple[int, str], float]) -> Scores:
    """The same margins for every item."""
    return Scores(
        context,
        [Score(item, k, c, m, 0.0, 1, 1) for _, item in ITEMS for (k, c), m in margins.items()],  # type: ignore[arg-type]
    )


def follower() -> Scores:
    """Right with its own labels, wrong with flipped and with swapped ones, wrong without shots."""
    return scores(
        "shots",
        {(0, "own"): -1.0, (2, "own"): 3.0, (2, "flipped"): -3.0, (2, "swapped"): -2.0, (2, "swapped-flipped"): 2.0},
    )


def test_a_follower_of_labels() -> None:
    found = estimates_of(Rewards(follower(), scores("none", {(0, "own"): -1.0}), ITEMS, CONFIG))
    assert found["reward_accuracy"].value == found["reward_accuracy@2"].value == 1.0
    assert not {"reward_accuracy@0", "reward_accuracy@0/reference"} & found.keys()  # it is its own reference
    assert found["reward_accuracy@0/likelihood"].value == 0.0
    assert found["label_flip_rate"].value == found["user_swap_drop"].value == 1.0
    assert found["user_swap_drop/antisymmetric"].value == 1.0
    assert (found["reward_accuracy"].users, found["reward_accuracy"].items) == (4, 8)
    assert next(iter(found)) == "reward_accuracy"


def test_the_curve_is_on_the_same_items_at_every_shot_count() -> None:
    """A method that no shot changes anything of, right on the first query of each user alone, has a level curve."""
    right = {item: 1.0 if item.endswith("/0") else -1.0 for _, item in ITEMS}
    rows = [Score(item, k, "own", right[item], 0.0, 1, 1) for item in right for k in (0, 2)]
    config = CONFIG.model_copy(update={"ladder_queries": 1, "label_flip": False, "user_swap": False})
    found = estimates_of(Rewards(Scores("shots", rows), None, ITEMS, config))
    curve = [found[f"reward_accuracy@{k}"] for k in (0, 2)]
    assert [(e.value, e.items) for e in curve] == [(1.0, 4), (1.0, 4)]
    assert (found["reward_accuracy"].value, found["reward_accuracy"].items) == (0.5, 8)


@pytest.mark.parametrize("reduction", ["sum", "mean", "discounted"])
def test_rounding_is_no_decision(reduction: Any) -> None:
    """Without shots a prompted model is its own reference, but for the rounding of another packing."""
    config = CONFIG.model_copy(update={"reduction": reduction})

    def off_by(nats: float) -> Scores:
        return Scores("shots", [Score(item, 0, "own", -40.0 + nats, -50.0, 20, 10, 3.0 + nats) for _, item in ITEMS])

    plain = Scores("none", [Score(item, 0, "own", -40.0, -50.0, 20, 10, 3.0) for _, item in ITEMS])
    for nats, right in ((4e-4, 0.5), (-4e-4, 0.5), (0.1, 1.0), (-0.1, 0.0)):
        rewards = Rewards(off_by(nats), plain, ITEMS, config)
        assert {decision(margin) for margin in rewards.margins("reference", 0).values()} == {right}


@pytest.mark.parametrize("reduction", ["sum", "mean", "discounted"])
def test_a_reward_models_own_score_is_the_same_by_every_reduction(reduction: Any) -> None:
    assert Score("q", 2, "own", 1.5, -0.5, 1, 1).margin(reduction) == 2.0


def test_the_base_model_is_measured_by_likelihood_alone() -> None:
    found = estimates_of(Rewards(scores("none", {(0, "own"): 1.0}), None, ITEMS, CONFIG))
    assert found["reward_accuracy@2"].value == 1.0
    assert not any("flip" in name or "swap" in name or "reference" in name for name in found)


def test_the_headline_is_configurable_and_the_flip_rate_stays_the_references() -> None:
    config = CONFIG.model_copy(update={"headline_reward": "antisymmetric"})
    contents = scores("shots", {(0, "own"): 1.0, (2, "own"): 1.0, (2, "flipped"): 0.9, (2, "swapped"): 1.0})
    found = estimates_of(Rewards(contents, scores("none", {(0, "own"): 0.0}), ITEMS, config))
    assert found["reward_accuracy"] == found["reward_accuracy/antisymmetric"]
    assert found["label_flip_rate"].value == 0.0
    assert "user_swap_drop" not in found  # the swapped mirror was not scored


def test_a_missing_headline_falls_back_to_the_reference() -> None:
    config = CONFIG.model_copy(update={"headline_reward": "antisymmetric"})
    population = Rewards(scores("none", {(0, "own"): 1.0}), scores("none", {(0, "own"): 2.0}), ITEMS, config)
    assert population.variants == ("reference", "likelihood")
    assert estimates_of(population)["reward_accuracy"].value == 0.0


def test_margins_by_hand() -> None:
    def made(rows: dict[tuple[int, str], tuple[float, float]], context: Any = "shots") -> Scores:
        return Scores(context, [Score("q", k, c, *pair, 4, 2) for (k, c), pair in rows.items()])

    own = made({(2, "own"): (-4.0, -8.0), (2, "flipped"): (-6.0, -7.0), (0, "own"): (-1.0, -2.0)})
    base = made({(0, "own"): (-10.0, -11.0)}, "none")
    items = (("u", "q"), ("u", "other"))
    rewards = Rewards(own, base, items, CONFIG)

    def margin(variant: Any, k: int, condition: str = "own") -> float | None:
        return rewards.margins(variant, k, condition).get(("u", "q"))

    assert margin("likelihood", 2) == 4.0
    assert Rewards(own, base, items, CONFIG.model_copy(update={"reduction": "mean"})).margins("likelihood", 2) == {
        ("u", "q"): -1.0 + 4.0
    }
    assert margin("reference", 2) == 3.0
    assert margin("reference", 2, "flipped") == 0.0
    assert margin("antisymmetric", 2) == 1.5
    assert margin("antisymmetric", 2, "flipped") == -1.5
    assert margin("antisymmetric", 0) == 0.0
    assert margin("antisymmetric", 1) is None
    assert list(rewards.margins("reference", 2)) == [("u", "q")]


def test_no_difference_is_half_right() -> None:
    assert [decision(m) for m in (0.4, 0.0, -0.4)] == [1.0, 0.5, 0.0]
