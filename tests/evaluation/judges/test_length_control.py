"""Length control: agrees with alpaca_eval, takes away what longer answers win by their length alone, and no more."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from scipy.special import stdtrit

from benchmarks.length_control import CASES, MODELS, ours, peer, random_cases
from fspo.errors import DataError
from fspo.evaluation.judges.length_control import Judged, difficulties, length_controlled
from fspo.evaluation.statistics.intervals import score_interval
from tests.evaluation.statistics.simulations import judged


def longer_is_better(extra: float, generator: random.Random) -> bool:
    return generator.random() < 0.95 if extra > 0 else generator.random() < 0.05


def fair(extra: float, generator: random.Random) -> bool:
    return generator.random() < 0.7


def coin(extra: float, generator: random.Random) -> bool:
    return generator.random() < 0.5


@pytest.mark.filterwarnings("default")  # alpaca_eval imports pkg_resources
@pytest.mark.parametrize("model", MODELS)
def test_agrees_with_alpaca_eval_itself(model: str) -> None:
    for case in [*CASES, *random_cases(3, 3)]:
        # The model with difficulties and anchors has all that the other two have.
        if model != "length_controlled_v1" and case.rows > 300:
            continue
        assert ours(case, model) == pytest.approx(peer(case, model), abs=0.1)


def test_the_advantage_of_a_judge_for_whom_longer_is_better_disappears() -> None:
    found = length_controlled(judged(0, longer_is_better, users=60, items=10))
    assert found.plain.value > 0.65
    assert found.plain.low is not None
    assert found.plain.low > 0.6
    assert found.win_rate.low is not None
    assert found.win_rate.high is not None
    assert found.win_rate.low < 0.5 < found.win_rate.high
    assert abs(found.win_rate.value - 0.5) < 0.05
    assert found.length > 1


def test_an_advantage_that_length_does_not_explain_stays() -> None:
    found = length_controlled(judged(1, fair, users=60, items=10))
    assert found.win_rate.value == pytest.approx(found.plain.value, abs=0.03)
    assert found.win_rate.low is not None
    assert found.win_rate.low > 0.6


def test_a_method_that_hides_behind_its_length_is_seen_to_be_worse() -> None:
    def worse_but_long(extra: float, generator: random.Random) -> bool:
        return generator.random() < 1 / (1 + math.exp(0.8 - 2.5 * math.tanh(extra)))

    found = length_controlled(judged(2, worse_but_long, users=60, items=10, longer=1.0))
    assert found.plain.value > 0.5
    assert found.win_rate.high is not None
    assert found.win_rate.high < 0.5


def test_a_coin_is_within_its_interval() -> None:
    found = [length_controlled(judged(seed, coin, users=12, items=5)).win_rate for seed in range(40)]
    assert sum((one.low or 0) <= 0.5 <= (one.high or 0) for one in found) >= 35


def test_the_interval_is_clustered_by_user() -> None:
    rows = [Judged(str(user), float(user % 2), 1000 + 10 * item, 1040) for user in range(20) for item in range(9)]
    alone = [Judged(f"{row.user} {place}", row.score, row.length, 1040) for place, row in enumerate(rows)]
    clustered, naive = (length_controlled(given, inverse_penalty=100.0).win_rate for given in (rows, alone))
    assert clustered.value == pytest.approx(naive.value)
    assert clustered.low is not None
    assert naive.low is not None
    assert clustered.value - clustered.low > 2 * (naive.value - naive.low)


def test_answers_of_equal_length_are_left_as_they_are() -> None:
    rows = [Judged(str(n % 12), float(n % 3 > 0), 500, 500) for n in range(120)]
    found = length_controlled(rows, inverse_penalty=1e6)
    assert found.win_rate.value == pytest.approx(found.plain.value, abs=1e-4)
    assert found.length == 0
    assert found.win_rate.low == pytest.approx(found.plain.low, abs=1e-3)


def test_always_longer_answers_are_marked() -> None:
    for longer, said in ((6.0, "nearly always longer"), (-6.0, "nearly always shorter")):
        rows = judged(3, fair, users=12, items=6, longer=longer)
        # Where length says the same as the method, choosing a penalty takes seconds; the note does not depend on it.
        assert said in length_controlled(rows, inverse_penalty=1.0).note
    assert length_controlled(judged(3, fair, users=12, items=6)).note == ""


def test_answers_of_equal_length_extrapolate_nothing() -> None:
    equal = [Judged(str(n % 12), float(n % 3 > 0), 500, 500) for n in range(120)]
    found = length_controlled(equal)
    assert (found.shorter, found.longer) == (0, 0) and "extrapolated" not in found.note
    half = [Judged(row.user, row.score, 500 + 100 * (n % 2), 500) for n, row in enumerate(equal)]
    assert "extrapolated" not in length_controlled(half).note


def test_users_of_whom_nothing_was_decided_are_not_counted() -> None:
    rows = judged(7, fair, users=10, items=6)
    one = [row if row.user == "0" else replace(row, score=None) for row in rows]
    found = length_controlled(one)
    assert (found.win_rate.low, found.win_rate.users, found.win_rate.items) == (None, 1, 6)
    assert "1 user, at least 3" in found.win_rate.note
    four = length_controlled([row if row.user < "4" else replace(row, score=None) for row in rows])
    assert (four.win_rate.users, four.win_rate.items) == (four.plain.users, four.plain.items) == (4, 24)
    assert four.win_rate.low is not None


def test_ties_alone_leave_doubt_by_the_number_of_users() -> None:
    found = length_controlled([replace(row, score=0.5) for row in judged(8, fair, users=10, items=6)])
    assert found.win_rate.value == pytest.approx(0.5)
    # A model of ties is worth as many trials as there are users; the plain rate knows that no user won or lost.
    assert found.win_rate.low == pytest.approx(score_interval(0.5, 10, float(stdtrit(9, 0.975)))[0])
    assert found.plain.low is not None and found.win_rate.low < found.plain.low < 0.5


@pytest.mark.parametrize("users", [1, 2])
def test_too_few_users_give_no_interval(users: int) -> None:
    found = length_controlled(judged(4, fair, users=users, items=12))
    assert f"{users} user" in found.win_rate.note
    assert found.to_json()["note"]


def test_a_judge_who_prefers_every_answer_leaves_doubt_by_the_number_of_users() -> None:
    found = length_controlled(judged(5, lambda *_: True, users=10, items=6))
    assert found.win_rate.value > 0.9
    assert found.win_rate.low is not None
    assert 0.5 < found.win_rate.low < 0.9


def test_a_model_of_which_the_penalty_leaves_nothing_is_no_figure() -> None:
    rows = [Judged(f"u{n}", float(n < 1), 10 + n, 12 - n) for n in range(4)]
    found = length_controlled(rows, inverse_penalty=1e-4)
    assert found.empty and found.win_rate.value == 0.5 and found.plain.value == 0.25
    assert "undefined" in found.note
    even = [Judged(f"u{n}", n % 2, 10, 10) for n in range(8)]
    assert not length_controlled(even, inverse_penalty=1e-4).empty  # where 50% is what the judge said


def test_rows_without_a_score_teach_nothing() -> None:
    rows = judged(6, fair, users=12, items=6)
    more = [*rows, Judged("0", None, 1000, 1000)]
    found = length_controlled(more, inverse_penalty=10.0)
    assert found.plain.items == len(rows)
    assert found.win_rate.items == len(rows)


def test_anchors_steady_the_weight_of_length() -> None:
    rows = judged(7, coin, users=10, items=4)
    anchors = judged(8, longer_is_better, users=100, items=10, longer=0.0)
    assert length_controlled(rows, anchors=anchors).length > length_controlled(rows).length + 0.5


def test_difficulty_is_what_the_other_methods_reached() -> None:
    found = difficulties({"a": {"x": 1.0, "y": 0.0}, "b": {"x": 1.0}, "c": {"x": 0.5, "y": 1.0}})
    assert found["a"] == {"x": pytest.approx(math.log(2.5 / 1.5)), "y": pytest.approx(math.log(2))}
    assert found["b"] == {"x": pytest.approx(math.log(2.5 / 1.5))}
    assert difficulties({"alone": {"x": 1.0}}) == {"alone": {"x": 0.0}}


@pytest.mark.parametrize(
    ("rows", "words"),
    [([], "No judgement"), ([Judged("u", None, 1, 1)], "No judgement"), ([Judged("u", 2.0, 1, 1)], "score 2.0")],
)
def test_bad_input_is_refused(rows: list[Judged], words: str) -> None:
    with pytest.raises(DataError, match=words):
        length_controlled(rows)
