"""A model on this machine as a language model to ask."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from fspo.errors import ModelError
from fspo.llm.types import Completion, CompletionRequest, Message
from fspo.modeling.chat import TextEncoder, show_turns
from fspo.modeling.generation import Answer, AnswerRequest, Sampling, end_tokens, generate_ids
from fspo.modeling.loading import load_model, load_tokenizer

__all__ = ["LocalModel"]

_BATCH = 96
_BATCH_ON_CPU = 48
"""On a processor 96 answers take more than a minute, which is lost if killed in it. Half as many cost a tenth more time
altogether, a third as many a fifth (18 to 23 % measured with the embedded model)."""
_PLACE = "MESSAGEPLACE{}X"


class LocalModel:
    """Samples from a transformers model; requests with equal messages read them once.

    An answer does not depend on what else is asked in one call, up to the rounding of another batch.
    """

    def __init__(self, model: Any, tokenizer: Any, name: str, *, batch_size: int = _BATCH) -> None:
        """Take a loaded model; see `load` for one by name."""
        self._model, self._tokenizer, self._name, self._batch = model, tokenizer, name, batch_size
        self._encoder = TextEncoder(tokenizer)
        self._ends = end_tokens(tokenizer)
        self._frames: dict[tuple[str, ...], list[tuple[int, ...]]] = {}

    @classmethod
    def load(cls, name: str | Path, *, dtype: str = "float32", batch_size: int = _BATCH) -> LocalModel:
        """Load the embedded model, a local folder or a hub id.

        Raises:
            ModelError: the model can't be obtained.
        """
        return cls(load_model(str(name), dtype=dtype), load_tokenizer(str(name)), str(name), batch_size=batch_size)

    @property
    def name(self) -> str:
        """The name it was loaded by."""
        return self._name

    @property
    def batch(self) -> int:
        """How many requests it is best asked at once, where what is finished is to be kept."""
        return min(self._batch, _BATCH if self._model.device.type != "cpu" else _BATCH_ON_CPU)

    @property
    def title(self) -> str:
        """The name, of a folder the last part alone."""
        return Path(self._name).resolve().name if Path(self._name).is_dir() else self._name

    def complete(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
        """One completion for each request, in order.

        Raises:
            DataError: a message holds what the tokenizer can only read as a control token.
            ModelError: the chat template can't show these roles.
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

    def _request(self, request: CompletionRequest) -> AnswerRequest:
        trunk = self._encode(request.messages)
        opening = self._encoder.encode(request.prefix) if request.prefix else []
        if not opening:  # an answer needs one token of its own to go on from
            trunk, opening = trunk[:-1], trunk[-1:]
        return AnswerRequest(trunk, opening, seed=request.seed)

    def _completion(self, prefix: str, answer: Answer) -> Completion:
        # Decoded together with the prefix: some tokenizers drop the space before a text's first word.
        opening = self._encoder.encode(prefix) if prefix else []
        whole = str(self._tokenizer.decode([*opening, *answer.ids], skip_special_tokens=True))
        begun = str(self._tokenizer.decode(opening, skip_special_tokens=True))
        return Completion(whole[len(begun) :], len(answer.ids), "stop" if answer.finished else "length")

    def _encode(self, messages: Sequence[Message]) -> list[int]:
        frame = self._frame(tuple(message.role for message in messages))
        ids = list(frame[0])
        for message, control in zip(messages, frame[1:], strict=True):
            ids += self._encoder.encode(message.content)
            ids += control
        return ids

    def _frame(self, roles: tuple[str, ...]) -> list[tuple[int, ...]]:
        """The control ids before, between and after the messages, read off the chat template."""
        if roles not in self._frames:
            if not getattr(self._tokenizer, "chat_template", None):
                raise ModelError(
                    f"{self._name} has no chat template; use an instruction-tuned model, such as smollm2-135m."
                )
            turns = [(role, _PLACE.format(i)) for i, role in enumerate(roles)]
            shown = show_turns(self._tokenizer, turns, opening=True)
            parts = re.split("|".join(_PLACE.format(i) for i in range(len(roles))), shown)
            if len(parts) != len(roles) + 1:
                raise ModelError(f"The chat template of {self._name} can't show the turns {', '.join(roles)}.")
            self._frames[roles] = [tuple(self._tokenizer.encode(part, add_special_tokens=False)) for part in parts]
        return self._frames[roles]


def _settings(request: CompletionRequest) -> tuple[int, float, float]:
    return request.max_tokens, request.temperature, request.top_p
