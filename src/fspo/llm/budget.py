"""What asking costs, and a limit that stops before it is passed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from pydantic import Field, model_validator

from fspo.errors import ModelError
from fspo.llm.cache import Spent
from fspo.llm.types import CompletionRequest
from fspo.pydantic_errors import Section

__all__ = ["Account", "Budget", "BudgetReached", "Reserved"]

_PER_MESSAGE = 64
"""Tokens of a message beside its text, and of what asks for a prefix."""


class BudgetReached(ModelError):
    """The next request might pass the budget."""


@dataclass(frozen=True)
class Reserved:
    """Tokens of requests: of their prompts and of their answers."""

    prompt: float
    answer: float

    def plus(self, more: Reserved) -> Reserved:
        """Both together."""
        return Reserved(self.prompt + more.prompt, self.answer + more.answer)


class Budget(Section):
    """Limits of what an endpoint may cost, over all calls of a run together; by default none."""

    tokens: int | None = Field(default=None, ge=1, description="Maximum tokens, prompts and answers together.")
    dollars: float | None = Field(default=None, gt=0, description="Maximum dollars; needs both prices.")
    dollars_per_million_prompt_tokens: float | None = Field(
        default=None, ge=0, description="Dollars for a million tokens of prompts."
    )
    dollars_per_million_answer_tokens: float | None = Field(
        default=None, ge=0, description="Dollars for a million tokens of answers."
    )

    def cost(self, prompt_tokens: float, tokens: float) -> float:
        """Dollars for so many tokens; 0 where no price is known."""
        prompt, answer = self.dollars_per_million_prompt_tokens, self.dollars_per_million_answer_tokens
        return (prompt_tokens * (prompt or 0.0) + tokens * (answer or 0.0)) / 1e6

    def passed(self, used: Reserved) -> str:
        """The setting whose limit so many tokens pass; empty where they pass none."""
        if self.tokens is not None and used.prompt + used.answer > self.tokens:
            return "tokens"
        passes = self.dollars is not None and self.cost(used.prompt, used.answer) > self.dollars
        return "dollars" if passes else ""

    def left(self, spent: Spent | None = None, *, share: float = 1.0) -> Budget:
        """What is left of the limits after so much was spent; of that, a share."""
        used = Reserved(0, 0) if spent is None else Reserved(spent.prompt_tokens, spent.tokens)
        tokens, dollars = self.tokens, self.dollars
        if tokens is not None:
            tokens = int(max(0, tokens - used.prompt - used.answer) * share)
        if dollars is not None:
            dollars = max(0.0, dollars - self.cost(used.prompt, used.answer)) * share
        return self.model_copy(update={"tokens": tokens, "dollars": dollars})

    def limit(self, setting: str) -> str:
        """One of the limits, in words."""
        return f"{self.dollars:g} dollars" if setting == "dollars" else f"{self.tokens:,} tokens"

    def in_words(self, setting: str, used: Reserved) -> str:
        """So many tokens, or what they cost, as this limit counts."""
        if setting == "dollars":
            return f"{self.cost(used.prompt, used.answer):.4g} dollars"
        return f"{used.prompt + used.answer:,.0f} tokens"

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
    """Counts what is spent at a server and what requests under way may come to.

    All endpoints of the server share it, each with its own budget; so do the tasks of the one event loop.
    """

    def __init__(self, spent: Spent | None = None) -> None:
        """Begin with what earlier calls have spent."""
        spent = spent or Spent(0, 0, 0)
        self._requests, self._used = spent.requests, Reserved(spent.prompt_tokens, spent.tokens)
        self._set_aside = Reserved(0.0, 0.0)
        self._under_way = 0
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def spent(self) -> Spent:
        """What is spent, without what is under way."""
        return Spent(self._requests, round(self._used.prompt), round(self._used.answer))

    async def reserve(self, request: CompletionRequest, budget: Budget) -> Reserved:
        """Set aside the most that a request may cost.

        Where there is no room for it beside the requests under way, these are waited for: most cost less than they may.

        Raises:
            BudgetReached: there is no room although none is under way.
        """
        # A token has at least one byte.
        prompt = sum(len(m.content.encode("utf-8", "replace")) + _PER_MESSAGE for m in request.messages)
        reserved = Reserved(prompt + len(request.prefix.encode("utf-8", "replace")), request.max_tokens)
        while setting := budget.passed(self._used.plus(self._set_aside).plus(reserved)):
            if not self._under_way:
                raise BudgetReached(
                    f"The budget of {budget.limit(setting)} leaves no room for another request: "
                    f"{budget.in_words(setting, self._used)} are used ({self._requests:,} requests are answered), and "
                    f"{budget.in_words(setting, reserved)}, the most that it may take, have to be set aside for the "
                    f"next; raise endpoint.budget.{setting} and run the same command again: what was paid for is kept."
                )
            changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(changed)
            await changed
        self._set_aside = self._set_aside.plus(reserved)
        self._under_way += 1
        return reserved

    def settle(self, reserved: Reserved, prompt_tokens: float, tokens: float) -> None:
        """Count what an answer did cost, in the place of what was set aside for it."""
        self._requests += 1
        self.lose(reserved, Reserved(prompt_tokens, tokens))

    def lose(self, reserved: Reserved, used: Reserved | None = None) -> Reserved:
        """Count the cost of a request without an answer, and give back what was set aside for it.

        Returns what was counted: `used`, the tokens that the server counts, or without them the most that it may have
        cost.
        """
        cost = used or reserved
        self._used = self._used.plus(cost)
        self.release(reserved)
        return cost

    def release(self, reserved: Reserved) -> None:
        """Give back what was set aside for a request that cost nothing."""
        self._set_aside = self._set_aside.plus(Reserved(-reserved.prompt, -reserved.answer))
        self._under_way -= 1
        waiting, self._waiting = self._waiting, []
        for changed in waiting:
            if not changed.done():
                changed.set_result(None)
