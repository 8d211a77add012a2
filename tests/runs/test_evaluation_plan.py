"""What a dry run says of the evaluation, against what the evaluation does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fspo.evaluation.evaluate import evaluate
from fspo.files import read_jsonl
from fspo.modeling import logprobs
from fspo.modeling.rendering import TokenizedEpisode
from fspo.runs.config import load_config
from fspo.runs.evaluation_plan import planned_evaluation
from tests.training.helpers import small_dataset

SETTINGS = ["methods=[base,few-shot]", "evaluation.shots=2", "evaluation.queries=2", "evaluation.answers=2"]


def test_the_tokens_are_those_that_the_evaluation_reads_and_writes(
    tiny_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(None, [*SETTINGS, f"model={tiny_model_path}", "evaluation.max_new_tokens=4"], tmp_path)
    test = small_dataset(users=3, questions=8)
    read: list[int] = []
    score = logprobs.branch_logprobs

    def counting(model: Any, episodes: list[TokenizedEpisode]) -> Any:
        read.append(sum(episode.tokens for episode in episodes))
        return score(model, episodes)

    monkeypatch.setattr(logprobs, "branch_logprobs", counting)
    methods = {"base": None, "few-shot": None}
    evaluate(config.evaluation, test, methods, model=config.model, out=tmp_path / "out", judge=None)
    planned = planned_evaluation(config, test, tiny_model_path, judged=False)
    assert planned is not None
    assert planned.read == pytest.approx(sum(read), rel=0.35)
    answers = [row for name in methods for row in read_jsonl(tmp_path / "out" / name / "answers.jsonl")]
    assert planned.written == 4 * len(answers)
    assert planned.seconds() > 0
    judged = planned_evaluation(config, test, tiny_model_path, judged=True)
    assert judged is not None and judged.written > planned.written


def test_the_answers_that_readers_choose_from_are_counted(tiny_model_path: Path, tmp_path: Path) -> None:
    test, given = small_dataset(users=3, questions=8), [*SETTINGS, f"model={tiny_model_path}"]
    alone, choosing = (
        planned_evaluation(load_config(None, [*given, *more], tmp_path), test, tiny_model_path, judged=True)
        for more in (["methods=[base]"], ["methods=[base,ridge]", "evaluation.best_of=3"])
    )
    assert alone is not None and choosing is not None
    assert choosing.written == 4 * alone.written
    assert choosing.read > alone.read
