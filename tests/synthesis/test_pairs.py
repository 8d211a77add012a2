"""Which pairs are put before whom."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fspo.errors import DataError
from fspo.preferences.types import Split
from fspo.synthesis import pairs as module
from fspo.synthesis.domain import Question, load_domain
from fspo.synthesis.pairs import Pairs, split_questions
from fspo.synthesis.responses import Response
from tests.synthesis.helpers import config_of

QUESTIONS = [Question(f"q{n}", f"{n}?", f"t{n % 4}", f"u{n // 2}", True) for n in range(24)]
RESPONSES = [Response(f"{q.id}:{n}", q.id, f"{q.id} {n}", "", "m") for q in QUESTIONS for n in range(5)]
USED = {question.id for question in QUESTIONS}


def pairs_of(share: float = 0.5, **settings: object) -> tuple[Pairs, dict[Split, frozenset[str]]]:
    config = config_of(**{"pairs": 30, "shared_pairs": 6, **settings})
    parts = split_questions(config, QUESTIONS, USED)
    return Pairs(config, QUESTIONS, RESPONSES, parts, share), parts


@given(st.integers(1, 400), st.integers(0, 12), st.sampled_from(["train", "validation", "test"]), st.integers(0, 50))
@settings(max_examples=60, deadline=None)
def test_no_pair_comes_twice_and_all_but_the_shared_are_of_the_users_part(
    count: int, shared: int, split: Split, seed: int
) -> None:
    pairs, parts = pairs_of(pairs=count + shared, shared_pairs=shared, seed=seed)
    asked = pairs.of("user", split, "t1")
    assert len({pair.key for pair in asked}) == len(asked) <= count + shared
    assert asked[:shared] == pairs.shared
    assert all(pair.question.id in parts[split] for pair in asked[shared:])
    assert all(pair.a.question == pair.b.question == pair.question.id and pair.a != pair.b for pair in asked)
    assert asked == pairs.of("user", split, "t1")
    there = 10 * len(parts[split])
    assert len(asked) == shared + min(count, there - sum(pair.question.id in parts[split] for pair in pairs.shared))


def test_users_are_asked_different_things_and_some_on_their_own_topic() -> None:
    pairs, _ = pairs_of()
    one, other = pairs.of("one", "train"), pairs.of("other", "train")
    assert one != other
    own = pairs.of("one", "train", "t2")[6:]
    assert sum(pair.question.topic == "t2" for pair in own) >= 12


def test_rounds_of_refinement_use_other_pairs() -> None:
    pairs, _ = pairs_of()
    assert (
        pairs.to_refine("u", "train", 0, 5)
        == pairs.to_refine("u", "train", 0, 5)
        != pairs.to_refine("u", "train", 1, 5)
    )


def test_whole_units_are_held_out_and_questions_without_pairs_belong_nowhere() -> None:
    config = config_of(held_out=0.3, validation=0.2)
    parts = split_questions(config, QUESTIONS, USED - {"q3"})
    assert frozenset().union(*parts.values()) == USED - {"q3"}
    units = [{q.unit for q in QUESTIONS if q.id in ids} for ids in parts.values()]
    assert sum(map(len, units)) == len(set().union(*units)) == 12
    assert [len(own) for own in units] == [6, 2, 4]


def test_a_question_with_one_response_is_not_asked() -> None:
    config = config_of(pairs=500, shared_pairs=0)
    parts = split_questions(config, QUESTIONS, USED)
    few = [r for r in RESPONSES if r.question != "q0" or r.id == "q0:0"]
    asked = Pairs(config, QUESTIONS, few, parts, 0.5).of("u", next(s for s in parts if "q0" in parts[s]))
    assert "q0" not in {pair.question.id for pair in asked}


@given(st.integers(2, 12), st.floats(0.05, 0.9), st.floats(0.0, 0.5))
def test_some_questions_are_left_to_train_on(count: int, held_out: float, validation: float) -> None:
    if held_out + validation >= 1:
        return
    parts = split_questions(config_of(held_out=held_out, validation=validation), QUESTIONS[: 2 * count], USED)
    assert parts["train"]
    assert parts["test"]


@given(st.floats(0.05, 0.95), st.floats(0, 0.9))
def test_questions_on_one_work_are_in_one_part(held_out: float, validation: float) -> None:
    config = config_of().model_copy(update={"held_out": held_out, "validation": validation})
    parts = split_questions(config, QUESTIONS, {"q0", "q1"})
    assert parts == {"train": frozenset(), "validation": frozenset(), "test": {"q0", "q1"}}


def test_responses_to_questions_on_one_work_are_refused_before_any_label() -> None:
    asked = [replace(question, unit="film/Jaws") for question in QUESTIONS]
    with pytest.raises(DataError, match="all about one work, so none is left to train on"):
        module.pairs_of(config_of(), load_domain("elix-easy"), asked, RESPONSES)
