"""Descriptions of users, written by the model that has read their shots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from fspo.modeling.generation import Sampling, decode_answers, end_tokens, generate_ids
from fspo.modeling.rendering import EpisodeRenderer
from fspo.preferences.types import Preference

__all__ = ["Description", "write_descriptions"]


@dataclass(frozen=True)
class Description:
    """What a model wrote of a user, and what it took."""

    text: str
    """One line; empty where there were no shots to go by."""
    tokens: int = 0
    """Tokens written."""
    read: int = 0
    """Tokens read before."""


def write_descriptions(
    model: torch.nn.Module,
    renderer: EpisodeRenderer,
    shots: Sequence[Sequence[Preference]],
    *,
    question: str = "",
    seeds: Sequence[int] | None = None,
    max_new_tokens: int = 48,
    temperature: float = 0.0,
    batch_size: int = 32,
) -> list[Description]:
    """A description of each user by their shots; without shots there is none.

    `question` asks for it; by default it is the layout's. `seeds` say which draw each is, where `temperature` is above
    0; 0 takes the most probable tokens. Of `max_new_tokens`, what was begun beyond the last whole sentence is dropped.

    Raises:
        ModelError: the architecture can't decode over shared trunks.
    """
    asked = {
        i: renderer.render_describing(own, question=question, reserve=max_new_tokens)
        for i, own in enumerate(shots)
        if own
    }
    requests = [replace(one, seed=None if seeds is None else seeds[i]) for i, one in asked.items()]
    sampling = Sampling(max_new_tokens, temperature, end_ids=end_tokens(renderer.tokenizer))
    answers = generate_ids(model, requests, sampling, batch_size=batch_size)
    found = [Description("") for _ in shots]
    texts = decode_answers(renderer.tokenizer, answers)
    for (i, one), text, answer in zip(asked.items(), texts, answers, strict=True):
        line = _line(text, whole=answer.finished)
        found[i] = Description(line, len(answer.ids), len(one.trunk_ids) + len(one.prompt_ids))
    return found


def _line(text: str, *, whole: bool) -> str:
    line = " ".join(text.split())
    if whole:
        return line
    end = max(line.rfind(mark) for mark in ".!?")
    return line[: end + 1] or line
