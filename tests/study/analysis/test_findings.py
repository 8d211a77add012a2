"""The whole analysis: a known truth among careless people, effects, dropout and times."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from fspo.errors import DataError
from fspo.study.analysis.findings import analyse, pairs_of, save_findings
from fspo.study.records import Event, Item, StudyRecords
from tests.study.made_records import PAIR, attention, attentive, item, own_rate, person, study


def _mixed(seed: int = 0) -> StudyRecords:
    """60 attentive people with a true win rate of 70%, five who always choose left, five careless."""
    chance = random.Random(seed)
    items: list[Item] = []
    for n in range(60):
        items += attentive(f"good{n}", chance, own_rate(chance, 0.7, 0.1), labels=9)
        items.append(attention(f"good{n}", 12, "second", "second"))
    for n in range(5):
        items += [one.model_copy(update={"choice": "first"}) for one in attentive(f"left{n}", chance, 0.5, labels=9)]
        items.append(attention(f"left{n}", 12, "first", "first"))
        items += attentive(f"careless{n}", chance, 0.5, labels=9)
        items.append(attention(f"careless{n}", 12, "first", "second"))
    return study(sorted({one.participant for one in items}), items)


def test_the_truth_is_recovered_and_careless_people_are_found() -> None:
    found = analyse(_mixed(), pairs=[PAIR])
    (rate,), (of_everybody,) = found.results.win_rates, found.everybody.win_rates
    assert rate.estimate.low is not None and rate.estimate.high is not None
    assert rate.estimate.low < 0.7 < rate.estimate.high
    assert rate.p is not None and rate.p < 0.001
    assert of_everybody.estimate.value < rate.estimate.value
    assert (found.results.participants, found.everybody.participants, found.participants) == (60, 70, 70)
    assert found.reasons == {"attention": 5, "one side": 5}
    assert {row.participant.rstrip("0123456789") for row in found.excluded} == {"left", "careless"}
    assert found.attention[0].failed == 5 and found.attention[0].passed == 65


def test_who_always_chooses_left_has_a_win_rate_of_one_half() -> None:
    chance = random.Random(0)
    always = [one.model_copy(update={"choice": "first"}) for one in attentive("p", chance, 0.9, comparisons=12)]
    found = analyse(study(["p"], always), pairs=[PAIR])
    assert found.everybody.by_participant == {"personal over base": {"p": 0.5}}
    assert found.reasons == {"one side": 1}


def test_bias_of_sides_and_lengths_is_measured() -> None:
    chance = random.Random(2)
    biased, fair = (
        analyse(study(["a", "b", "c", "d"], [one for name in "abcd" for one in attentive(name, chance, rate)]))
        for rate in (lambda one: 0.9 if one.first_arm == "personal" else 0.1, 0.5)
    )
    (first,) = [row for row in biased.everybody.biases if row.kind == "first"]
    assert first.stage == "compare" and first.estimate.value > 0.75
    (first,) = [row for row in fair.everybody.biases if row.kind == "first"]
    assert first.estimate.low is not None and first.estimate.low < 0.5
    long = [item(name, n, second="short", choice="first") for name in "abc" for n in range(1, 5)]
    (longer,) = [row for row in analyse(study("abc", long)).everybody.biases if row.kind == "longer"]
    assert longer.estimate.value == 1.0


def test_effects_by_shots_are_separated() -> None:
    chance = random.Random(4)
    names = [f"p{n}" for n in range(30)]
    items = [one for name in names for one in attentive(name, chance, lambda one: 0.9 if one.shots == 4 else 0.5)]
    found = analyse(study(names, items), pairs=[PAIR])
    by_shots = {row.value: row.estimate for row in found.results.effects if row.kind == "shots"}
    assert list(by_shots) == ["2", "4"]
    assert by_shots["2"].high is not None and by_shots["4"].low is not None
    assert by_shots["2"].high < by_shots["4"].low


def _taught(name: str, liked: str, rate: float, chance: random.Random) -> list[Item]:
    """Labels that show a taste in levels, and comparisons."""
    traits = ({"level": "child"}, {"level": "expert"})
    labels = []
    for number in range(1, 5):
        first, second = traits if number % 2 else traits[::-1]
        choice = "first" if first["level"] == liked else "second"
        labels.append(item(name, number, "label", first_traits=first, second_traits=second, choice=choice))
    return labels + attentive(name, chance, rate)


def test_tastes_are_read_from_labels_and_split_the_win_rate() -> None:
    chance = random.Random(6)
    names = [f"p{n}" for n in range(40)]
    items = [
        one
        for n, name in enumerate(names)
        for one in _taught(name, *(("expert", 0.9) if n % 4 else ("child", 0.5)), chance)
    ]
    found = analyse(study(names, items), pairs=[PAIR]).results
    by_taste = {row.value: row.estimate for row in found.effects if row.kind == "taste: level"}
    assert by_taste["expert"].users == 30 and by_taste["child"].users == 10
    assert by_taste["expert"].value - by_taste["child"].value > 0.2
    assert {row.value: row.estimate.value for row in found.tastes} == {"child": 0.25, "expert": 0.75}


def test_dropout_outages_and_times_are_counted() -> None:
    chance = random.Random(8)
    people = [
        person("done", finished=600_000),
        person("stopped", finished=None),
        person("waiting", finished=None),
        person("gone", finished=None, withdrawn=3),
    ]
    stopped = attentive("stopped", chance, 0.5, labels=2)
    stopped = [one.model_copy(update={"choice": None}) if one.position > 5 else one for one in stopped]
    waiting = [item("waiting", 1, "label"), item("waiting", 1, first="", second="", choice=None, voted=None)]
    done = attentive("done", chance, 0.5, labels=2)
    events = [Event(participant="waiting", at=1, kind="failed"), Event(participant="done", at=1, kind="undone")]
    found = analyse(StudyRecords(people, [*done, *stopped, *waiting], events))
    assert list(found.steps.values()) == [4, 3, 3, 2, 1, 1]
    assert found.no_votes == {"answers not written": 1, "not voted on": 6}
    assert found.reasons == {"withdrawn": 1, "unfinished": 2}
    assert found.events == {"failed": 1, "undone": 1}
    assert found.minutes is not None and found.minutes.median == 10
    assert found.seconds["compare"].median == 60 and found.seconds["compare"].count == 11


def test_findings_are_json_and_nothing_quotes_a_text(tmp_path: Path) -> None:
    found = analyse(_mixed())
    save_findings(found, tmp_path / "study.json")
    saved = json.loads((tmp_path / "study.json").read_text())
    assert saved["results"]["win_rates"][0]["estimate"]["items"] == found.results.win_rates[0].estimate.items
    assert saved["rules"]["one_side"] == 0.001
    assert "word7" not in (tmp_path / "study.json").read_text()


def test_records_of_no_study_or_two_studies_are_refused() -> None:
    with pytest.raises(DataError, match="no participants"):
        analyse(study([], []))
    with pytest.raises(DataError, match="several studies"):
        analyse(study([person("a"), person("b", study="other")], []))


def test_pairs_are_found_in_the_items() -> None:
    assert pairs_of([item("a", 1), attention("a", 2, "first", "first")]) == [("base", "personal")]
