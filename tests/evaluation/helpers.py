"""A small world for the tests of evaluation: users who mind length or exclamation marks, and a judge of both."""

from __future__ import annotations

import random

from fspo.judging.verdicts import Preferred
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.types import Preference, User

__all__ = ["CountingJudge", "small_dataset"]

_WORDS = ["film", "plot", "cast", "music", "story", "scene", "warm", "dull", "bright", "slow", "grand", "quiet"]


class CountingJudge:
    """Likes words and exclamation marks by a user's traits; ties where it sees no difference."""

    margin = 0.25
    identity = "counting"

    def utility(self, user: User, text: str, prompt: str = "") -> float:
        """A weighted count."""
        measured = {"length": len(text.split()) / 4, "exclamation": text.count("!")}
        return sum(weight * measured[name] for name, weight in user.traits.items())

    def compare(self, user: User, prompt: str, first: str, second: str) -> Preferred:
        """The text of the greater utility."""
        difference = self.utility(user, first) - self.utility(user, second)
        if abs(difference) < self.margin:
            return "tie"
        return "first" if difference > 0 else "second"


class JudgeOfOne(CountingJudge):
    """The same for one user alone."""

    def __init__(self, user: str) -> None:
        """Judge for `user`."""
        self.user = user

    def has_weights(self, user: User, prompt: str) -> bool:
        """Whether it is that user."""
        return user.id == self.user


def small_dataset(
    prefix: str, *, questions: int = 12, seed: int = 0, described: bool = True, topics: int = 0
) -> PreferenceDataset:
    """Four users, each with one preference on each question; ids begin with `prefix`, so two prefixes share none.

    With `topics`, questions take turns in so many.
    """
    generator = random.Random(f"{prefix}{seed}")
    users = [
        User(
            f"{prefix}-{name}-{'more' if sign > 0 else 'less'}",
            f"Likes {'more' if sign > 0 else 'less'} {name}." if described else "",
            {name: sign},
            "axis",
        )
        for name in ("length", "exclamation")
        for sign in (1.0, -1.0)
    ]
    return PreferenceDataset(
        users, [_preference(user, prefix, q, generator, topics) for user in users for q in range(questions)]
    )


def _preference(user: User, prefix: str, question: int, generator: random.Random, topics: int) -> Preference:
    judge = CountingJudge()
    prompt = f"What about the {prefix} film number {question}?"
    while True:
        a, b = (_text(generator) for _ in range(2))
        verdict = judge.compare(user, prompt, a, b)
        if verdict != "tie":
            chosen, rejected = (a, b) if verdict == "first" else (b, a)
            source = {"topic": f"topic {question % topics}"} if topics else {}
            return Preference(user.id, prompt, chosen, rejected, question=f"{prefix}-q{question}", source=source)


def _text(generator: random.Random) -> str:
    words = generator.choices(_WORDS, k=generator.randint(3, 12))
    return " ".join(words) + generator.choice([".", "!", "!!", "!!!"])
