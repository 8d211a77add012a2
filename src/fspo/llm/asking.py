"""Asking for many completions: piece by piece, shown as it goes; and what a model on this machine has said, kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from fspo.llm.cache import RequestCache
from fspo.llm.types import Completion, CompletionRequest, LanguageModel, Streaming, title_of
from fspo.progress import Task

__all__ = ["Remembered", "ask_all"]


def ask_all(
    llm: LanguageModel, requests: Iterable[CompletionRequest], size: int, task: Task | None = None
) -> Iterator[Completion]:
    """One completion for each request, in order; no more than `size` requests are held at a time.

    A model that streams is kept busy all the while; any other has its pieces one after the other.

    Raises:
        ModelError: see the model's own `complete`.
    """
    pieces: Iterator[list[Completion]]
    if isinstance(llm, Streaming):
        pieces = ([completion] for completion in llm.stream(requests, size))
    else:
        pieces = _in_pieces(llm, iter(requests), size)
    for piece in pieces:
        if task is not None:
            task.advance(len(piece))  # as one, or the first of a piece would be taken for slow and the others for quick
        yield from piece


def _in_pieces(llm: LanguageModel, requests: Iterator[CompletionRequest], size: int) -> Iterator[list[Completion]]:
    while piece := list(islice(requests, size)):
        yield llm.complete(piece)


class Remembered:
    """A model whose answers come out the same in the same batch only: it is asked in fixed batches, kept whole.

    What a killed call has finished is not asked again, and the rest comes out as it would have.
    """

    def __init__(self, model: LanguageModel, cache: RequestCache, batch: int = 96) -> None:
        """Ask `model` for at most `batch` completions at once, and keep them in `cache`."""
        self._model, self._cache, self._batch = model, cache, batch

    @property
    def name(self) -> str:
        """The model's."""
        return self._model.name

    @property
    def title(self) -> str:
        """The model's."""
        return title_of(self._model)

    def complete(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
        """One completion for each request, in order."""
        return [
            completion
            for start in range(0, len(requests), self._batch)
            for completion in self._batched(requests[start : start + self._batch])
        ]

    def _batched(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
        # A key stands for the whole batch, since that decides the rounding of each answer in it.
        whole = json.dumps([self.name, [request.record() for request in requests]], sort_keys=True)
        digest = hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()
        keys = [f"{digest}/{place}" for place in range(len(requests))]
        known = self._cache.get_all(keys)
        if len(known) == len(keys):
            return list(known.values())
        completions = self._model.complete(requests)
        self._cache.put_all(dict(zip(keys, completions, strict=True)))
        return completions
