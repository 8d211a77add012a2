"""Records of studies whose truth is known, made without pages or models."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from fspo.study.records import Choice, Item, Participant, Stage, StudyRecords

PAIR = ("personal", "base")
WORDS = " ".join(f"word{n}" for n in range(30))
Rate = Callable[[Item], float]
"""The chance that a participant chooses the first arm's text on an item."""


def person(name: str, **changes: Any) -> Participant:
    values = {"study": "made", "language": "en", "consent": "1", "consented": 0, "finished": 900_000}
    return Participant(id=name, **{**values, **changes})


def item(who: str, number: int, stage: Stage = "compare", **changes: Any) -> Item:
    """An item that was voted on after a minute."""
    values: dict[str, Any] = {"prompt": "Why?", "first": WORDS, "second": WORDS[1:], "position": number, "shown": 0}
    if stage == "compare":
        values |= {"first_arm": PAIR[0], "second_arm": PAIR[1], "shots": 4}
    values |= {"choice": "first", "voted": 60_000}
    return Item(id=f"{who}-{stage}-{number}", participant=who, stage=stage, **{**values, **changes})


def attention(who: str, number: int, right: Choice, choice: Choice | None, stage: Stage = "compare") -> Item:
    changes = {"right": right, "choice": choice, "first": "blue", "second": "table"}
    return item(who, number, stage, first_arm="", second_arm="", **changes)


def attentive(
    who: str, chance: random.Random, rate: Rate | float, *, comparisons: int = 11, labels: int = 0, ties: float = 0.0
) -> list[Item]:
    """Balanced comparisons, in which the personal arm wins with a chance of `rate`, and labels by a coin."""
    sides = [number % 2 == 0 for number in range(comparisons)]
    chance.shuffle(sides)
    made = []
    for number, swapped in enumerate(sides, start=1):
        arms = PAIR[::-1] if swapped else PAIR
        one = item(who, number, first_arm=arms[0], second_arm=arms[1], shots=2 + 2 * (number % 2))
        wins = chance.random() < (rate if isinstance(rate, float) else rate(one))
        choice: Choice = "tie" if chance.random() < ties else "first" if wins != swapped else "second"
        made.append(one.model_copy(update={"choice": choice}))
    for number in range(1, labels + 1):
        made.append(item(who, number, "label", choice=chance.choice(("first", "second"))))
    return made


def study(people: Sequence[str | Participant], items: Sequence[Item]) -> StudyRecords:
    return StudyRecords([person(one) if isinstance(one, str) else one for one in people], items, [])


def own_rate(chance: random.Random, mean: float, spread: float) -> float:
    """A participant's own win rate: from a beta distribution with this mean and standard deviation."""
    if not spread:
        return mean
    size = mean * (1 - mean) / spread**2 - 1
    return chance.betavariate(mean * size, (1 - mean) * size)
