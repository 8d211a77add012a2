"""Conversations with a scripted user, and the metrics of alignment by turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fspo.errors import DataError
from fspo.judging.verdicts import Preferred
from fspo.methods.conversations import (
    Conversation,
    ScriptedUsers,
    alignment_level,
    alignment_slope,
    hold,
    normalised,
    revealed,
)
from fspo.preferences.types import Preference, User
from tests.methods.policies.round_worlds import LikesYes

ANN = User("ann")
QUESTION = Preference("ann", "Is it good?", "Yes, 1!", "No, not 1.")


def test_a_user_says_what_they_would_rather_have_had() -> None:
    judge = LikesYes()
    assert revealed(judge, ANN, QUESTION, "No, 2.") == Preference("ann", "Is it good?", "Yes, 1!", "No, 2.")
    # A tie is no reason to like the answer better.
    assert revealed(judge, ANN, QUESTION, "Yes, 2!").chosen == "Yes, 1!"
    bad = Preference("ann", "Is it good?", "No, not 1.", "Never.")
    assert revealed(judge, ANN, bad, "Yes, 2!") == Preference("ann", "Is it good?", "Yes, 2!", "Never.")


@pytest.mark.parametrize("answer", ["", "  ", "Yes, 1!", "No, not 1. "])
def test_an_answer_that_teaches_nothing_reveals_the_data(answer: str) -> None:
    assert revealed(LikesYes(), ANN, QUESTION, answer) == QUESTION


def test_without_a_judge_no_answer_is_liked_better() -> None:
    assert revealed(None, ANN, QUESTION, "Yes, 2!") == Preference("ann", "Is it good?", "Yes, 1!", "Yes, 2!")


def test_of_a_user_for_whom_the_judge_can_not_judge_no_answer_is_liked_better() -> None:
    class LikesYesOfSome(LikesYes):
        def has_weights(self, user: User, prompt: str) -> bool:
            return user != ANN

        def compare(self, user: User, prompt: str, first: str, second: str) -> Preferred:
            if not self.has_weights(user, prompt):
                raise DataError("There are no weights for this user.")
            return super().compare(user, prompt, first, second)

    bad = Preference("ann", "Is it good?", "No, not 1.", "Never.")
    assert revealed(LikesYesOfSome(), ANN, bad, "Yes, 2!") == replace(bad, rejected="Yes, 2!")
    bob = User("bob")
    assert revealed(LikesYesOfSome(), bob, replace(bad, user="bob"), "Yes, 2!").chosen == "Yes, 2!"


def test_what_is_said_is_seen_from_the_next_turn_on() -> None:
    questions = tuple(Preference("ann", f"Is {n} good?", f"Yes, {n}!", f"No, not {n}.") for n in range(3))
    seen: list[int] = []

    def answer(turn: int, conversations: Sequence[Conversation]) -> list[str]:
        (one,) = conversations
        seen.append(len(one.shots))
        assert [shot.prompt for shot in one.shots] == [question.prompt for question in questions[: turn - 1]]
        return [f"Perhaps, {turn}."]

    one = Conversation(ANN, questions)
    hold([one], 3, answer, ScriptedUsers(LikesYes()))
    assert seen == [0, 1, 2]
    assert one.answers == ["Perhaps, 1.", "Perhaps, 2.", "Perhaps, 3."]
    assert [shot.rejected for shot in one.shots] == one.answers


def test_a_question_that_is_asked_again_is_answered_without_its_shots() -> None:
    first, second = (Preference("ann", f"Is {n} good?", f"Yes, {n}!", f"No, not {n}.") for n in range(2))
    same_pair = replace(first, prompt="What of 0?")
    seen: list[list[str]] = []

    def answer(turn: int, conversations: Sequence[Conversation]) -> list[str]:
        (one,) = conversations
        seen.append([shot.prompt for shot in one.shown])
        return [f"Perhaps, {turn}."]

    hold([Conversation(ANN, (first, second, first, same_pair))], 4, answer, ScriptedUsers(LikesYes()))
    assert seen == [[], [first.prompt], [second.prompt], [second.prompt]]


def test_levels_go_from_one_to_five() -> None:
    judge, others = LikesYes(), ["No, 1.", "Yes, 1!", "Never.", "Yes!"]
    # Better than two, as good as two: 1 + 4 (1 + 1 + 1/2 + 1/2) / 4.
    assert alignment_level(judge, ANN, "?", "Yes, 2!", others) == pytest.approx(4.0)
    assert alignment_level(judge, ANN, "?", "Hm.", others) == pytest.approx(2.0)
    assert alignment_level(judge, ANN, "?", "Yes.", ["No.", "Hm."]) == 5.0
    assert alignment_level(judge, ANN, "?", "No.", ["Yes."]) == alignment_level(judge, ANN, "?", " ", ["Yes."]) == 1.0
    with pytest.raises(ValueError, match="other responses"):
        alignment_level(judge, ANN, "?", "No.", [])


def test_the_slope_written_out_by_hand() -> None:
    """Means 2 and 3: b = (-1)(-1) + 0 + (1)(1) over 2, and the normalised levels are 0, 1/2, 1."""
    line = alignment_slope([2.0, 3.0, 4.0])
    assert (line.slope, line.r2) == pytest.approx((1.0, 1.0))
    assert normalised([2.0, 3.0, 4.0]) == [0.0, 0.5, 1.0]
    assert alignment_slope(normalised([2.0, 3.0, 4.0])).slope == pytest.approx(0.5)


def test_a_turn_without_a_level_is_left_out() -> None:
    line = alignment_slope([1.0, None, 2.0, 3.0])
    expected = np.polyfit([1, 3, 4], [1, 2, 3], 1)[0]
    assert line.slope == pytest.approx(expected)
    with pytest.raises(ValueError, match="two turns"):
        alignment_slope([3.0, None])


def test_levels_that_do_not_move_have_no_slope() -> None:
    line = alignment_slope([3.0] * 10)
    assert (line.slope, line.r2) == (0.0, 0.0)
    assert normalised([3.0] * 10) == [0.0] * 10
    with pytest.raises(ValueError, match="two turns"):
        alignment_slope([3.0])


@given(st.lists(st.floats(1, 5), min_size=2, max_size=12))
def test_the_slope_is_that_of_least_squares(levels: list[float]) -> None:
    expected = np.polyfit(np.arange(1, len(levels) + 1), levels, 1)[0]
    assert alignment_slope(levels).slope == pytest.approx(expected, abs=1e-9)
    assert -1e-9 <= alignment_slope(levels).r2 <= 1 + 1e-9
