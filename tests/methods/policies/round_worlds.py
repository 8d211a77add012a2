"""Worlds with a known structure, for methods that train in rounds on a tiny model that says two things."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from fspo.methods.method import Job
from fspo.methods.one_round import Pairs, Round
from fspo.methods.table import METHODS
from fspo.modeling.policy import Policy
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.types import Preference, User
from fspo.progress import Silent
from fspo.training.config import TrainingConfig
from fspo.training.train import train_policy

__all__ = ["SMALL", "LikesYes", "against_no", "agreeing", "answers", "camps", "job_of", "says_both", "taste"]

SMALL: dict[str, Any] = {"steps": 3, "users_per_step": 2, "lora": {"r": 2}, "answer_batch": 4, "probes": 3}
"""Settings of a training of seconds."""


def answers(number: int) -> tuple[str, str]:
    """What the two kinds of users like."""
    return f"Yes, {number}!", f"No, not {number}."


def camps(users: int = 4, questions: int = 8, *, first: str = "u", kinds: int = 2) -> PreferenceDataset:
    """Users with even numbers like the first answer to every question, and those with odd numbers the second.

    With one kind, everybody likes the first.
    """
    people = [User(f"{first}{number}") for number in range(users)]
    rows = [
        Preference(user.id, f"Is book {question} good?", *answers(question)[:: 1 if number % kinds == 0 else -1])
        for number, user in enumerate(people)
        for question in range(questions)
    ]
    return PreferenceDataset(people, rows)


def agreeing(users: int = 4, questions: int = 8) -> PreferenceDataset:
    """Users who all like the first answer."""
    return camps(users, questions, kinds=1)


class LikesYes:
    """A judge by the first letter."""

    def compare(self, user: User, prompt: str, first: str, second: str) -> Any:
        one, other = first.startswith("Yes"), second.startswith("Yes")
        return "tie" if one == other else "first" if one else "second"


def against_no(one: Round) -> Pairs:
    """A round without answers: every query against a fixed text."""
    return Pairs.of(
        replace(episode, queries=tuple(replace(query, rejected="No.") for query in episode.queries))
        for episode in one.draw()
    )


def says_both(model: Path, out: Path) -> Path:
    """A policy that answers either way, whatever it is shown."""
    settings = TrainingConfig(
        objective="pref-ft",
        layout="conversation",
        lora=None,
        shots=2,
        queries=4,
        users_per_step=4,
        steps=60,
        learning_rate=1e-2,
        warmup=2,
    )
    half = PreferenceDataset(
        [User(f"t{number}") for number in range(4)],
        [
            Preference(f"t{number}", f"Is book {n} good?", *answers(n)[:: 1 if (n + number) % 2 else -1])
            for number in range(4)
            for n in range(8)
        ],
    )
    return train_policy(settings, half, model=model, out=out)


def job_of(method: str, model: str | Path, out: Path, data: PreferenceDataset | None = None, **changes: Any) -> Job:
    """A small training of a method."""
    own: dict[str, Any] = {key: changes.pop(key) for key in ("judge", "validation", "progress") if key in changes}
    small = {
        "layout": "conversation",
        "rounds": 2,
        "steps": 10,
        "users_per_step": 4,
        "shots": 2,
        "queries": 2,
        "learning_rate": 0.003,
        "warmup": 1,
        "max_new_tokens": 10,
        "probes": 8,
        "lora": None,
    }
    row = METHODS[method]
    config = row.training({**small, **changes})
    return replace(Job(row, config, data or camps(), model, out, Silent()), **own)


def taste(policy: Path) -> tuple[float, float]:
    """How much more a new user of either kind would like the answer of that kind than the other, in nats."""
    people, loaded = camps(2, 8, first="new"), Policy.load(policy)
    found = []
    for number in (0, 1):
        person = replace(people.person(f"new{number}"), shots=people.person(f"new{number}").shots[:2])
        own, other = loaded.reward(person, "Is book 5 good?", answers(5)[:: 1 if number == 0 else -1])
        found.append(own - other)
    return found[0], found[1]
