"""Scoring by a reward model from elsewhere: what it is shown, what is kept, and what is refused."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fspo.errors import ConfigError, ModelError
from fspo.evaluation.config import EvaluationConfig
from fspo.evaluation.scoring.reward_models.protocol import Failed, FunctionRewardModel, RewardRequest
from fspo.files import read_json
from fspo.preferences.types import Preference
from fspo.progress import Silent
from tests.evaluation.helpers import small_dataset
from tests.evaluation.scoring.reward_models.helpers import CONFIG, Instrument, evaluated

DATASET = small_dataset("test", questions=16)


class Recorder:
    """Remembers what it was asked; gives the same to everything, or what it is told to."""

    name = "recorder"

    def __init__(self, value: float | None = 1.0) -> None:
        self.asked: list[RewardRequest] = []
        self.value = value

    def score(self, requests: Sequence[RewardRequest]) -> list[float | None]:
        self.asked += requests
        return [self.value for _ in requests]


def test_it_is_told_what_was_chosen_and_not_who_chose(tmp_path: Path) -> None:
    recorder = Recorder()
    evaluated(tmp_path, DATASET, recorder=recorder)
    shots = {shot for request in recorder.asked for shot in request.shots}
    assert {len(request.shots) for request in recorder.asked} == {0, 1, 2, 4}
    assert all((shot.user, shot.question, dict(shot.source)) == ("", "", {}) for shot in shots)
    for first, second in zip(recorder.asked[::2], recorder.asked[1::2], strict=True):
        assert (first.shots, first.prompt) == (second.shots, second.prompt)
        assert first.prompt not in {shot.prompt for shot in first.shots}


def test_equal_scores_are_no_decision(tmp_path: Path) -> None:
    row = evaluated(tmp_path, DATASET, same=Recorder())["same"]
    assert row["reward_accuracy"]["value"] == 0.5
    assert row["label_flip_rate"]["value"] == row["user_swap_drop"]["value"] == 0.0
    assert row["brier"]["value"] == 0.25


def test_what_it_can_not_score_counts_half_and_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(Silent, "say", lambda _, text: said.append(text))
    row = evaluated(tmp_path, DATASET, mute=Recorder(None))["mute"]
    assert any("'mute' gave no score on" in text and "count as no decision" in text for text in said)
    assert (row["reward_accuracy"]["value"], row["reward_accuracy"]["items"]) == (0.5, 24)
    assert read_json(tmp_path / "details.json")["reward_models"]["mute"]["unread"] > 24


class Flaky:
    """As a model whose server fails on the first responses it is shown; later calls may find it well."""

    name = "flaky"
    identity = "flaky 1"

    def __init__(self, failing: int) -> None:
        self.failing, self.calls = failing, 0

    def score(self, requests: Sequence[RewardRequest]) -> list[float | Failed | None]:
        self.calls += 1
        found: list[float | Failed | None] = [float(len(request.response)) for request in requests]
        if self.calls <= self.failing:
            found[0] = Failed.FAILED
        return found


def test_a_score_that_failed_is_counted_and_asked_again_by_the_next_evaluation(tmp_path: Path) -> None:
    flaky, well = Flaky(2), Flaky(0)
    evaluated(tmp_path, DATASET, flaky=flaky)
    assert read_json(tmp_path / "details.json")["reward_models"]["flaky"]["unread"] == 2
    lines = (tmp_path / "flaky/margins.jsonl").read_text().splitlines()
    assert len(lines) == flaky.calls - 2
    again = evaluated(tmp_path, DATASET, flaky=well)
    assert well.calls == 2
    assert again == evaluated(tmp_path / "whole", DATASET, flaky=Flaky(0))


def test_what_was_scored_is_not_scored_again(tmp_path: Path) -> None:
    models = Instrument(DATASET)
    asked: list[int] = []

    def counted(shots: Sequence[Preference], prompt: str, response: str) -> float:
        asked.append(len(shots))
        return models.knows(shots, prompt, response)

    counted.identity = "knows by length"  # type: ignore[attr-defined]  # what it counts is no part of what it is

    def again() -> dict[str, object]:
        return evaluated(tmp_path, DATASET, knows=FunctionRewardModel(counted, "knows"))["knows"]  # type: ignore[return-value]

    first = again()
    path = tmp_path / "knows" / "margins.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]) + lines[-1][:40])
    asked.clear()
    assert again() == first
    once = len(asked)
    assert 0 < once < 4 * 24 * 2 * 12
    assert again() == first
    assert len(asked) == once
    evaluated(tmp_path, DATASET, knows=FunctionRewardModel(counted, "another"))
    assert len(asked) == 5 * once  # four users, of whom one was scored again before
    other = FunctionRewardModel(lambda *asked_for: counted(*asked_for), "another")
    evaluated(tmp_path, DATASET, knows=other)
    assert len(asked) == 9 * once  # another function by the same name


@pytest.mark.parametrize(
    ("scores", "each", "told"),
    [
        ([1.0], False, "1 scores for"),
        ([math.nan], True, "no finite number"),
        (["seven"], True, r"no number \(user 'test-length-more'"),
        ([[1.0]], True, "no number"),
    ],
    ids=["too few", "not a number", "a word", "a list"],
)
def test_scores_that_are_none_are_refused(tmp_path: Path, scores: list[Any], each: bool, told: str) -> None:
    class Broken:
        name = "broken"

        def score(self, requests: Sequence[RewardRequest]) -> list[Any]:
            return scores * len(requests) if each else scores

    with pytest.raises(ModelError, match=told):
        evaluated(tmp_path, DATASET, broken=Broken())
    assert not list(tmp_path.rglob("margins.jsonl"))


def test_a_fault_of_ones_own_code_is_told_by_its_place(tmp_path: Path) -> None:
    def short(response: str) -> float:
        return 1 / 0

    with pytest.raises(ModelError, match=r"'mine' failed on user 'test-length-more': TypeError: .*3 were given"):
        evaluated(tmp_path, DATASET, mine=FunctionRewardModel(short, "mine"))  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=r"ZeroDivisionError: .*\(test_scoring.py, line \d+\)"):
        evaluated(tmp_path, DATASET, mine=FunctionRewardModel(lambda *_: short("x"), "mine"))


def test_a_name_that_is_taken_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'fspo' has a name that is taken"):
        evaluated(tmp_path, DATASET, fspo=Recorder())


def test_without_a_flip_nothing_is_asked_about_flipped_labels(tmp_path: Path) -> None:
    bare = {"label_flip": False, "user_swap": False, "robustness": {"users": 0}, "ladder": (4,)}
    recorder = Recorder()
    row = evaluated(tmp_path, DATASET, EvaluationConfig(**(CONFIG.model_dump() | bare)), recorder=recorder)["recorder"]
    assert len(recorder.asked) == 4 * 6 * 2 * 3  # four users, six pairs, after 0, 1 and 4 shots
    assert not any(measure.startswith(("label_flip", "wrong_labels", "order")) for measure in row)


def _liking(sign: int) -> FunctionRewardModel:
    """A closure: equal in name and source for every sign."""

    def scorer(shots: Sequence[Preference], prompt: str, response: str) -> float:
        return float(sign * len(response))

    return FunctionRewardModel(scorer, "liking")


def _accuracy(tmp_path: Path, model: FunctionRewardModel) -> float:
    found: dict[str, Any] = evaluated(tmp_path, DATASET, liking=model)["liking"]
    return float(found["reward_accuracy"]["value"])


def test_another_closure_of_the_same_name_is_scored_itself(tmp_path: Path) -> None:
    longer, shorter = _accuracy(tmp_path, _liking(1)), _accuracy(tmp_path, _liking(-1))

    assert longer + shorter == pytest.approx(1.0) and longer != shorter
    assert _accuracy(tmp_path, _liking(1)) == longer
    lines = (tmp_path / "liking/margins.jsonl").read_text().splitlines()
    assert len(lines) == len(set(lines)), "the first one was scored again"


def test_a_function_that_can_not_be_identified_is_scored_each_time(tmp_path: Path) -> None:
    lock = threading.Lock()  # nothing tells two of them apart
    asked: list[str] = []

    def unknown(shots: Sequence[Preference], prompt: str, response: str) -> float:
        with lock:
            asked.append(response)
        return float(len(response))

    first = _accuracy(tmp_path, FunctionRewardModel(unknown, "liking"))
    once = len(asked)

    assert _accuracy(tmp_path, FunctionRewardModel(unknown, "liking")) == first
    assert len(asked) == 2 * once
