"""The rules of the general items, and that every item's rule can be passed and failed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fspo.evaluation.capability_regression.items import CHECKS, in_turn, passes, tax_items
from fspo.judging.refusals import refuses


@pytest.mark.parametrize(
    ("check", "right", "wrong"),
    [
        ({"answer": ["Paris"]}, "It is paris, of course.", "It is Parisian."),
        ({"number": 42}, "17 + 25 = 42.", "It is 421, or 4.2."),
        ({"number": 1200}, "That makes 1,200 in all", "That makes 1,201"),
        ({"number": 7, "or": ["seven"]}, "Seven days.", "Eight days."),
        ({"only": ["green"]}, '"Green."', "It is green."),
        ({"only": ["8"]}, "8", "The average is 8"),
        ({"bullets": 2}, "Here:\n- eggs\n* bread", "- eggs\n- bread\n- jam"),
        ({"numbered": 2}, "1. plum\n2) pear", "1. plum 2. pear"),
        ({"words": [2, 4]}, "A small machine", "One two three four five"),
        ({"sentences": [2, 2]}, "It rains. It stops.", "It rains."),
        ({"ends": "snow"}, "And then came the snow.", "A cold winter without snowflakes"),
        ({"ends": "snow"}, "Snow", "It was made of oversnow"),
        ({"ends": "?"}, "Do you bake bread?", "Bread."),
        ({"starts": "today"}, "Today I play.", "I play today."),
        ({"has": ["bread", "window"]}, "The bread at the window", "The bread"),
        ({"lacks": ["cat", "cats"]}, "A small animal that purrs and catches mice.", "A cat is small."),
        ({"commas": 3}, "red, green, blue", "red, green"),
        ({"commas": 2}, "red, green", "red,\ngreen"),
        ({"json": {"name": "Tom", "age": 30}}, '```json\n{"name": "Tom", "age": "30"}\n```', '{"name": "Tom"}'),
        ({"lines": 2}, "The moon\n\nis round", "The moon"),
        ({"upper": True}, "THE SEA IS BLUE.", "The SEA"),
        ({"lower": True}, "a garden is green.", "A garden"),
    ],
)
def test_rules(check: dict[str, Any], right: str, wrong: str) -> None:
    assert passes(check, right)
    assert not passes(check, wrong)


def test_every_kind_of_rule_is_tested() -> None:
    marks = next(mark for mark in test_rules.pytestmark)
    assert {kind for check, _, _ in marks.args[1] for kind in check} == {*CHECKS, "or"}


@given(st.text(), st.sampled_from(tax_items().general))
def test_any_answer_is_checked_and_an_empty_one_passes_nothing(text: str, item: Any) -> None:
    assert passes(item.check, text) in (True, False)
    assert not passes(item.check, " \n")


def test_the_items_are_whole() -> None:
    items = tax_items()
    assert (len(items.general), len(items.harmful)) == (60, 30)
    ids = [item.id for item in (*items.general, *items.harmful)]
    assert len(set(ids)) == 90
    for item in items.general:
        assert item.check.keys() <= {*CHECKS, "or"}, item.id
        # Who merely repeats the question has not answered it, but for rules of form alone.
        formal = item.check.keys() & {"words", "sentences", "ends", "has", "lines", "lacks"}
        assert formal or not passes(item.check, item.prompt), item.id
        assert not refuses(item.prompt)


def test_users_take_turns_until_all_items_are_asked() -> None:
    items = tax_items().general
    turns = [in_turn(items, user, 10) for user in range(6)]
    assert sorted(item.id for turn in turns for item in turn) == sorted(item.id for item in items)
    assert in_turn(items, 6, 10) == turns[0]
    assert len({next(iter(item.check)) for item in turns[0]}) > 3
    assert len(in_turn(items[:3], 0, 10)) == 3
