"""All figures of a method: what ties by construction is left out, and what merely came out alike leaves doubt."""

from __future__ import annotations

from fspo.evaluation.config import EvaluationConfig, RobustnessConfig
from fspo.evaluation.metrics.reward_metrics import compute_reward_metrics
from fspo.evaluation.metrics.rewards import Rewards
from fspo.evaluation.metrics.table import estimates
from fspo.evaluation.scoring.logprob_scores import Condition, Score, Scores

ITEMS = tuple((f"u{user}", f"u{user}/0/{number}") for user in range(6) for number in range(2))
CONFIG = EvaluationConfig(
    shots=2,
    ladder=(0, 1, 2),
    queries=2,
    headline_reward="antisymmetric",
    user_swap=False,
    robustness=RobustnessConfig(orders=0, wrong_labels=()),
)


def test_the_antisymmetric_reward_is_not_measured_without_shots_and_with_them_ties_leave_doubt() -> None:
    """Labels change nothing either: with shots the same ties are what was found, of six users."""
    conditions: tuple[Condition, ...] = ("own", "flipped")
    rows = [Score(item, k, cond, 1.0, 0.0, 1, 1) for _, item in ITEMS for k in (0, 1, 2) for cond in conditions]
    rewards = {"fspo": Rewards(Scores("shots", rows), None, ITEMS, CONFIG)}
    found = estimates(compute_reward_metrics("fspo", rewards))
    assert not {"reward_accuracy@0", "reward_accuracy@0/antisymmetric"} & found.keys()
    at_full = found["reward_accuracy/antisymmetric"]
    assert at_full.value == 0.5
    assert at_full.low is not None
    assert at_full.low < 0.3
    plain = found["reward_accuracy@0/likelihood"]
    assert plain.low is not None
    assert plain.low < plain.value == 1
