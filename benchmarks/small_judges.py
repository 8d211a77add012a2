"""Judges for one machine that read the usual prompt of the pairwise judge: by meaning, and by a model's log-odds.

Both stand before a language model that is asked for everything else, and answer what is asked at temperature 0.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fspo.llm.quoting import texts_of
from fspo.llm.types import Completion, CompletionRequest, LanguageModel
from fspo.modeling.chat import ChatFormat, TextEncoder
from fspo.modeling.lm_head import hidden_states, logits
from fspo.modeling.loading import load_model, load_tokenizer
from fspo.synthesis.diversity import Embed

__all__ = ["BIAS", "ByLogOdds", "ByMeaning", "Put", "put"]

BIAS = 0.02
"""Of the judge by meaning, for the response shown first; in cosines."""

_OPENING = '{"preferred": "'
_EMPTY = "..."
_RESPONSE = re.compile(r"(<(?:first|second)-(\d+)>).*?(</(?:first|second)-\2>)", re.DOTALL)
_TOGETHER = 8
"""Prompts of about one length that are read at once."""


@dataclass(frozen=True)
class Put:
    """What the usual prompt puts before a judge."""

    description: str
    first: str
    second: str
    empty: str
    """The prompt with nothing in the place of both responses."""


def put(prompt: str) -> Put:
    """Read the usual prompt.

    Raises:
        ValueError: it is another one.
    """
    texts = texts_of(prompt)
    if not texts.keys() >= {"description", "first", "second"}:
        raise ValueError("this is not the usual judge's prompt, which quotes the user, the question and both responses")
    return Put(texts["description"], texts["first"], texts["second"], _RESPONSE.sub(rf"\1{_EMPTY}\3", prompt))


class _Judge:
    """Answers A, B or unclear by one figure for each prompt: above 0 for the response shown first."""

    about = ""

    def __init__(self, model: LanguageModel, unclear: float) -> None:
        self._model, self._unclear = model, unclear

    @property
    def name(self) -> str:
        """The model's, and how it is judged."""
        return f"{self._model.name}, judged {self.about}"

    def complete(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
        """One completion for each request, in order.

        Raises:
            ModelError: see the model's own `complete`.
        """
        judged = [request.messages[-1].content for request in requests if request.temperature == 0]
        others = iter(self._model.complete([request for request in requests if request.temperature > 0]))
        answers = iter(self.figures(judged) if judged else [])
        return [self._said(next(answers)) if r.temperature == 0 else next(others) for r in requests]

    def figures(self, prompts: Sequence[str]) -> list[float]:
        """How much more the first response is the user's than the second."""
        raise NotImplementedError

    def _said(self, figure: float) -> Completion:
        choice = "unclear" if abs(figure) < self._unclear else "A" if figure > 0 else "B"
        return Completion(f'{{"preferred": "{choice}"}}', 1, "stop")


class ByMeaning(_Judge):
    """Whichever response is closer in meaning to the description, with a set bias for the one shown first.

    A weak reader, and no person; but it reads the description, what refinement adds to it too, and where two responses
    are about as close it goes by their order, as language models do.
    """

    about = "by closeness in meaning to the description"

    def __init__(self, model: LanguageModel, embed: Embed, *, bias: float = BIAS, unclear: float = 0.01) -> None:
        """Judge by the cosines of `embed`: their difference and `bias`; closer to 0 than `unclear` is no answer."""
        super().__init__(model, unclear)
        self._embed, self._bias = embed, bias
        self._known: dict[str, Any] = {}

    def figures(self, prompts: Sequence[str]) -> list[float]:
        """cos(description, first) - cos(description, second) + bias."""
        shown = [put(prompt) for prompt in prompts]
        texts = [text for one in shown for text in (one.description, one.first, one.second)]
        new = list(dict.fromkeys(text for text in texts if text not in self._known))
        if new:
            self._known.update(zip(new, self._embed(new), strict=True))
        return [
            float(self._known[one.description] @ (self._known[one.first] - self._known[one.second])) + self._bias
            for one in shown
        ]


class ByLogOdds(_Judge):
    """What a small model would say, read off its next token.

    Asked to write its answer, a model of 135 million weights names nearly always the same letter. Its log-odds of A
    over B after the prompt still move with the responses; what they are without any responses is subtracted (as in
    contextual calibration, Zhao et al. 2021, arXiv 2102.09690). How much the order then still decides is what the
    agreement of both orders measures.
    """

    about = "by its log-odds"

    def __init__(self, model: LanguageModel, name: str, *, unclear: float = 0.05) -> None:
        """Load the model `name`; log-odds closer to 0 than `unclear` nats are no answer.

        Raises:
            ModelError: it can't be obtained.
        """
        super().__init__(model, unclear)
        self._judge, tokenizer = load_model(name), load_tokenizer(name)
        self._chat, self._encoder = ChatFormat.of(tokenizer), TextEncoder(tokenizer)
        self._letters = [self._encoder.encode(letter)[0] for letter in "AB"]
        self._known: dict[str, float] = {}

    def figures(self, prompts: Sequence[str]) -> list[float]:
        """The log-odds of A over B after each prompt, less the same without responses."""
        empty = [put(prompt).empty for prompt in prompts]
        self._read([prompt for prompt in dict.fromkeys([*prompts, *empty]) if prompt not in self._known])
        return [self._known[prompt] - self._known[plain] for prompt, plain in zip(prompts, empty, strict=True)]

    def _read(self, prompts: Sequence[str]) -> None:
        rows = {prompt: self._ids(prompt) for prompt in prompts}
        ordered = sorted(prompts, key=lambda prompt: len(rows[prompt]))
        for start in range(0, len(ordered), _TOGETHER):
            chosen = ordered[start : start + _TOGETHER]
            self._known.update(zip(chosen, self._next([rows[prompt] for prompt in chosen]), strict=True))

    def _next(self, rows: Sequence[Sequence[int]]) -> list[float]:
        """The log-odds after each row; what is padded stands behind a row's last token, which does not see it."""
        width = max(map(len, rows))
        ids = torch.tensor([[*row, *[row[-1]] * (width - len(row))] for row in rows], device=self._judge.device)
        last = torch.tensor([len(row) - 1 for row in rows], device=self._judge.device)
        with torch.inference_mode():
            hidden = hidden_states(self._judge, input_ids=ids)
            scores = logits(self._judge, hidden[torch.arange(len(rows)), last])
        odds: list[float] = (scores[:, self._letters[0]] - scores[:, self._letters[1]]).tolist()
        return odds

    def _ids(self, prompt: str) -> list[int]:
        said = [*self._chat.before_user, *self._encoder.encode(prompt), *self._chat.before_answer]
        return [*said, *self._encoder.encode(_OPENING)]
