"""Robustness: what hangs on the order, on the first shot and on those beyond training, by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from fspo.evaluation.config import EvaluationConfig, RobustnessConfig
from fspo.evaluation.metrics.reward_metrics import (
    compute_reward_metrics,
    order_metrics,
    robustness_metrics,
    shot_effects,
)
from fspo.evaluation.metrics.rewards import Rewards
from fspo.evaluation.metrics.table import estimates
from fspo.evaluation.scoring.logprob_scores import Score, Scores

USERS = ("ann", "bob", "cid", "dee")
ITEMS = tuple((user, f"{user}/0/{number}") for user in USERS for number in range(2))
CONFIG = EvaluationConfig(
    shots=4,
    ladder=(0, 1, 2, 4),
    queries=2,
    label_flip=False,
    robustness=RobustnessConfig(orders=1, wrong_labels=(0.25,)),
)


def rewards(
    margins: dict[tuple[int, str], float],
    context: Any = "shots",
    config: EvaluationConfig = CONFIG,
    reference: Scores | None = None,
) -> Rewards:
    """The same margins for every item; varied conditions for the first two users alone."""
    rows = [
        Score(item, k, condition, margin, 0.0, 1, 1)
        for user, item in ITEMS
        for (k, condition), margin in margins.items()
        if condition in ("own", "flipped") or user in USERS[:2]
    ]
    return Rewards(Scores(context, rows), reference, ITEMS, config)


def test_order_by_hand() -> None:
    own = {("ann", "1"): 1.0, ("ann", "2"): 1.0, ("bob", "3"): 0.0}
    others = [{("ann", "1"): 0.0, ("ann", "2"): 1.0, ("bob", "3"): 0.0}, dict.fromkeys(own, 1.0)]
    found = estimates(order_metrics(own, others))
    assert found["order_accuracy"].value == pytest.approx((2 / 3 + 1 + 1 / 3) / 3)
    assert found["order_change_rate"].value == pytest.approx((0.5 + 0 + 0.5) / 3)
    ann = math.sqrt(((1 - 5 / 6) ** 2 * 2 + (0.5 - 5 / 6) ** 2) / 3)  # accuracies 1, 1/2 and 1
    bob = math.sqrt(((1 / 3) ** 2 * 2 + (2 / 3) ** 2) / 3)
    assert found["order_spread"].value == pytest.approx((ann + bob) / 2)
    assert (found["order_spread"].users, found["order_spread"].items) == (2, 2)


def test_losses_are_on_the_items_that_were_varied() -> None:
    found = estimates(
        robustness_metrics(
            rewards({(4, "own"): 1.0, (4, "other-topics"): -1.0, (4, "wrong-labels-25"): 0.0, (4, "order-1"): -2.0})
        )
    )
    assert (found["other_topics_accuracy"].value, found["other_topics_drop"].value) == (0.0, 1.0)
    assert (found["wrong_labels_accuracy/25%"].value, found["wrong_labels_drop/25%"].value) == (0.5, 0.5)
    assert (found["order_change_rate"].value, found["order_accuracy"].value) == (1.0, 0.5)
    assert {e.items for name, e in found.items() if name != "order_spread"} == {4}


def test_an_antisymmetric_headline_is_varied_with_its_mirror() -> None:
    config = CONFIG.model_copy(update={"headline_reward": "antisymmetric", "label_flip": True})
    margins = {(4, "own"): 3.0, (4, "flipped"): 1.0, (4, "wrong-labels-25"): 3.0, (4, "wrong-labels-25-flipped"): 4.0}
    found = estimates(robustness_metrics(rewards(margins, config=config)))
    assert found["wrong_labels_drop/25%"].value == 1.0


def test_who_sees_no_shots_has_nothing_to_vary() -> None:
    blind = rewards({(0, "own"): 1.0}, "none")
    assert robustness_metrics(blind) == {}
    assert not any("gain" in measure for measure in compute_reward_metrics("x", {"x": blind}, (2,)))


def test_shots_beyond_training_are_compared_with_the_most_that_were_trained_on() -> None:
    row = rewards({(0, "own"): -1.0, (1, "own"): 1.0, (2, "own"): 1.0, (4, "own"): -1.0})
    found = estimates(compute_reward_metrics("x", {"x": row}, (1, 2)))
    assert (found["first_shot_gain"].value, found["beyond_training_gain"].value) == (1.0, -1.0)
    assert "beyond_training_gain" not in compute_reward_metrics("x", {"x": row}, (4,))
    assert "beyond_training_gain" not in compute_reward_metrics("x", {"x": row})


def plain(margin: float, context: Any = "none") -> Scores:
    return Scores(context, [Score(item, 0, "own", margin, 0.0, 1, 1) for _, item in ITEMS])


MIRRORED = CONFIG.model_copy(update={"headline_reward": "antisymmetric", "label_flip": True})
FOLLOWER = {(0, "own"): 1.0, (1, "own"): 2.0, (1, "flipped"): 1.0, (4, "own"): 2.0, (4, "flipped"): 1.0}


@pytest.mark.parametrize(
    ("reference", "gain"),
    [
        (None, 0.0),  # nothing to be measured against: by the likelihood, which is right without shots
        (plain(3.0), 0.0),  # the same weights without context: the same, for their reward is 0 by construction
        (plain(3.0, "shots"), 1.0),  # the weights it started from: by the reference reward, which is wrong
    ],
)
def test_an_antisymmetric_reward_is_compared_with_one_that_can_tell_without_shots(
    reference: Scores | None, gain: float
) -> None:
    row = rewards(FOLLOWER, config=MIRRORED, reference=reference)
    found = estimates(compute_reward_metrics("x", {"x": row}))
    assert row.headline == "antisymmetric"
    assert (found["first_shot_gain"].value, found["gain_over_no_context"].value) == (gain, gain)
    assert not {"reward_accuracy@0", "reward_accuracy@0/antisymmetric"} & found.keys()  # no 50% as if measured
    assert found["reward_accuracy@1"].value == 1.0


def test_gains_over_baselines_are_paired_on_the_same_items() -> None:
    rows = {
        "fspo": rewards({(0, "own"): 0.0, (4, "own"): 1.0}),
        "ipo": rewards({(0, "own"): -1.0}, "none"),
        "oracle": rewards({(0, "own"): 1.0}, "description"),
    }
    found = estimates(compute_reward_metrics("fspo", rows))
    assert {name: estimate.value for name, estimate in found.items() if name.startswith("gain")} == {
        "gain_over_no_context": 0.5,
        "gain_over_population": 1.0,
        "gain_over_oracle": 0.0,
    }
    others = compute_reward_metrics("ipo", rows)
    assert {name for name in others if "gain" in name} == {"gain_over_oracle"}


def test_one_shot_that_is_read_has_one_effect_and_all_of_them_have_equal_ones() -> None:
    config = CONFIG.model_copy(update={"label_flip": True, "robustness": RobustnessConfig(single_shots=True)})
    one = {1: -3.0, 2: 3.0, 3: 3.0, 4: 3.0}  # margins where the first shot alone is read
    each = dict.fromkeys(range(1, 5), 1.5)
    for varied, effects in ((one, [3.0, 0.0, 0.0, 0.0]), (each, [0.75] * 4)):
        margins = {(4, f"one-wrong-{place}"): margin for place, margin in varied.items()}
        found = estimates(shot_effects(rewards({(4, "own"): 3.0, (4, "flipped"): -3.0} | margins, config=config)))
        assert [found[f"shot_effect/{place}"].value for place in range(1, 5)] == effects
        assert found["shot_effect/all"].value == 3.0 and found["shot_effect/all"].items == 4


def test_single_shots_cost_nothing_where_they_are_not_wanted() -> None:
    assert not RobustnessConfig().single_shots
    found = robustness_metrics(rewards({(4, "own"): 3.0, (4, "one-wrong-1"): -3.0}))
    assert not [measure for measure in found if measure.startswith("shot_effect")]
