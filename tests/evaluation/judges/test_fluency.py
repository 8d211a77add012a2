"""Fluency: every distinct answer scored once, in the same batches however often the run was interrupted."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fspo.evaluation.judges import fluency
from fspo.evaluation.judges.fluency import answer_log_probs
from fspo.evaluation.judges.win_rates import Answer
from fspo.evaluation.scoring.weights import LoadableModel

TEXTS = [*(f"answer number {number}" for number in range(19)), "answer number 3"]
ANSWERS = [Answer("fspo", "plain", str(place), "ann", "p", text) for place, text in enumerate(TEXTS)]


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Values that depend on the whole batch, and the batches that were scored."""
    seen: list[list[str]] = []

    def score(model: Any, answers: list[Answer]) -> list[float]:
        seen.append([answer.text for answer in answers])
        return [-len(answer.text) - len(answers) / 1000 - place for place, answer in enumerate(answers)]

    monkeypatch.setattr(fluency, "_score", score)
    return seen


def measured(path: Path) -> list[float]:
    renderer: Any = SimpleNamespace(identity="shown plainly")
    model: Any = LoadableModel(lambda: pytest.fail("loaded"), renderer, "w")
    return answer_log_probs(model, ANSWERS, path=path)


def test_an_answer_given_twice_is_scored_once(batches: list[list[str]], tmp_path: Path) -> None:
    values = measured(tmp_path / "f.jsonl")
    assert [text for batch in batches for text in batch] == TEXTS[:-1]
    assert values[-1] == values[3]


@pytest.mark.parametrize("lines", [0, 1, 8, 11, 18])
def test_a_torn_batch_is_scored_whole(batches: list[list[str]], tmp_path: Path, lines: int) -> None:
    path = tmp_path / "f.jsonl"
    values = measured(path)
    whole = list(batches)
    kept = path.read_text().splitlines(keepends=True)
    path.write_text("".join(kept[:lines]) + kept[lines][:9])
    batches.clear()
    assert measured(path) == values
    assert batches == whole[lines // 8 :]
    batches.clear()
    assert measured(path) == values
    assert batches == []
