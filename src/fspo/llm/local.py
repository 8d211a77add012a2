"""A model on this machine as a language model to ask."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from fspo.llm.replies import cleaned
from fspo.llm.types import Completion, CompletionRequest, FinishReason, Message, without_system
from fspo.modeling.chat import Frame, TextEncoder, TextReader, takes_system
from fspo.modeling.generation import Answer, Sampling, end_tokens, generate_ids
from fspo.modeling.loading import load_model, load_tokenizer
from fspo.modeling.model_names import local_identity
from fspo.modeling.rendering import RenderedPrompt
from fspo.modeling.vocabulary import check_vocabulary, rows_of

__all__ = ["LocalModel"]

_BATCH = 96
_BATCH_ON_CPU = 48
"""On a processor 96 answers take more than a minute, which is lost if killed in it. Half as many cost a tenth more time
altogether, a third as many a fifth (18 to 23% measured with the built-in model)."""


class LocalModel:
    """Samples from a transformers model; requests with equal messages read them once.

    An answer does not depend on what else is asked in one call, up to the rounding of another batch. Where the chat
    template takes no system role, the system's text goes in front of the first user's. What a model says while it
    reasons is no part of its answer.
    """

    def __init__(
        self, model: Any, tokenizer: Any, name: str, *, batch_size: int = _BATCH, identity: Any = None
    ) -> None:
        """Take a loaded model; see `load` for one by name. Without an `identity` its name identifies it.

        Raises:
            ModelError: there is no chat template, or the model does not know all tokens of the tokenizer.
        """
        check_vocabulary(tokenizer, rows_of(model), name)
        self._model, self._tokenizer, self.name, self._batch = model, tokenizer, name, batch_size
        self.identity = identity or name
        """Distinguishes the answers of other weights."""
        self._encoder, self._reader = TextEncoder(tokenizer), TextReader(tokenizer)
        self._ends = end_tokens(tokenizer)
        self._takes_system = takes_system(tokenizer)
        self._frames: dict[tuple[str, ...], Frame] = {}

    @classmethod
    def load(cls, place: str | Path, *, name: str = "", dtype: str = "float32", batch_size: int = _BATCH) -> LocalModel:
        """Load the built-in model, a local folder or a hub id; `name` is what it is called, by default the `place`.

        Raises:
            ModelError: the model can't be obtained.
        """
        name = name or str(place)
        model, tokenizer = load_model(str(place), dtype=dtype), load_tokenizer(str(place))
        # After loading, when the weights of a hub are on this machine.
        identity = {**local_identity(str(place), dtype), "model": name}
        return cls(model, tokenizer, name, batch_size=batch_size, identity=identity)

    @property
    def batch(self) -> int:
        """How many requests it is best asked at once, where what is finished is to be kept."""
        return min(self._batch, _BATCH if self._model.device.type != "cpu" else _BATCH_ON_CPU)

    @property
    def title(self) -> str:
        """The name, of a folder the last part alone."""
        return Path(self.name).resolve().name if Path(self.name).is_dir() else self.name

    def complete(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
        """One completion for each request, in order.

        Raises:
            DataError: a message holds what the tokenizer can only read as a control token.
            ModelError: the chat template can't show these turns.
        """
        completions: dict[int, Completion] = {}
        order = sorted(range(len(requests)), key=lambda i: _settings(requests[i]))
        for settings, group in groupby(order, key=lambda i: _settings(requests[i])):
            chosen = list(group)
            max_tokens, temperature, top_p = settings
            sampling = Sampling(max_tokens, temperature, top_p, end_ids=self._ends)
            answers = generate_ids(
                self._model, [self._request(requests[i]) for i in chosen], sampling, batch_size=self._batch
            )
            for i, answer in zip(chosen, answers, strict=True):
                completions[i] = self._completion(requests[i].prefix, answer)
        return [completions[i] for i in range(len(requests))]

    def _request(self, request: CompletionRequest) -> RenderedPrompt:
        trunk = self._encode(request.messages)
        opening = self._encoder.encode(request.prefix) if request.prefix else []
        if not opening:  # an answer needs one token of its own to go on from
            trunk, opening = trunk[:-1], trunk[-1:]
        return RenderedPrompt(tuple(trunk), tuple(opening), seed=request.seed)

    def _completion(self, prefix: str, answer: Answer) -> Completion:
        opening = self._encoder.encode(prefix) if prefix else []
        text = self._reader.read(answer.ids, before=opening)
        finish: FinishReason = "stop" if answer.finished else "length"
        clean = cleaned(text)
        reasoned = clean.reasoning or self._reader.reasons(answer.ids)
        if not (reasoned or clean.control):
            return Completion(text, len(answer.ids), finish)
        if not clean.text and finish == "length":
            return Completion("", len(answer.ids), "reasoning")
        return Completion(clean.text, len(answer.ids), "length" if clean.unended else finish)

    def _encode(self, messages: Sequence[Message]) -> list[int]:
        turns = messages if self._takes_system else without_system(messages)
        start, *between = self._frame(tuple(message.role for message in turns)).parts
        ids = list(start)
        for message, control in zip(turns, between, strict=True):
            ids += self._encoder.encode(message.content)
            ids += control
        return ids

    def _frame(self, roles: tuple[str, ...]) -> Frame:
        if roles not in self._frames:
            self._frames[roles] = Frame.of(self._tokenizer, roles)
        return self._frames[roles]


def _settings(request: CompletionRequest) -> tuple[int, float, float]:
    return request.max_tokens, request.temperature, request.top_p
