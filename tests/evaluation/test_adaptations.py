"""Evaluation of policies that adapt to each user by code of their own."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from fspo.evaluation.config import RobustnessConfig
from fspo.evaluation.context import Evaluation
from fspo.evaluation.scoring.eval_episodes import build_trials
from fspo.evaluation.scoring.weights import Weights
from fspo.evaluation.scoring_stage import ScoringStage
from fspo.files import read_json, read_jsonl
from fspo.methods.adaptation import AdaptationRow
from fspo.methods.adapted_policy import AdaptedPolicy
from fspo.methods.policies.ttt import TestTimeTraining
from fspo.methods.table import ADAPTATIONS
from fspo.progress import Silent
from tests.evaluation.helpers import small_dataset
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
    metrics = run(
        CONFIG.model_copy(update={"robustness": RobustnessConfig(users=0)}),
        tmp_path,
        policies={"few-shot": None, "ttt": None},
        adaptations={"ttt": AdaptationRow("ttt", TestTimeTraining, {"steps": 0})},
    )
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


@pytest.mark.parametrize(("name", "start"), [("ttt", "fspo"), ("steering", "fspo"), ("summary", "fspo"), ("ttt", "")])
def test_a_reward_in_python_is_that_of_the_evaluation(
    policies: dict[str, Path | None], tiny_model_path: Path, tmp_path: Path, name: str, start: str
) -> None:
    """Of a policy that sees the shots, nothing, or a text that it writes; of trained weights and of a model."""
    rows = {name: AdaptationRow(name, ADAPTATIONS[name], {"steps": 2} if name == "ttt" else {})}
    given = {"users": 1, "ladder": (), "label_flip": False, "user_swap": False, "answers": 0}
    config = CONFIG.model_copy(update=given)
    test = small_dataset("test")
    (trial,) = build_trials(test, config)
    place = policies.get(start)
    weights = Weights(str(tiny_model_path), {name: place}, dtype="float32", max_length=None, adaptations=rows)
    stage = ScoringStage(Evaluation(config, test, [trial], [name], weights, tmp_path, Silent()))
    stage.describe([name])
    for source, views in stage.wanted([name]).items():
        stage.score(source, views)
    measured = stage.rewards(name).margins("reference", config.shots)
    policy = AdaptedPolicy.adapt(place or tiny_model_path, name, rows[name].given)
    for number, query in enumerate(trial.own.queries):
        chosen, rejected = policy.reward(trial.own.shots, query.prompt, [query.chosen, query.rejected])
        assert chosen - rejected == pytest.approx(measured[trial.user, trial.item(number)], abs=2e-3)
