"""A plain reward model of transformers (sequence classification with one output), shown the shots in the user's turn.

The words around shots and query are those that the methods are shown, and the user's texts never turn into control
tokens; see `fspo.modeling.rendering`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from fspo.evaluation.scoring.reward_models.protocol import RewardRequest
from fspo.identity import digest
from fspo.modeling.chat import TextEncoder, apply_template
from fspo.modeling.layouts import ShotTemplate
from fspo.modeling.loading import context_length
from fspo.modeling.model_names import weights_of
from fspo.modeling.vocabulary import check_vocabulary, rows_of
from fspo.preferences.types import Preference

__all__ = ["ClassifierRewardModel", "classifier_identity"]

_LAYOUT = 1
"""Counts up whenever shots and query are put together in another way."""


@dataclass(frozen=True)
class _Chat:
    """What the chat template puts around a user's message and its answer; all empty where there is no template."""

    before_user: tuple[int, ...]
    between: tuple[int, ...]
    after: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: Any) -> _Chat:
        user, answer = "QUERYPLACE", "ANSWERPLACE"
        shown = apply_template(tokenizer, [("user", user), ("assistant", answer)], opening=False)
        start, rest = shown.split(user)
        middle, end = rest.split(answer)
        return cls(*(tuple(tokenizer.encode(part, add_special_tokens=False)) for part in (start, middle, end)))


class ClassifierRewardModel:
    """Scores prompt and response as one chat, or as a pair of texts where the tokenizer has no chat template.

    Responses go through the model one at a time: no padding, so that a score depends on nothing beside it.
    """

    def __init__(
        self, model: Any, tokenizer: Any, *, name: str, max_length: int | None = None, identity: str = ""
    ) -> None:
        """Score with `model`, `max_length` tokens at most (by default what it takes); older shots are left out.

        Raises:
            ModelError: the model does not know all tokens of the tokenizer.
        """
        check_vocabulary(tokenizer, rows_of(model), name)
        self._model, self._tokenizer, self.name = model, tokenizer, name
        self.identity = identity
        """Distinguishes the scores of different weights; empty if that is unknown."""
        self._max_length = max_length or context_length(model)
        self._encoder, self._template = TextEncoder(tokenizer), ShotTemplate()
        self._chat = _Chat.of(tokenizer) if getattr(tokenizer, "chat_template", None) else None

    @classmethod
    def load(cls, name: str | Path, *, dtype: str = "float32", max_length: int | None = None) -> ClassifierRewardModel:
        """The model of that name: a local folder or a hub id.

        Raises:
            ModelError: it can't be obtained, or is no reward model.
        """
        from fspo.modeling.loading import load_reward_model, load_tokenizer

        model, tokenizer = load_reward_model(name, dtype), load_tokenizer(name)
        identity = classifier_identity(name, dtype=dtype, max_length=max_length) or ""
        return cls(model, tokenizer, name=str(name), max_length=max_length, identity=identity)

    def score(self, requests: Sequence[RewardRequest]) -> list[float | None]:
        """The model's output for each request; None where a prompt and a response alone are longer than it can read."""
        found: list[float | None] = []
        for (shots, prompt), group in groupby(requests, key=lambda request: (request.shots, request.prompt)):
            responses = [request.response for request in group]
            # Responses that are compared are shown the same shots.
            rooms = [self._room_for(shots, prompt, response) for response in responses]
            kept = min((room for room in rooms if room is not None), default=0)
            seen = shots[len(shots) - kept :]
            found += [
                None if room is None else self._score(self._ids(seen, prompt, response))
                for room, response in zip(rooms, responses, strict=True)
            ]
        return found

    def _score(self, ids: Sequence[int]) -> float:
        import torch

        with torch.inference_mode():
            return float(self._model(input_ids=torch.tensor([ids], device=self._model.device)).logits[0, 0])

    def _room_for(self, shots: Sequence[Preference], prompt: str, response: str) -> int | None:
        """How many of the newest shots there is room for; None where there is none for the query itself."""
        for kept in range(len(shots), -1, -1):
            length = len(self._ids(shots[len(shots) - kept :], prompt, response))
            if self._max_length is None or length <= self._max_length:
                return kept
        return None

    def _ids(self, shots: Sequence[Preference], prompt: str, response: str) -> list[int]:
        said = self._said(shots, prompt)
        if self._chat is None:
            both = self._tokenizer(said, response, split_special_tokens=True)
            return list(both["input_ids"])
        chat, encode = self._chat, self._encoder.encode
        return [*chat.before_user, *encode(said), *chat.between, *encode(response), *chat.after]

    def _said(self, shots: Sequence[Preference], prompt: str) -> str:
        """The user's turn: the shots, and then the query."""
        if not shots:
            return prompt
        told = "".join(self._template.render_shot(shot, first=place == 0) for place, shot in enumerate(shots))
        return told + self._template.render_query(prompt)


def classifier_identity(name: str | Path, *, dtype: str, max_length: int | None) -> str | None:
    """What tells the scores of a classifier from another's, without loading it; None where it is not here yet."""
    weights = weights_of(name)
    if weights is None:
        return None
    return f"classifier {digest([weights, dtype, max_length, asdict(ShotTemplate()), _LAYOUT], 64)}"
