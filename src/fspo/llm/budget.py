"""What asking costs, and a limit that stops before it is passed."""

from __future__ import annotations

import threading

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fspo.errors import ModelError
from fspo.llm.cache import Spent
from fspo.llm.types import CompletionRequest

__all__ = ["Account", "Budget", "BudgetReached"]

_CHARACTERS_PER_TOKEN = 2.0
"""Fewer than any usual tokenizer has on average, so that a prompt is not thought too small."""
_PER_MESSAGE = 8


class BudgetReached(ModelError):
    """The next request might pass the budget."""


class Budget(BaseModel):
    """Limits of what an endpoint may cost, over all calls of a run together; none by default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tokens: int | None = Field(default=None, ge=1, description="Most tokens, prompts and answers together.")
    dollars: float | None = Field(default=None, gt=0, description="Most dollars; needs both prices.")
    dollars_per_million_prompt_tokens: float | None = Field(default=None, ge=0)
    dollars_per_million_answer_tokens: float | None = Field(default=None, ge=0)

    def cost(self, prompt_tokens: float, tokens: float) -> float:
        """Dollars for so many tokens; 0 where no price is known."""
        prompt, answer = self.dollars_per_million_prompt_tokens, self.dollars_per_million_answer_tokens
        return (prompt_tokens * (prompt or 0.0) + tokens * (answer or 0.0)) / 1e6

    @model_validator(mode="after")
    def _priced(self) -> Budget:
        if self.dollars is not None and None in (
            self.dollars_per_million_prompt_tokens,
            self.dollars_per_million_answer_tokens,
        ):
            raise ValueError(
                "dollars: give dollars_per_million_prompt_tokens and dollars_per_million_answer_tokens too"
            )
        return self


class Account:
    """Counts what is spent and what requests under way may come to; threads share it."""

    def __init__(self, budget: Budget, spent: Spent | None = None) -> None:
        """Begin with what earlier calls have spent."""
        self._budget = budget
        spent = spent or Spent(0, 0, 0)
        self._requests, self._prompt, self._answer = spent.requests, float(spent.prompt_tokens), float(spent.tokens)
        self._lock = threading.Lock()

    @property
    def spent(self) -> Spent:
        """What is spent, with what is under way at its worst."""
        return Spent(self._requests, round(self._prompt), round(self._answer))

    @property
    def dollars(self) -> float:
        """The same in dollars."""
        return self._budget.cost(self._prompt, self._answer)

    def reserve(self, request: CompletionRequest) -> tuple[float, float]:
        """Set aside the most that a request may cost, and return it in tokens: prompt, answer.

        Raises:
            BudgetReached: that would pass the budget.
        """
        prompt = sum(len(m.content) / _CHARACTERS_PER_TOKEN + _PER_MESSAGE for m in request.messages)
        prompt += len(request.prefix) / _CHARACTERS_PER_TOKEN
        answer = float(request.max_tokens)
        with self._lock:
            tokens, dollars = self._budget.tokens, self._budget.dollars
            if tokens is not None and self._prompt + self._answer + prompt + answer > tokens:
                raise self._reached(f"{tokens:,} tokens", "tokens")
            if dollars is not None and self.dollars + self._budget.cost(prompt, answer) > dollars:
                raise self._reached(f"{dollars:g} dollars", "dollars")
            self._add(1, prompt, answer)
        return prompt, answer

    def settle(self, reserved: tuple[float, float], prompt_tokens: int, tokens: int) -> None:
        """Count what an answer did cost in the place of what was set aside for it."""
        with self._lock:
            self._add(0, prompt_tokens - reserved[0], tokens - reserved[1])

    def release(self, reserved: tuple[float, float]) -> None:
        """Give back what was set aside for a request that was not answered."""
        with self._lock:
            self._add(-1, -reserved[0], -reserved[1])

    def _add(self, requests: int, prompt: float, answer: float) -> None:
        self._requests += requests
        self._prompt += prompt
        self._answer += answer

    def _reached(self, limit: str, setting: str) -> BudgetReached:
        return BudgetReached(
            f"The budget of {limit} leaves no room for another request ({self._requests:,} are answered or under way); "
            f"raise endpoint.budget.{setting} and run the same command again: what was paid for is kept."
        )
