"""Evaluation of policies that adapt to each user by code of their own."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from fspo.evaluation.scoring.weights import Weights
from fspo.files import read_json, read_jsonl
from fspo.methods.adaptation import AdaptationRow
from fspo.methods.policies.ttt import TestTimeTraining
from tests.evaluation.running import CONFIG, runner

TTT = AdaptationRow("ttt", TestTimeTraining, {"steps": 2, "learning_rate": 0.01, "episodes": "bare"})


@pytest.fixture(scope="module")
def measured(tiny_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """An evaluation of the base model with shots, and of the same with steps on these."""
    out = tmp_path_factory.mktemp("adapted")
    run = runner(tiny_model_path, {"base": None, "few-shot": None, "ttt": None}, out)
    run(adaptations={"ttt": TTT})
    return run, out


def test_every_measure_of_a_policy_that_sees_shots_is_there(measured: tuple[Any, Path]) -> None:
    metrics = read_json(measured[1] / "metrics.json")
    assert metrics["few-shot"].keys() - {"win_rate/guided"} <= metrics["ttt"].keys() | {
        name for name in metrics["few-shot"] if "guided" in name
    }
    assert {"reward_accuracy@1", "reward_accuracy@2", "label_flip_rate", "user_swap_drop", "win_rate"} <= set(
        metrics["ttt"]
    )


def test_a_policy_without_steps_scores_like_the_shots_in_context(
    measured: tuple[Any, Path], tiny_model_path: Path, tmp_path: Path
) -> None:
    run, _ = measured
    metrics = run(out=tmp_path, adaptations={"ttt": AdaptationRow("ttt", TestTimeTraining, {"steps": 0})})
    for name in ("reward_accuracy", "reward_accuracy@1", "label_flip_rate", "user_swap_drop"):
        assert metrics["ttt"][name] == metrics["few-shot"][name]
    answers = {name: read_jsonl(tmp_path / name / "answers.jsonl") for name in ("few-shot", "ttt")}
    assert all(row["sampling"] == "plain" for row in answers["ttt"])


def test_scores_change_with_labels_and_users(measured: tuple[Any, Path]) -> None:
    rows = [score for row in read_jsonl(measured[1] / "ttt" / "margins.jsonl") for score in row["rows"]]
    by_condition = {(row["item"], row["k"], row["condition"]): row["chosen"] for row in rows}
    full = {key: value for key, value in by_condition.items() if key[1] == CONFIG.shots}
    for item in {key[0] for key in full}:
        values = [full[item, CONFIG.shots, name] for name in ("own", "flipped", "swapped")]
        assert len({round(value, 4) for value in values}) == 3
    assert {k for _, k, condition in by_condition if condition == "own"} == {0, 1, 2}


def test_what_a_user_costs_is_on_record(measured: tuple[Any, Path]) -> None:
    costs = read_json(measured[1] / "details.json")["costs"]
    assert costs["ttt"]["user_seconds"] > 0
    assert costs["ttt"]["bytes_per_user"] == costs["few-shot"]["bytes_per_user"] + 4 * costs["ttt"]["numbers_per_user"]


def test_other_settings_are_other_scores(tiny_model_path: Path) -> None:
    def key(row: AdaptationRow) -> str:
        weights = Weights(
            str(tiny_model_path), {"ttt": None}, dtype="float32", max_length=None, adaptations={row.name: row}
        )
        return weights.of("ttt").key

    assert key(TTT) == key(dataclasses.replace(TTT))
    assert key(TTT) != key(AdaptationRow("ttt", TestTimeTraining, {**TTT.given, "steps": 3}))
