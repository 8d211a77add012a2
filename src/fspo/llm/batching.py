"""Asking for many completions: piece by piece, shown as it goes; and what a model on this machine has said, kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Protocol, runtime_checkable

from fspo.identity import digest
from fspo.llm.cache import RequestCache
from fspo.llm.types import Completion, CompletionRequest, LanguageModel, Streaming, batch_of, identity_of, title_of
from fspo.progress import Task

__all__ = ["CachedModel", "Marking", "ask_all", "ask_in_pieces", "mark_unusable"]

_BATCH = 48


@runtime_checkable
class Marking(Protocol):
    """A model that keeps answers, and can note which of them could not be used."""

    def mark_unusable(self, requests: Sequence[CompletionRequest]) -> None:
        """Note that the answers to these requests could not be used; see `RequestCache.forget_unusable`."""


def mark_unusable(llm: LanguageModel, *requests: CompletionRequest) -> None:
    """Note it where the model is asked at a server; a model on this machine says the same each time."""
    if isinstance(llm, Marking) and requests:
        llm.mark_unusable(requests)


def ask_all(
    llm: LanguageModel, requests: Iterable[CompletionRequest], size: int, task: Task | None = None
) -> Iterator[Completion]:
    """One completion for each request, in order; see `ask_in_pieces`.

    Raises:
        ModelError: see the model's own `complete`.
    """
    for piece in ask_in_pieces(llm, requests, size):
        kept = sum(completion.kept for completion in piece)
        if task is not None and kept:
            task.skip(kept)
        if task is not None and kept < len(piece):
            task.advance(len(piece) - kept)  # as one, or the first would be taken for slow and the others for quick
        yield from piece


def ask_in_pieces(llm: LanguageModel, requests: Iterable[CompletionRequest], size: int) -> Iterator[list[Completion]]:
    """The completions in the pieces that they come in; no more than `size` requests are held at a time.

    A model that streams is kept busy all the while; any other has its pieces one after the other. One on this machine
    has no larger pieces than a batch.

    Raises:
        ModelError: see the model's own `complete`.
    """
    batch = batch_of(llm)
    size = min(size, batch or size)
    if isinstance(llm, Streaming):
        stream, together = llm.stream(requests, size), size if batch else 1
        return iter(lambda: list(islice(stream, together)), [])
    requests = iter(requests)
    return map(llm.complete, iter(lambda: list(islice(requests, size)), []))


class CachedModel:
    """A model whose answers come out the same in the same batch only: it is asked in fixed batches, kept whole.

    What a killed call has finished is not asked again, and the rest comes out as it would have.
    """

    def __init__(self, model: LanguageModel, cache: RequestCache, batch: int | None = None) -> None:
        """Ask `model` for at most `batch` completions at once, by default as many as it is best asked; keep them."""
        self._model, self._cache = model, cache
        self.name, self.identity, self.title = model.name, identity_of(model), title_of(model)
        self.batch = batch or batch_of(model) or _BATCH
        """Completions that are made, and kept, at once."""

    def complete(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
        """One completion for each request, in order."""
        return [
            completion
            for start in range(0, len(requests), self.batch)
            for completion in self._batched(requests[start : start + self.batch])
        ]

    def _batched(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
        # A key stands for the whole batch, since that decides the rounding of each answer in it.
        whole = digest([self.identity, [request.record() for request in requests]], 64)
        keys = [f"{whole}/{place}" for place in range(len(requests))]
        known = self._cache.get_all(keys)
        if len(known) == len(keys):
            return list(known.values())
        completions = self._model.complete(requests)
        self._cache.put_all(dict(zip(keys, completions, strict=True)))
        return completions
