"""What asking costs, and a limit that stops before it is passed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fspo.errors import ModelError
from fspo.llm.cache import Spent
from fspo.llm.types import CompletionRequest

__all__ = ["Account", "Budget", "BudgetReached", "Reserved"]

_PER_MESSAGE = 64
"""Tokens of a message beside its text, and of what asks for a prefix."""


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


@dataclass(frozen=True)
class Reserved:
    """Tokens of one request: of its prompt and of its answer."""

    prompt: float
    answer: float


class Account:
    """Counts what is spent and what requests under way may come to; the tasks of one event loop share it."""

    def __init__(self, budget: Budget, spent: Spent | None = None) -> None:
        """Begin with what earlier calls have spent."""
        self._budget = budget
        spent = spent or Spent(0, 0, 0)
        self._requests, self._prompt, self._answer = spent.requests, float(spent.prompt_tokens), float(spent.tokens)
        self._set_aside = Reserved(0.0, 0.0)
        self._under_way = 0
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def spent(self) -> Spent:
        """What is spent, without what is under way."""
        return Spent(self._requests, round(self._prompt), round(self._answer))

    @property
    def dollars(self) -> float:
        """The same in dollars."""
        return self._budget.cost(self._prompt, self._answer)

    async def reserve(self, request: CompletionRequest) -> Reserved:
        """Set aside the most that a request may cost.

        Where there is no room for it beside the requests under way, these are waited for: most cost less than they may.

        Raises:
            BudgetReached: there is no room although none is under way.
        """
        # A token has at least one byte.
        prompt = sum(len(m.content.encode("utf-8", "replace")) + _PER_MESSAGE for m in request.messages)
        reserved = Reserved(prompt + len(request.prefix.encode("utf-8", "replace")), request.max_tokens)
        while (limit := self._passed(reserved)) is not None:
            if not self._under_way:
                used = self._in_words(limit[1], self._prompt, self._answer)
                aside = self._in_words(limit[1], reserved.prompt, reserved.answer)
                raise BudgetReached(
                    f"The budget of {limit[0]} leaves no room for another request: {used} are used "
                    f"({self._requests:,} requests are answered), and {aside}, the most that it may take, have to be "
                    f"set aside for the next; raise endpoint.budget.{limit[1]} and run the same command again: "
                    "what was paid for is kept."
                )
            changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(changed)
            await changed
        self._move(reserved, 1)
        return reserved

    def settle(self, reserved: Reserved, prompt_tokens: float, tokens: float) -> None:
        """Count what an answer did cost, in the place of what was set aside for it."""
        self._requests += 1
        self._prompt += prompt_tokens
        self._answer += tokens
        self.release(reserved)

    def lose(self, reserved: Reserved, used: Reserved | None = None) -> Reserved:
        """Count the cost of a request without an answer, and give back what was set aside for it.

        Args:
            reserved: what was set aside.
            used: the tokens that the server counts; without them the most that it may have cost counts.

        Returns:
            what was counted.
        """
        cost = used or reserved
        self._prompt += cost.prompt
        self._answer += cost.answer
        self.release(reserved)
        return cost

    def release(self, reserved: Reserved) -> None:
        """Give back what was set aside for a request that cost nothing."""
        self._move(reserved, -1)
        waiting, self._waiting = self._waiting, []
        for changed in waiting:
            if not changed.done():
                changed.set_result(None)

    def _in_words(self, setting: str, prompt: float, answer: float) -> str:
        """So many tokens, or what they cost, as the limit of this setting counts."""
        return (
            f"{self._budget.cost(prompt, answer):.4g} dollars"
            if setting == "dollars"
            else f"{prompt + answer:,.0f} tokens"
        )

    def _move(self, reserved: Reserved, sign: int) -> None:
        before = self._set_aside
        self._set_aside = Reserved(before.prompt + sign * reserved.prompt, before.answer + sign * reserved.answer)
        self._under_way += sign

    def _passed(self, more: Reserved) -> tuple[str, str] | None:
        """The limit that `more` might pass, in words, and its setting."""
        prompt = self._prompt + self._set_aside.prompt + more.prompt
        answer = self._answer + self._set_aside.answer + more.answer
        tokens, dollars = self._budget.tokens, self._budget.dollars
        if tokens is not None and prompt + answer > tokens:
            return f"{tokens:,} tokens", "tokens"
        if dollars is not None and self._budget.cost(prompt, answer) > dollars:
            return f"{dollars:g} dollars", "dollars"
        return None
