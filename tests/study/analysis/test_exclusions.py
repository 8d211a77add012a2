"""Who is left out of the main analysis, and for which reasons."""

from __future__ import annotations

import random

import pytest

from fspo.study.analysis.exclusions import exclusions_of, is_vote
from fspo.study.config import Exclusions
from tests.study.made_records import attention, attentive, item, person, study


def test_attentive_people_are_kept() -> None:
    chance = random.Random(0)
    names = [f"p{n}" for n in range(40)]
    items = [one for name in names for one in attentive(name, chance, 0.9, labels=9)]
    items += [attention(name, 12, "first", "first") for name in names]
    assert exclusions_of(study(names, items), Exclusions()) == []


def test_every_reason_is_found_and_one_person_may_have_several() -> None:
    people = [
        person("gone", withdrawn=5, finished=None),
        person("late", closed="quota", finished=None),
        person("half", finished=None),
        person("left"),
        person("quick"),
        person("asleep", finished=None),
    ]
    chance = random.Random(1)
    items = [one for name in ("half", "quick", "asleep") for one in attentive(name, chance, 0.5)]
    items = [one.model_copy(update={"voted": 500}) if one.participant == "quick" else one for one in items]
    items += [item(name, 13, choice=None, voted=None) for name in ("half", "asleep")]
    items += [item("left", number, first_arm="base", second_arm="personal") for number in range(1, 12)]
    items += [attention("asleep", 12, "first", "second")]
    found = {row.participant: row.reasons for row in exclusions_of(study(people, items), Exclusions())}
    assert found == {
        "gone": ("withdrawn",),
        "late": ("quota",),
        "half": ("unfinished",),
        "left": ("one side",),
        "quick": ("too fast",),
        "asleep": ("unfinished", "attention"),
    }


@pytest.mark.parametrize(("votes", "other", "excluded"), [(10, 0, False), (11, 0, True), (18, 4, False), (19, 3, True)])
def test_a_side_is_suspicious_where_a_coin_hardly_ever_prefers_it_so_often(
    votes: int, other: int, excluded: bool
) -> None:
    choices = ["second"] * votes + ["first"] * other + ["tie"] * 5
    items = [item("p", number, choice=choice) for number, choice in enumerate(choices, start=1)]
    assert bool(exclusions_of(study(["p"], items), Exclusions())) is excluded


def test_the_file_can_change_each_rule() -> None:
    items = [item("p", number, voted=100) for number in range(1, 30)] + [attention("p", 31, "first", "second")]
    items += [item("p", 32, choice=None, voted=None)]
    people = [person("p", finished=None)]
    lenient = Exclusions(unfinished=False, failed_attention=None, one_side=None, words_per_minute=None)
    assert exclusions_of(study(people, items), lenient) == []
    assert len(exclusions_of(study(people, items), Exclusions())[0].reasons) == 4
    assert exclusions_of(study(people, items), lenient.model_copy(update={"failed_attention": 2})) == []


def test_who_voted_on_everything_counts_without_the_last_button() -> None:
    people = [person(name, finished=None) for name in ("all", "some", "none")]
    items = [one for name in ("all", "some") for one in attentive(name, random.Random(2), 0.5)]
    items += [item("some", 12, first="", second="", choice=None, voted=None)]
    items += [item("all", 1, "practice", choice=None, voted=None)]
    assert [row.participant for row in exclusions_of(study(people, items), Exclusions())] == ["some", "none"]


def test_an_outage_and_a_missing_choice_are_no_votes() -> None:
    assert is_vote(item("p", 1, choice="tie"))
    assert not is_vote(item("p", 1, choice=None))
    assert not is_vote(item("p", 1, first="", second=""))
