"""From a prompt to an answer: rendered, sampled and decoded, in one way for every caller."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch

from fspo.modeling.chat import TextReader
from fspo.modeling.generation import (
    Sampling,
    decode_answers,
    end_tokens,
    generate_ids,
    sampled_ids,
)
from fspo.modeling.rendering import EpisodeRenderer, RenderedPrompt
from fspo.modeling.user_views import PerUser
from fspo.preferences.types import Preference, Turn

__all__ = ["AnswerText", "Enter", "Prompt", "Reply", "answer", "answer_per_user", "stream_answer"]

_LONGEST_TAG = len("<reasoning>")

Enter = Callable[[], AbstractContextManager[torch.nn.Module]]
"""Gives a model for as long as the context lasts, such as one whose adapters are switched on for it."""


@dataclass(frozen=True)
class Prompt:
    """A prompt, and what the model sees of the person who asks."""

    text: str | tuple[Turn, ...]
    shots: Sequence[Preference] = ()
    description: str = ""
    mirror_description: str | None = None
    """Describes the person who would have given the opposite labels; needed for guidance, by default `description`."""
    seed: int | None = None
    """Which draw this is. With it, a reply does not depend on the other prompts; without, its place among them
    counts."""


@dataclass(frozen=True)
class Reply:
    """What a model answered."""

    text: str
    """Without control tokens, reasoning and outer white space."""
    finished: bool = True
    """Whether the model ended its answer, rather than running into `max_new_tokens`."""
    dropped_shots: int = 0
    """The oldest shots, for which there was no room beside the prompt and the answer."""


def answer(
    model: torch.nn.Module,
    renderer: EpisodeRenderer,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    *,
    seed: int = 0,
    batch_size: int = 64,
) -> list[Reply]:
    """A reply to every prompt, in order; at most `batch_size` are sampled side by side.

    Raises:
        DataError: a prompt alone is too long.
        ModelError: the architecture can't decode over shared trunks.
    """
    shown = [_rendered(renderer, prompt, sampling) for prompt in prompts]
    answers = generate_ids(model, shown, _with_ends(sampling, renderer), seed=seed, batch_size=batch_size)
    texts = decode_answers(renderer.tokenizer, answers)
    return [
        Reply(text, found.finished, one.dropped_shots) for text, found, one in zip(texts, answers, shown, strict=True)
    ]


def answer_per_user(
    per_user: PerUser, prompts: Sequence[Prompt], sampling: Sampling, *, seed: int = 0, batch_size: int = 64
) -> list[Reply]:
    """The same where every user has a policy of their own, which sees what it makes of the prompt's shots.

    Raises:
        DataError, ModelError: as `answer`.
    """
    found: dict[int, Reply] = {}
    users: dict[tuple[Preference, ...], list[int]] = {}
    for place, prompt in enumerate(prompts):
        users.setdefault(tuple(prompt.shots), []).append(place)
    for shots, places in users.items():
        with per_user.for_user(shots) as view:
            asked = [replace(prompts[place], description=view.text, mirror_description=None) for place in places]
            replies = answer(view.model, view.renderer, asked, sampling, seed=seed, batch_size=batch_size)
        found.update(zip(places, replies, strict=True))
    return [found[place] for place in range(len(prompts))]


def stream_answer(
    enter: Enter, renderer: EpisodeRenderer, prompt: Prompt, sampling: Sampling, *, seed: int = 0
) -> Iterator[str]:
    """The parts of the reply as they are sampled; joined they are what `answer` gives.

    The model is entered for each token, so that it can be used otherwise between two of them.

    Raises:
        DataError: the prompt alone is too long.
        ModelError: the architecture can't decode over shared trunks.
    """
    shown = _rendered(renderer, prompt, sampling)
    text = AnswerText(TextReader(renderer.tokenizer))
    for index in sampled_ids(enter, shown, _with_ends(sampling, renderer), seed=seed):
        if more := text.add(index):
            yield more
    if rest := text.end():
        yield rest


class AnswerText:
    """The text of an answer that is being sampled, in parts that no later token changes."""

    def __init__(self, reader: TextReader) -> None:
        """Nothing is sampled yet."""
        self._reader = reader
        self._ids: list[int] = []
        self._given = ""

    def add(self, index: int) -> str:
        """What one more token adds to the text; perhaps nothing."""
        self._ids.append(index)
        # White space at the end is held back, since nothing may follow it; so is half a character.
        text = self._reader.read(self._ids).strip().rstrip("\N{REPLACEMENT CHARACTER}").rstrip()
        return "" if _may_open_reasoning(text) else self._beyond(text)

    def end(self) -> str:
        """What was held back, now that the answer is finished."""
        return self._beyond(self._reader.read(self._ids).strip())

    def _beyond(self, text: str) -> str:
        if not text.startswith(self._given):
            return ""
        more = text[len(self._given) :]
        self._given = text
        return more


def _may_open_reasoning(text: str) -> bool:
    """Whether more of the text may show that it is reasoning, between tags that are no tokens."""
    return text.startswith("<") and ">" not in text and len(text) < _LONGEST_TAG


def _rendered(renderer: EpisodeRenderer, prompt: Prompt, sampling: Sampling) -> RenderedPrompt:
    shown = renderer.render_prompt(
        prompt.shots,
        prompt.text,
        prompt.description,
        mirror_description=prompt.mirror_description,
        reserve=sampling.max_new_tokens,
    )
    return replace(shown, seed=prompt.seed)


def _with_ends(sampling: Sampling, renderer: EpisodeRenderer) -> Sampling:
    """The sampling with the tokens that end an answer, unless it names its own."""
    return sampling if sampling.end_ids else replace(sampling, end_ids=end_tokens(renderer.tokenizer))
