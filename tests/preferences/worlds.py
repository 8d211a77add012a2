"""Small datasets for the tests of this room: written out, and drawn by hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.types import Preference, User


def grid(users: int = 6, questions: int = 12) -> PreferenceDataset:
    """Every user judged one pair of each question; users of even number like the long answer."""
    people = [User(f"u{i}", f"Person {i}", {"length": 1.0 - i % 2 * 2}, "axis") for i in range(users)]
    rows = [
        Preference(
            user=f"u{i}",
            prompt=f"What about {q}?",
            chosen=f"A {'long' if i % 2 == 0 else 'short'} answer to {q}",
            rejected=f"A {'short' if i % 2 == 0 else 'long'} answer to {q}",
            question=f"q{q}",
            source={"model": "none", "seed": q},
        )
        for i in range(users)
        for q in range(questions)
    ]
    return PreferenceDataset(people, rows)


# Text as people and models write it, with what tends to break files: line separators, quotes, control characters.
text = st.text(
    alphabet=st.one_of(
        st.sampled_from("abc \n\r\t\"\\'\u2028\u2029\x85\x0b\x0c\x1c🙂é<|im_end|>"),
        st.characters(exclude_categories=["Cs"]),
    ),
    min_size=1,
    max_size=12,
).filter(lambda value: bool(value.strip()))


@st.composite
def datasets(draw: st.DrawFn) -> PreferenceDataset:
    """Datasets of arbitrary text."""
    ids = draw(st.lists(text, min_size=1, max_size=3, unique=True))
    weights = st.dictionaries(text, st.floats(allow_nan=False, allow_infinity=False), max_size=2)
    users = [User(id, draw(st.just("") | text), draw(weights), draw(st.just("") | text)) for id in ids]
    rows: dict[tuple[str, str, frozenset[str]], Preference] = {}
    for _ in range(draw(st.integers(0, 6))):
        chosen, rejected = draw(st.lists(text, min_size=2, max_size=2, unique_by=str.strip))
        row = Preference(
            draw(st.sampled_from(ids)),
            draw(text),
            chosen,
            rejected,
            draw(st.just("") | text),
            draw(st.dictionaries(text, st.integers() | text | st.none() | st.lists(text, max_size=2), max_size=2)),
        )
        rows[row.user, row.prompt, row.pair] = row
    return PreferenceDataset(users, rows.values())


@st.composite
def crowded(draw: st.DrawFn) -> PreferenceDataset:
    """One to three users whose preferences often share questions, prompts and pairs."""
    users = [f"u{i}" for i in range(draw(st.integers(1, 3)))]
    place = st.tuples(st.sampled_from(users), st.integers(0, 9), st.integers(0, 3), st.integers(0, 5))
    rows: dict[tuple[str, str, frozenset[str]], Preference] = {}
    for user, question, prompt, pair in draw(st.lists(place, min_size=4, max_size=30)):
        row = Preference(user, f"prompt {question} {prompt}", f"good {pair}", f"bad {pair}", f"q{question}")
        if draw(st.booleans()):  # a pair of its own
            row = Preference(user, row.prompt, f"{row.prompt} good {pair}", f"{row.prompt} bad", row.question)
        rows[row.user, row.prompt, row.pair] = row
    return PreferenceDataset(map(User, users), rows.values())
