"""Is the instrument to be believed? Reward models known to be right, deaf or cheating must come out as such."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fspo.evaluation.config import RobustnessConfig
from fspo.files import read_json
from tests.evaluation.helpers import small_dataset
from tests.evaluation.scoring.reward_models.helpers import CONFIG, Instrument, evaluated

DATASET = small_dataset("test", questions=24)
VARIED = CONFIG.model_copy(update={"robustness": RobustnessConfig(users=None, queries=None, orders=3)})
Metrics = dict[str, dict[str, dict[str, Any]]]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("evaluation")


@pytest.fixture(scope="module")
def metrics(out: Path) -> Metrics:
    models = Instrument(DATASET)
    return evaluated(out, DATASET, VARIED, knows=models.knows, memorises=models.memorises, ignores=models.ignores)


def test_one_that_knows_the_true_reward_is_always_right_and_always_follows_the_labels(metrics: Metrics) -> None:
    row = metrics["knows"]
    assert row["reward_accuracy"]["value"] == 1.0
    assert row["label_flip_rate"]["value"] == row["label_flip_rate/correct"]["value"] == 1.0
    assert row["reward_accuracy/antisymmetric"]["value"] == 1.0
    assert row["user_swap_drop"]["value"] > 0.3
    assert row["regret"]["value"] == row["regret_share"]["value"] == 0.0
    assert row["order_change_rate"]["value"] == row["order_spread"]["value"] == 0.0
    assert row["wrong_labels_drop/25%"]["value"] == 0.0  # one wrong label of four is outvoted
    assert row["reward_accuracy@0"]["value"] == 0.5
    assert row["first_shot_gain"]["value"] == row["gain_over_no_context"]["value"] == 0.5


def test_one_that_ignores_the_shots_never_flips_and_loses_nothing_to_a_swap(metrics: Metrics) -> None:
    row = metrics["ignores"]
    assert row["label_flip_rate"]["value"] == 0.0
    assert row["user_swap_drop"]["value"] == 0.0
    assert row["user_swap_drop"]["low"] <= 0.0 <= row["user_swap_drop"]["high"]  # wide: four users
    assert row["reward_accuracy/antisymmetric"]["value"] == 0.5
    assert {row[f"reward_accuracy@{k}"]["value"] for k in (0, 1, 2, 4)} == {row["reward_accuracy"]["value"]}
    for measure in ("wrong_labels_drop/25%", "order_change_rate", "first_shot_gain", "gain_over_no_context"):
        assert row[measure]["value"] == 0.0, measure


def test_one_that_memorises_contents_is_exposed_by_the_flip_rate_alone(metrics: Metrics) -> None:
    row = metrics["memorises"]
    assert row["reward_accuracy"]["value"] == 1.0
    assert row["user_swap_drop"]["value"] > 0.3  # whose contents they are is all that it goes by
    assert row["label_flip_rate"]["value"] == row["label_flip_rate/correct"]["value"] == 0.0
    assert row["reward_accuracy/antisymmetric"]["value"] == 0.5


def test_no_measure_is_of_fewer_items_than_it_says(metrics: Metrics) -> None:
    for name, row in metrics.items():
        for measure, record in row.items():
            if measure == "label_flip_rate/correct":
                continue  # of those that were right
            assert record["users"] == 4, (name, measure)
            assert record["items"] == (4 if measure == "order_spread" else 24), (name, measure)


def test_per_user_figures_average_to_the_whole(metrics: Metrics, out: Path) -> None:
    for name, measures in read_json(out / "per_user.json").items():
        for measure, users in measures.items():
            if measure == "regret_share":
                continue  # a ratio: each user's is over the user's own stakes
            items = sum(user["items"] for user in users.values())
            mean = sum(user["value"] * user["items"] for user in users.values()) / items
            assert mean == pytest.approx(metrics[name][measure]["value"], abs=1e-9), (name, measure)


def test_the_observer_is_measured_on_the_same_items_and_nobody_who_reads_labels_beats_it_by_much(
    metrics: Metrics, out: Path
) -> None:
    observer = read_json(out / "observer.json")
    assert observer["reward_accuracy@4"]["items"] == 24
    shortfall = observer["reward_accuracy@4"]["value"] - metrics["ignores"]["reward_accuracy@4"]["value"]
    assert metrics["ignores"]["shortfall@4"]["value"] == pytest.approx(shortfall)
    assert metrics["ignores"]["shortfall"] == metrics["ignores"]["shortfall@4"]
    assert observer["wrong_labels_accuracy/25%"]["value"] <= observer["reward_accuracy@4"]["value"]
    assert observer["regret"]["value"] <= metrics["ignores"]["regret"]["value"]


def test_reward_models_are_compared_on_the_same_pairs(metrics: Metrics, out: Path) -> None:
    compared = read_json(out / "comparisons.json")
    assert set(compared) == {"knows", "memorises"}
    difference = metrics["ignores"]["reward_accuracy"]["value"] - metrics["knows"]["reward_accuracy"]["value"]
    assert compared["knows"]["reward_accuracy"]["value"] == pytest.approx(difference)
    details = read_json(out / "details.json")
    assert details["rewards"]["knows"] == ["score", "antisymmetric"]
    assert details["robustness"] == {
        "users": 4, "pairs": 24, "other_topics_users": 0, "wrong_labels": {"25%": 1}, "orders": 3,
    }  # fmt: skip
