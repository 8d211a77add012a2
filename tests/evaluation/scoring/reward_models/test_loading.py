"""Reward models by configuration: each kind, by the names and code a file gives."""

from __future__ import annotations

import linecache
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fspo.errors import ConfigError, ModelError
from fspo.evaluation.config import EvaluationConfig, RewardModelConfig
from fspo.evaluation.evaluate import evaluate
from fspo.evaluation.scoring.reward_models.loading import load_reward_model
from fspo.evaluation.scoring.reward_models.protocol import RewardRequest
from fspo.files import read_jsonl
from fspo.llm.pool import EndpointPool
from fspo.preferences.types import Preference
from tests.evaluation.helpers import CountingJudge, small_dataset
from tests.evaluation.scoring.reward_models.helpers import CONFIG

HERE = "tests.evaluation.scoring.reward_models.test_loading"
ENDPOINT = {"base_url": "http://127.0.0.1:9/v1", "model": "some-model"}
REQUEST = RewardRequest((Preference("", "q", "a", "b"),), "prompt", "four letters")


def by_length(shots: Sequence[Preference], prompt: str, response: str) -> float:
    """Longer is better."""
    return float(len(response))


class ByShots:
    """Gives the number of shots."""

    name = "by shots"

    def score(self, requests: Sequence[RewardRequest]) -> list[float | None]:
        return [float(len(request.shots)) for request in requests]


made = ByShots()
nothing = 3


@pytest.mark.parametrize(("name", "value"), [("by_length", 12.0), ("ByShots", 1.0), ("made", 1.0)])
def test_code_of_ones_own_is_a_function_a_class_or_a_model(name: str, value: float, tmp_path: Path) -> None:
    found = load_reward_model(RewardModelConfig(name="own", scorer=f"{HERE}:{name}"), CONFIG, EndpointPool(tmp_path))
    assert found.get().score([REQUEST]) == [value]
    entry = RewardModelConfig(name="x", scorer=f"{HERE}:{name}")
    assert found.fingerprint == load_reward_model(entry, CONFIG, EndpointPool(tmp_path)).fingerprint


@pytest.mark.parametrize("name", ["Model", "made", "function", "named"])
def test_other_code_is_another_model(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scorer whose source has changed is scored anew, be it a function, a class or an object."""
    code = """
from fspo.evaluation.scoring.reward_models.protocol import FunctionRewardModel
class Model:
    name = "mine"
    def score(self, requests):
        return [{} * len(r.response) for r in requests]
made = Model()
def function(shots, prompt, response):
    return {} * len(response)
named = FunctionRewardModel(function, "mine")
"""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    found = set()
    for sign in ("+1", "-1", "+1"):
        (tmp_path / "scorer_of_mine.py").write_text(code.replace("{}", sign))
        monkeypatch.delitem(sys.modules, "scorer_of_mine", raising=False)
        linecache.clearcache()
        entry = RewardModelConfig(name="own", scorer=f"scorer_of_mine:{name}")
        found.add(load_reward_model(entry, CONFIG, EndpointPool(tmp_path)).fingerprint)
    assert len(found) == 2


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("nowhere_at_all:f", "can't be imported"),
        (f"{HERE}:missing", "can't be imported"),
        (HERE, "module:name"),
        (f"{HERE}:nothing", "neither a function"),
    ],
)
def test_code_that_is_not_there_is_told(place: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=told):
        load_reward_model(RewardModelConfig(name="own", scorer=place), CONFIG, EndpointPool(tmp_path))


def test_nothing_is_loaded_or_asked_before_it_is_needed(tmp_path: Path) -> None:
    for entry in ({"model": "somebody/some-reward-model"}, {"endpoint": ENDPOINT}):
        later = RewardModelConfig.model_validate({"name": "later", **entry})
        found = load_reward_model(later, CONFIG, EndpointPool(tmp_path))
        assert found.name == "later"
    assert len(found.fingerprint) == 16  # of the endpoint
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_is_not_there_is_told_before_anything_is_measured(tmp_path: Path) -> None:
    entry = RewardModelConfig(name="gone", model=str(tmp_path / "nowhere"))
    with pytest.raises(ModelError, match="does not exist"):
        load_reward_model(entry, CONFIG, EndpointPool(tmp_path))


def test_an_endpoint_becomes_one_that_rates_and_keeps_its_answers(tmp_path: Path) -> None:
    found = load_reward_model(
        RewardModelConfig.model_validate({"name": "asked", "endpoint": ENDPOINT}), CONFIG, EndpointPool(tmp_path)
    )
    assert found.get().name == "some-model at http://127.0.0.1:9/v1, rating"
    assert (tmp_path / "answers-some-model.sqlite").exists()


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"name": "x"}, "exactly one of"),
        ({"name": "x", "model": "a", "scorer": "b:c"}, "exactly one of"),
        ({"name": "fspo", "model": "a"}, "taken"),
        ({"name": "fspo-reference", "model": "a"}, "taken"),
        ({"name": "a/b", "model": "a"}, "pattern"),
    ],
)
def test_contradictory_entries_are_refused(entry: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        RewardModelConfig.model_validate(entry)


def test_two_of_one_name_are_refused() -> None:
    entries = [{"name": "x", "scorer": f"{HERE}:by_length"}] * 2
    with pytest.raises(ValueError, match="given twice"):
        EvaluationConfig.model_validate({"reward_models": entries})


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise RuntimeError('not today')", "RuntimeError: not today"),
        ("def mine(:", "SyntaxError"),
        ("class mine:\n    def __init__(self):\n        raise OSError('no file')", "OSError: no file"),
    ],
    ids=["raises", "is none", "can't be made"],
)
def test_code_that_fails_when_it_is_read_is_one_sentence(
    code: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "failing_scorer", raising=False)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    (tmp_path / "failing_scorer.py").write_text(code)
    with pytest.raises(ConfigError, match=f"can't be imported \\({said}"):
        load_reward_model(RewardModelConfig(name="own", scorer="failing_scorer:mine"), CONFIG, EndpointPool(tmp_path))


def test_how_an_endpoint_is_asked_makes_no_other_scores_and_another_model_does(tmp_path: Path) -> None:
    def fingerprint(**settings: Any) -> str:
        entry = RewardModelConfig.model_validate({"name": "asked", "endpoint": ENDPOINT | settings})
        return load_reward_model(entry, EvaluationConfig(), EndpointPool(tmp_path)).fingerprint

    assert fingerprint() == fingerprint(timeout=3, requests_in_flight=2)
    assert fingerprint() != fingerprint(model="another")


def test_configured_models_stand_in_the_table_with_and_without_shots(tmp_path: Path) -> None:
    entries = [
        {"name": "long", "scorer": f"{HERE}:by_length"},
        {"name": "blind", "scorer": f"{HERE}:by_length", "shots": False},
    ]
    config = CONFIG.model_copy(update={"reward_models": tuple(map(RewardModelConfig.model_validate, entries))})
    metrics = evaluate(
        config, small_dataset("test", questions=16), {}, model="none", out=tmp_path, judge=CountingJudge()
    )
    assert list(metrics) == ["long", "blind"]
    assert metrics["long"]["reward_accuracy"] == metrics["blind"]["reward_accuracy"]
    assert "label_flip_rate" in metrics["long"]
    assert "label_flip_rate" not in metrics["blind"]
    (line, *_) = read_jsonl(tmp_path / "blind" / "margins.jsonl")
    assert {(row["k"], row["condition"]) for row in line["rows"]} == {(0, "own")}
