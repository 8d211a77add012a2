"""Reward models answer by the best of n answers of the base model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fspo.evaluation.answering_stage import AnsweringStage
from fspo.evaluation.artifacts import read_details
from fspo.evaluation.judges.win_rates import Answer
from fspo.evaluation.scoring.eval_episodes import Trial
from fspo.evaluation.scoring.reward_models.loading import ExternalRewardModel, given_reward_model
from fspo.evaluation.scoring.reward_models.protocol import Failed, FunctionRewardModel, RewardRequest
from fspo.preferences.types import Episode, Preference
from fspo.records import KeyedLog
from tests.evaluation.running import CONFIG, runner

BEST = CONFIG.model_copy(update={"best_of": 3, "max_new_tokens": 8})


def longest(shots: tuple[Preference, ...], prompt: str, response: str) -> float:
    return len(response)


def shortest(shots: tuple[Preference, ...], prompt: str, response: str) -> float:
    return -len(response)


def undecided(shots: tuple[Preference, ...], prompt: str, response: str) -> float:
    return 0.0


MODELS = {"longest": longest, "shortest": shortest, "undecided": undecided}


def answers(out: Path, name: str, file: str = "answers.jsonl") -> list[Answer]:
    log = KeyedLog(out / name / file, Answer)
    return list(log._results.values())


@pytest.fixture(scope="module")
def measured(tiny_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("best-of")
    run = runner(tiny_model_path, {"few-shot": None}, out)
    return out, run(BEST, reward_models={name: FunctionRewardModel(each, name) for name, each in MODELS.items()})


def test_a_reward_model_answers_by_its_favourite_candidate(measured: tuple[Path, dict[str, Any]]) -> None:
    out, metrics = measured
    drawn: dict[str, list[str]] = {}
    for number in (1, 2, 3):
        for answer in answers(out, "base", f"candidates-{number}.jsonl"):
            drawn.setdefault(answer.item, []).append(answer.text)
    assert all(len(texts) == 3 for texts in drawn.values())
    assert any(len(set(texts)) > 1 for texts in drawn.values()), "candidates are drawn apart"
    for name, pick in (("longest", max), ("shortest", min)):
        assert {a.item: len(a.text) for a in answers(out, name)} == {
            item: pick(map(len, texts)) for item, texts in drawn.items()
        }
    assert {a.item: a.text for a in answers(out, "undecided")} == {item: texts[0] for item, texts in drawn.items()}
    assert all("win_rate" in metrics[name] for name in MODELS)
    assert read_details(out)["samplings"].keys() == {"few-shot", *MODELS}


def test_the_choice_is_kept(measured: tuple[Path, dict[str, Any]], tiny_model_path: Path) -> None:
    out, metrics = measured
    before = {name: (out / name / "answers.jsonl").read_bytes() for name in ("base", *MODELS)}
    models = {name: FunctionRewardModel(each, name) for name, each in MODELS.items()}
    assert runner(tiny_model_path, {"few-shot": None}, out)(BEST, reward_models=models) == metrics
    assert {name: (out / name / "answers.jsonl").read_bytes() for name in before} == before


def test_without_candidates_reward_models_give_no_answers(tiny_model_path: Path, tmp_path: Path) -> None:
    models = {"longest": FunctionRewardModel(longest, "longest")}
    metrics = runner(tiny_model_path, {"few-shot": None}, tmp_path)(CONFIG, reward_models=models)
    assert "win_rate" not in metrics["longest"] and "win_rate" in metrics["few-shot"]
    assert not (tmp_path / "base" / "candidates-1.jsonl").exists()


def test_a_model_that_scores_and_chooses_is_loaded_once(
    tiny_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = {"heavy": 0, "other": 0}

    def heavy(name: str) -> ExternalRewardModel:
        def load() -> FunctionRewardModel:
            loaded[name] += 1
            return FunctionRewardModel(longest, name)

        return ExternalRewardModel(name, load, lambda: name, loads=True)

    monkeypatch.setattr(
        "fspo.evaluation.evaluate._external_models",
        lambda *_: [
            heavy("heavy"),
            given_reward_model("light", FunctionRewardModel(shortest, "light")),
            heavy("other"),
        ],
    )
    run = runner(tiny_model_path, {"few-shot": None}, tmp_path)
    metrics = run(BEST)
    assert loaded == {"heavy": 1, "other": 1}
    assert [name for name in metrics if name != "few-shot"] == ["heavy", "light", "other"]
    assert all({"reward_accuracy", "win_rate"} <= metrics[name].keys() for name in loaded)
    assert run(BEST) == metrics and loaded == {"heavy": 1, "other": 1}, "what is known is not scored again"


def test_a_choice_without_shots_is_another(tmp_path: Path) -> None:
    def score(shots: tuple[Preference, ...], prompt: str, response: str) -> float:
        return len(response) if shots else -len(response)

    evaluation: Any = SimpleNamespace(out=tmp_path, config=BEST, progress=None)
    shot, texts = Preference("ann", "who?", "a", "b"), ("So.", "So long.")
    for shown, text in ((True, "So long."), (False, "So."), (True, "So long.")):
        stage = AnsweringStage(evaluation)
        stage.__dict__["trials"] = [Trial("ann/0", Episode("ann", (shot,), ()))]
        stage._candidates = [tuple(Answer("c", "plain", "ann/0/0", "ann", "why?", one) for one in texts)]
        stage.choose(
            ExternalRewardModel("mine", lambda: FunctionRewardModel(score, "mine"), lambda: "mine", shots=shown)
        )
        assert [answer.text for answer in stage.answers["mine", "plain"]] == [text]


class Flaky:
    """Scores by length, with numbers of numpy; every other time its server fails."""

    name = identity = "flaky"

    def __init__(self) -> None:
        self.asked = 0

    def score(self, requests: Sequence[RewardRequest]) -> list[Any]:
        self.asked += 1
        return [np.float32(len(one.response)) if self.asked % 2 == 0 else Failed.FAILED for one in requests]


def test_an_answer_that_was_chosen_without_scores_is_chosen_again(tmp_path: Path) -> None:
    scorer, chosen = Flaky(), []
    for _ in range(3):
        evaluation: Any = SimpleNamespace(out=tmp_path, config=BEST, progress=None)
        stage = AnsweringStage(evaluation)
        stage.__dict__["trials"] = [Trial("ann/0", Episode("ann", (), ()))]
        stage._candidates = [
            tuple(Answer("c", "plain", "ann/0/0", "ann", "why?", text) for text in ("So.", "So long."))
        ]
        stage.choose(given_reward_model("flaky", scorer))
        chosen.append(stage.answers["flaky", "plain"][0].text)
    assert chosen == ["So.", "So long.", "So long."] and scorer.asked == 2
