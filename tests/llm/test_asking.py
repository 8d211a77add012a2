"""Asking piece by piece, and a local model's answers kept batch by batch."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from fspo.llm.asking import Remembered, ask_all
from fspo.llm.cache import RequestCache
from fspo.llm.types import Completion, CompletionRequest, Message
from fspo.progress import PlainProgress


class Batched:
    """A model whose answers depend on the batch, as rounding does; `stop_at` is the call at which it is killed."""

    name = "batched"

    def __init__(self, stop_at: int | None = None) -> None:
        self.sizes: list[int] = []
        self.stop_at = stop_at

    def complete(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
        if len(self.sizes) == self.stop_at:
            raise KeyboardInterrupt
        self.sizes.append(len(requests))
        return [Completion(f"{request.seed} of {len(requests)}", 3, "stop") for request in requests]


def requests(count: int) -> list[CompletionRequest]:
    return [CompletionRequest((Message("user", "Hello"),), seed=seed) for seed in range(count)]


def test_requests_are_asked_a_few_at_a_time_and_answered_in_order() -> None:
    model, drawn = Batched(), []

    def lazily() -> object:
        for request in requests(10):
            drawn.append(request.seed)
            yield request

    answers = ask_all(model, lazily(), 4)  # type: ignore[arg-type]
    assert next(answers).text == "0 of 4"
    assert len(drawn) == 4
    assert [answer.text.split()[0] for answer in answers] == [str(n) for n in range(1, 10)]
    assert model.sizes == [4, 4, 2]


def test_a_piece_counts_as_one(capsys: pytest.CaptureFixture[str]) -> None:
    now = iter([0.0, 30.0, 60.0, 90.0])
    with PlainProgress(sys.stdout, clock=lambda: next(now)).task("Asking", total=12) as task:
        assert len(list(ask_all(Batched(), requests(12), 6, task))) == 12
    assert "Asking: 50 %, 30 s left" in capsys.readouterr().out


def test_what_a_killed_call_finished_is_not_asked_again(tmp_path: Path) -> None:
    whole = Remembered(Batched(), RequestCache(tmp_path / "whole.sqlite"), batch=4).complete(requests(10))
    path = tmp_path / "answers.sqlite"
    with pytest.raises(KeyboardInterrupt):
        Remembered(Batched(stop_at=1), RequestCache(path), batch=4).complete(requests(10))
    model = Batched()
    again = Remembered(model, RequestCache(path), batch=4)
    assert again.complete(requests(10)) == whole
    assert model.sizes == [4, 2]
    assert again.complete(requests(10)) == whole
    assert model.sizes == [4, 2]
    assert again.name == "batched"


def test_another_batch_is_another_answer(tmp_path: Path) -> None:
    remembered = Remembered(Batched(), RequestCache(tmp_path / "answers.sqlite"), batch=4)
    assert remembered.complete(requests(2))[0].text == "0 of 2"
    assert remembered.complete(requests(3))[0].text == "0 of 3"
