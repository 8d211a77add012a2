"""What makes a question a good one, against formulas and on people with declared traits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fspo.errors import ConfigError
from fspo.judging.declared import DeclaredJudge
from fspo.preferences.response_pair import ResponsePair
from fspo.preferences.types import Preference, User
from fspo.serving.questions import (
    Belief,
    choose_question,
    declared_chances,
    information_gains,
    variances,
)

chances = arrays.arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(1, 4)), elements=st.floats(0.01, 0.99))


@given(chances)
def test_the_gain_is_the_mutual_information_of_answer_and_user(chances_UQ: np.ndarray) -> None:
    belief = Belief(chances_UQ).answered(0, second=True)
    gains = information_gains(belief)
    for question in range(chances_UQ.shape[1]):
        total = 0.0
        for second in (False, True):
            after = belief.answered(question, second=second).weights
            chance = belief.expected[question] if not second else 1 - belief.expected[question]
            total += chance * sum(w * math.log(w / v) for w, v in zip(after, belief.weights, strict=True) if w > 1e-300)
        assert gains[question] == pytest.approx(total, abs=1e-9)
        assert -1e-12 <= gains[question] <= math.log(2) + 1e-12
        spread = np.average((chances_UQ[:, question] - belief.expected[question]) ** 2, weights=belief.weights)
        assert variances(belief)[question] == pytest.approx(spread, abs=1e-9)


def test_the_question_that_splits_the_users_is_asked_first() -> None:
    belief = Belief(np.array([[0.5, 0.9, 0.9], [0.5, 0.8, 0.9], [0.5, 0.1, 0.9], [0.5, 0.2, 0.9]]))
    for strategy in ("information", "variance"):
        assert choose_question(belief, (), strategy) == 1  # type: ignore[arg-type]
        assert choose_question(belief, {1}, strategy) in (0, 2)  # type: ignore[arg-type]
    assert choose_question(belief, {0, 1, 2}) is None
    assert {choose_question(belief, (), "random", seed=seed) for seed in range(20)} == {0, 1, 2}
    assert choose_question(belief, (), "random", seed=3) == choose_question(belief, (), "random", seed=3)
    with pytest.raises(ConfigError):
        choose_question(belief, (), "best")  # type: ignore[arg-type]


def test_answers_point_to_the_user_who_would_give_them() -> None:
    belief = Belief(np.array([[0.9, 0.9], [0.1, 0.1]]))
    assert belief.answered(0, second=False).weights.argmax() == 0
    assert belief.answered(0, second=True).expected[1] < 0.5
    for wrong in (np.zeros((0, 3)), np.array([0.5]), np.array([[1.5]])):
        with pytest.raises(ConfigError):
            Belief(wrong)


def test_declared_users_prefer_what_has_their_traits() -> None:
    judge = DeclaredJudge({"warm": (0, 1)}, {"Dear you!": {"warm": 1}, "No.": {"warm": 0}, "Nope.": {"warm": 0}})
    users = [User("a", traits={"warm": 1.0}), User("b", traits={"warm": -1.0})]
    questions = [ResponsePair("Q?", "Dear you!", "No."), ResponsePair("Q?", "No.", "Nope.")]
    found = declared_chances(users, judge, questions, noise=0.1)
    assert found.tolist() == [[0.9, 0.5], [0.1, 0.5]]
    assert questions[0].answered("a", second=True) == Preference("a", "Q?", "No.", "Dear you!")
