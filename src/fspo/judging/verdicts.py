"""What is put before a judge and what it says: a comparison, a verdict on it as shown, a judgement in both orders."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from fspo.preferences.types import User

__all__ = ["MIRRORED", "SCORES", "Comparison", "Failure", "Judgement", "OrderTally", "Preferred", "Reason", "Verdict"]

Preferred = Literal["first", "second", "tie"]
"""Which of two responses is preferred."""

MIRRORED: dict[Preferred, Preferred] = {"first": "second", "second": "first", "tie": "tie"}
"""The same, of the two in the other order."""

SCORES: dict[Preferred, float] = {"first": 1.0, "tie": 0.5, "second": 0.0}
"""What a preference counts for the first response."""

Failure = Literal["failed", "refused", "reasoning", "unreadable"]
"""Why a judge gave no verdict: the request failed each time, was refused, got only reasoning, or an answer that names
neither response. The first of these counts where the orders differ."""

Reason = Literal["", "inconsistent", "unclear", "failed", "refused", "reasoning", "unreadable"]
"""Why a pair is not decided; empty where it is."""

_FAILURES: tuple[Failure, ...] = ("failed", "refused", "reasoning", "unreadable")


@dataclass(frozen=True)
class Comparison:
    """Two responses to a prompt, as a judge is shown them for one user."""

    user: User
    prompt: str
    first: str
    second: str

    @property
    def swapped(self) -> Comparison:
        """The same in the other order."""
        return Comparison(self.user, self.prompt, self.second, self.first)

    @property
    def texts(self) -> tuple[str, ...]:
        """All that a judge reads of other people's words."""
        return self.user.description, self.prompt, self.first, self.second


@dataclass(frozen=True)
class Verdict:
    """What a judge says of a comparison as it is shown."""

    preferred: Preferred
    failure: Failure | None = None
    """Why there is no verdict, which counts as a tie."""
    detail: str = ""
    """Of a failure: the answer that is unreadable, or the limit that reasoning used up, in words."""
    probability: float | None = None
    """That the first response is preferred, from a judge that weighs."""
    without_log_probs: bool = False
    """Whether a judge that weighs got no log-probs."""

    def __str__(self) -> str:
        """The preference, or the failure."""
        return self.failure or self.preferred


@dataclass(frozen=True)
class Judgement:
    """What a judge says of a comparison in both orders; decided where they agree."""

    orders: tuple[Verdict, Verdict]
    """Of the comparison, and of the swapped one."""

    @classmethod
    def agreed(cls, preferred: Preferred) -> Judgement:
        """Of a judge that says the same in both orders."""
        return cls((Verdict(preferred), Verdict(MIRRORED[preferred])))

    @property
    def preferred(self) -> Preferred:
        """Which response both orders prefer; else a tie."""
        one, other = self.orders
        return one.preferred if one.preferred == MIRRORED[other.preferred] else "tie"

    @property
    def failure(self) -> Failure | None:
        """Why an order has no verdict, if one has none."""
        found = [verdict.failure for verdict in self.orders if verdict.failure]
        return min(found, key=_FAILURES.index) if found else None

    @property
    def reason(self) -> Reason:
        """Why the pair is not decided; empty where it is."""
        if failure := self.failure:
            return failure
        one, other = self.orders
        if "tie" in (one.preferred, other.preferred):
            return "unclear"
        return "inconsistent" if one.preferred == other.preferred else ""

    @property
    def consistent(self) -> bool:
        """Whether both orders say the same."""
        one, other = self.orders
        return not self.failure and one.preferred == MIRRORED[other.preferred]

    @property
    def probability(self) -> float | None:
        """That the first response is preferred, mean over both orders; None where an order gives none."""
        one, other = (verdict.probability for verdict in self.orders)
        return None if one is None or other is None else (one + 1 - other) / 2

    @property
    def without_log_probs(self) -> int:
        """Number of orders in which a judge that weighs got no log-probs."""
        return sum(verdict.without_log_probs for verdict in self.orders)

    def detail(self, failure: Failure) -> str:
        """What is known of a failure of this kind, if an order failed so."""
        return next((verdict.detail for verdict in self.orders if verdict.failure == failure), "")


@dataclass
class OrderTally:
    """How the two orders of many pairs compare; counts of pairs that were decided in each order."""

    agreed: int = 0
    disagreed: int = 0
    first: int = 0
    """Verdicts, two to a pair, for the response shown first."""
    undecided: Counter[str] = field(default_factory=Counter)
    """Reason -> pairs."""

    def add(self, judgement: Judgement) -> None:
        """Count one pair."""
        if reason := judgement.reason:
            self.undecided[reason] += 1
        preferred: Sequence[Preferred] = [verdict.preferred for verdict in judgement.orders]
        if "tie" not in preferred:
            self.first += preferred.count("first")
            self.agreed += not reason
            self.disagreed += bool(reason)

    @property
    def read(self) -> int:
        """Pairs that were decided in each order."""
        return self.agreed + self.disagreed

    @property
    def agreement(self) -> float:
        """Share of these pairs where both orders name the same response; NaN for none."""
        return self.agreed / self.read if self.read else math.nan

    @property
    def first_share(self) -> float:
        """Share of the verdicts for the response shown first: 0.5 for a judge without order bias; NaN for none."""
        return self.first / (2 * self.read) if self.read else math.nan

    @property
    def accuracy(self) -> float:
        """Estimated share of the decided pairs that are decided as the judge means it, 0.5 to 1; NaN for none.

        If the better response is named with probability x when shown first and 1 - y when shown second, independently
        and alike for all pairs, then first_share = (x + y) / 2 and agreement = x (1 - y) + (1 - x) y; both are solved
        for x and y, and x (1 - y) / agreement of the pairs that agree are right.
        """
        if not self.agreed:
            return math.nan
        share, agreement = self.first_share, self.agreement
        spread = math.sqrt(max(0.0, share * share - share + agreement / 2))
        x, y = min(1.0, share + spread), max(0.0, share - spread)
        return min(1.0, max(0.5, x * (1 - y) / agreement))
