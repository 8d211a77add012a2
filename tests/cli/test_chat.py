from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fspo.cli.chat import shots_of
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.types import Preference, User


def dataset(questions: list[int]) -> PreferenceDataset:
    rows = [
        Preference("ann", f"prompt {q}", f"good {i}", f"bad {i}", question=f"q{q}") for i, q in enumerate(questions)
    ]
    return PreferenceDataset([User("ann")], rows)


def test_shots_come_from_as_many_questions_as_possible() -> None:
    shots = shots_of(dataset([0, 0, 1, 1, 2]), "ann", 4, "another prompt")
    assert [shot.question for shot in shots] == ["q0", "q1", "q2", "q0"]


def test_the_prompt_itself_is_never_among_the_shots() -> None:
    assert [shot.question for shot in shots_of(dataset([0, 1, 0]), "ann", 8, "prompt 0")] == ["q1"]


@given(st.lists(st.integers(0, 4), max_size=12), st.integers(0, 12))
def test_shots_are_the_users_own_and_never_repeat(questions: list[int], count: int) -> None:
    data = dataset(questions)
    shots = shots_of(data, "ann", count, "prompt 0")
    assert len(shots) == min(count, sum(q != 0 for q in questions))
    assert len({shot.chosen for shot in shots}) == len(shots)
    assert set(shots) <= set(data.of_user("ann"))
