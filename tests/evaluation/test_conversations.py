"""Alignment by turn in an evaluation, end to end on a tiny random model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fspo.errors import DataError
from fspo.evaluation.config import EvaluationConfig
from fspo.evaluation.evaluate import evaluate
from fspo.evaluation.scoring.weights import Weights
from fspo.files import read_jsonl
from tests.evaluation.helpers import CountingJudge, small_dataset

CONFIG = EvaluationConfig.model_validate(
    {
        "shots": 2,
        "ladder": [0, 2],
        "queries": 2,
        "answers": 0,
        "samplings": ["plain"],
        "max_new_tokens": 6,
        "robustness": {"users": 0},
        "conversations": {"turns": 3, "users": 4, "responses": 2},
    }
)


def run(model: Path, out: Path, config: EvaluationConfig = CONFIG) -> dict[str, Any]:
    methods: dict[str, Path | None] = {"base": None, "few-shot": None}
    return evaluate(config, small_dataset("test"), methods, model=str(model), out=out, judge=CountingJudge())


def test_every_method_holds_the_same_conversations(
    tiny_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = run(tiny_model_path, tmp_path)
    for row in found.values():
        assert all(1 <= row[f"alignment@{turn}"]["value"] <= 5 for turn in (1, 2, 3))
        assert row["alignment@1"]["users"] == 4
        assert {"alignment_slope", "alignment_slope_normalised", "alignment_fit"} <= row.keys()
        levels = [row[f"alignment@{turn}"]["value"] for turn in (1, 2, 3)]
        assert row["alignment_slope"]["value"] == pytest.approx((levels[2] - levels[0]) / 2)
    # Nothing is known of the users in the first turn.
    assert found["base"]["alignment@1"] == found["few-shot"]["alignment@1"]
    spoken = {name: read_jsonl(tmp_path / name / "conversations.jsonl") for name in found}
    assert [row["text"] for row in spoken["base"][:4]] == [row["text"] for row in spoken["few-shot"][:4]]
    assert [row["shots"] for row in spoken["few-shot"]] == [0] * 4 + [1] * 4 + [2] * 4
    assert len({(row["user"], row["prompt"]) for row in spoken["few-shot"]}) == 12
    monkeypatch.setattr(Weights, "_read", lambda *_: pytest.fail("a model was loaded again"))
    assert run(tiny_model_path, tmp_path) == found


def test_more_turns_than_questions_are_refused(tiny_model_path: Path, tmp_path: Path) -> None:
    longer = CONFIG.model_copy(update={"conversations": CONFIG.conversations.model_copy(update={"turns": 13})})
    with pytest.raises(DataError, match="no evaluated user has 13 questions to ask"):
        run(tiny_model_path, tmp_path, longer)
