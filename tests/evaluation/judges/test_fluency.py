"""Fluency: every distinct answer scored once, in the same batches however often the run was interrupted."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fspo.evaluation.context import Evaluation
from fspo.evaluation.judges import fluency
from fspo.evaluation.judges.fluency import answer_log_probs, fluency_key
from fspo.evaluation.judges.win_rates import Answer
from fspo.evaluation.scoring.weights import LoadableModel
from fspo.modeling.loading import load_model, load_tokenizer
from fspo.modeling.rendering import EpisodeRenderer
from fspo.preferences.types import Episode, Preference, Turn, transcript

TEXTS = [*(f"answer number {number}" for number in range(19)), "answer number 3"]
ANSWERS = [Answer("fspo", "plain", str(place), "ann", "p", text) for place, text in enumerate(TEXTS)]

RENDERER: Any = SimpleNamespace(identity="shown plainly")
MODEL: Any = LoadableModel(lambda: pytest.fail("loaded"), RENDERER, "w")


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Values that depend on the whole batch, and the batches that were scored."""
    seen: list[list[str]] = []

    def score(model: Any, answered: list[tuple[str, str]]) -> list[float]:
        seen.append([text for _, text in answered])
        return [-len(text) - len(answered) / 1000 - place for place, (_, text) in enumerate(answered)]

    monkeypatch.setattr(fluency, "_score", score)
    return seen


def measured(path: Path) -> list[float]:
    return answer_log_probs(MODEL, ANSWERS, conversations={}, path=path)


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


def test_an_answer_to_a_conversation_is_measured_after_its_turns(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said = (Turn("user", "Hi."), Turn("assistant", "Hello!"), Turn("user", "Name a film."))
    query = Preference.after("ann", said, "chosen", "rejected")
    shown: list[Any] = []

    def score(_: Any, answered: list[Any]) -> list[float]:
        shown.extend(prompt for prompt, _ in answered)
        return [-1.0] * len(answered)

    monkeypatch.setattr(fluency, "_score", score)
    trial = SimpleNamespace(own=Episode("ann", (), (query, Preference("ann", "p", "c", "r"))))
    evaluation = SimpleNamespace(
        weights=SimpleNamespace(loadable=lambda *_: MODEL), out=tmp_path, trials=[trial], progress=None
    )
    answers = [Answer("fspo", "plain", "1", "ann", prompt, "Alien.") for prompt in (query.prompt, "p")]
    Evaluation.log_probs(evaluation, answers)  # type: ignore[arg-type]
    assert shown == [said, "p"]
    lines = (tmp_path / "fluency.jsonl").read_text().splitlines()
    assert [json.loads(line)["key"] for line in lines] == [
        fluency_key(MODEL, answers[0], said),
        fluency_key(MODEL, answers[1]),
    ]
    assert fluency_key(MODEL, answers[0], said) != fluency_key(MODEL, answers[0])


def test_every_answer_of_a_batch_is_scored_after_its_own_prompt(tiny_model_path: Path, tmp_path: Path) -> None:
    """Against a pass over each prompt and answer alone; one of the conversations has a system message of its own."""
    renderer = EpisodeRenderer(load_tokenizer(tiny_model_path), context="none")
    model: Any = load_model(tiny_model_path)
    talks = [
        (Turn("user", "Hi."), Turn("assistant", "Hello!"), Turn("user", "Name a film.")),
        (Turn("system", "Be short."), Turn("user", "Name a film.")),
        (Turn("user", "Why?"),),
    ]
    answers = [Answer("fspo", "plain", str(n), "ann", transcript(talk), "Alien.") for n, talk in enumerate(talks)]
    found = answer_log_probs(
        LoadableModel(lambda: model, renderer, "w"),
        answers,
        conversations={transcript(talk): talk for talk in talks if len(talk) > 1},
        path=tmp_path / "fluency.jsonl",
    )
    for value, talk in zip(found, talks, strict=True):
        asked = renderer.render_prompt((), talk)
        before, answer = [*asked.trunk_ids, *asked.prompt_ids], renderer.render_response("Alien.")[:-1]
        with torch.inference_mode():
            logits = model(torch.tensor([[*before, *answer]])).logits[0, len(before) - 1 : -1]
        expected = logits.log_softmax(-1).gather(1, torch.tensor(answer)[:, None]).mean()
        assert value == pytest.approx(expected.item(), rel=1e-4)
