"""For tests of training: a small dataset."""

from __future__ import annotations

from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.types import Preference, User

__all__ = ["small_dataset"]


def small_dataset(users: int = 4, questions: int = 8) -> PreferenceDataset:
    """Every user prefers `good` or `bad` endings; odd ones the opposite of even ones."""
    people = [User(f"u{number}", description=f"Likes ending {number % 2}.") for number in range(users)]
    rows = []
    for number, user in enumerate(people):
        for question in range(questions):
            pair = (f"It was good, {question}!", f"It was bad and slow, {question}.")
            chosen, rejected = pair if number % 2 == 0 else pair[::-1]
            rows.append(Preference(user.id, f"What about book {question}?", chosen, rejected, question=f"q{question}"))
    return PreferenceDataset(people, rows)
