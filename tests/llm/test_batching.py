"""Asking piece by piece, and a local model's answers kept batch by batch."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from fspo.llm.batching import CachedModel, ask_all
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


def keys(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return [key for (key,) in connection.execute("SELECT key FROM answers")]


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
    assert "Asking: 50%, 30 s left" in capsys.readouterr().out


def test_a_model_on_this_machine_has_pieces_of_one_batch(tmp_path: Path) -> None:
    model = Batched()
    remembered = CachedModel(model, RequestCache(tmp_path / "answers.sqlite"), batch=4)
    answers = ask_all(remembered, requests(10), 1024)
    next(answers)
    assert model.sizes == [4]  # and that is kept, whatever happens now
    assert len(keys(tmp_path / "answers.sqlite")) == 4
    assert len(list(answers)) == 9


def test_a_batch_is_as_large_as_the_model_is_best_asked(tmp_path: Path) -> None:
    class Sized(Batched):
        batch = 3

    assert CachedModel(Sized(), RequestCache(tmp_path / "answers.sqlite")).batch == 3
    assert CachedModel(Batched(), RequestCache(tmp_path / "answers.sqlite")).batch == 48


def test_what_was_kept_is_told_and_does_not_count_as_speed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "answers.sqlite"
    with pytest.raises(KeyboardInterrupt):
        list(ask_all(CachedModel(Batched(stop_at=2), RequestCache(path), batch=4), requests(20), 1024))
    clock = [0.0]

    class Slow(Batched):
        def complete(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
            clock[0] += 30
            return super().complete(requests)

    with PlainProgress(sys.stdout, clock=lambda: clock[0]).task("Asking", total=20) as task:
        answers = list(ask_all(CachedModel(Slow(), RequestCache(path), batch=4), requests(20), 1024, task))
    assert [answer.kept for answer in answers] == [True] * 8 + [False] * 12
    assert capsys.readouterr().out.splitlines() == [
        "Asking ...",
        "Asking: 8 of 20 done before",
        "Asking: 60%, 1 min 00 s left",
        "Asking: 80%, 30 s left",
        "Asking: done in 1 min 30 s",
    ]


def test_what_a_killed_call_finished_is_not_asked_again(tmp_path: Path) -> None:
    whole = CachedModel(Batched(), RequestCache(tmp_path / "whole.sqlite"), batch=4).complete(requests(10))
    path = tmp_path / "answers.sqlite"
    with pytest.raises(KeyboardInterrupt):
        CachedModel(Batched(stop_at=1), RequestCache(path), batch=4).complete(requests(10))
    model = Batched()
    again = CachedModel(model, RequestCache(path), batch=4)
    assert again.complete(requests(10)) == whole
    assert model.sizes == [4, 2]
    assert again.complete(requests(10)) == whole
    assert model.sizes == [4, 2]
    assert again.name == "batched"


def test_another_batch_is_another_answer(tmp_path: Path) -> None:
    remembered = CachedModel(Batched(), RequestCache(tmp_path / "answers.sqlite"), batch=4)
    assert remembered.complete(requests(2))[0].text == "0 of 2"
    assert remembered.complete(requests(3))[0].text == "0 of 3"


class _Weighed:
    """A model in a folder whose weights are trained on in place."""

    name = "models/my"

    def __init__(self, weights: str) -> None:
        self.weights, self.identity = weights, {"model": self.name, "weights": weights}

    def complete(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
        return [Completion(self.weights, 1, "stop") for _ in requests]


def test_a_model_trained_on_in_place_does_not_answer_from_its_predecessors_answers(tmp_path: Path) -> None:
    requests = [CompletionRequest((Message("user", "Hi"),))]
    said = [
        CachedModel(_Weighed(weights), RequestCache(tmp_path / "answers.sqlite")).complete(requests)[0].text
        for weights in ("old", "new", "old")
    ]

    assert said == ["old", "new", "old"]
