"""Which pairs of responses a person is asked about at the beginning of a conversation."""

from __future__ import annotations

from fspo.judging.declared import DeclaredJudge
from fspo.judging.traits import Value
from fspo.preferences.types import Preference
from fspo.runs.opening import opening_questions

VALUES: dict[str, tuple[Value, ...]] = {"length": (0, 1), "tone": (0, 1), "level": ("low", "middle", "high")}
_ROWS: list[tuple[str, str, tuple[Value, ...]]] = [
    ("Why?", "Because.", (0, 0, "low")),
    ("Why?", "Because it is so, dear.", (1, 1, "high")),
    ("Why?", "Because, dear.", (0, 1, "low")),
    ("How?", "Slowly.", (0, 0, "middle")),
    ("How?", "Slowly and with care.", (1, 0, "middle")),
    ("How?", "Slowly, dear.", (0, 1, "middle")),
    ("How?", "Slowly and with care, dear.", (1, 1, "middle")),
    ("When?", "Now.", (0, 0, "low")),
    ("When?", "Right now.", (0, 0, "low")),
]
JUDGE = DeclaredJudge(VALUES, {text: dict(zip(VALUES, traits, strict=True)) for _, text, traits in _ROWS})


def preferences() -> list[Preference]:
    rows = [
        Preference("ada", prompt, text, other)
        for prompt, text, _ in _ROWS
        for asked, other, _ in _ROWS
        if asked == prompt and other != text
    ]
    return [*rows, Preference("ada", "Where?", "Nobody declared this.", "Nor this.")]


def drawn(rows: list[Preference]) -> set[frozenset[str]]:
    """The first question by each of nine seeds."""
    found = (opening_questions(rows, JUDGE, 1, seed)[0] for seed in range(9))
    return {frozenset((question.first, question.second)) for question in found}


def test_questions_are_on_different_prompts_and_tell_different_things() -> None:
    first, second = opening_questions(preferences(), JUDGE, 3)
    assert {first.first, first.second} == {"Because.", "Because it is so, dear."}  # differ in all three traits
    assert {second.first, second.second} == {"Slowly and with care.", "Slowly, dear."}  # length against tone


def test_the_seed_decides_among_equals_and_nothing_else() -> None:
    assert opening_questions(preferences(), JUDGE, 1, seed=7) == opening_questions(preferences(), JUDGE, 1, seed=7)
    found = {
        frozenset((q.first, q.second)) for seed in range(5) for q in opening_questions(preferences(), JUDGE, 1, seed)
    }
    assert len(found) == 1
    alike = [row for row in preferences() if row.prompt == "How?"]
    drawn = {frozenset((q.first, q.second)) for seed in range(9) for q in opening_questions(alike, JUDGE, 1, seed)}
    assert len(drawn) == 2  # both differ in length and tone and have as many words


def test_an_answer_is_a_preference_for_one_of_the_two() -> None:
    (question,) = opening_questions(preferences(), JUDGE, 1)
    liked, disliked = question.answered("you", second=False), question.answered("you", second=True)
    assert (liked.chosen, liked.rejected) == (disliked.rejected, disliked.chosen) == (question.first, question.second)
    assert liked.prompt == question.prompt and liked.user == "you"


def test_nothing_to_tell_apart_is_no_question() -> None:
    assert opening_questions([row for row in preferences() if row.prompt in ("When?", "Where?")], JUDGE, 2) == []
