"""Simulated participants: whole studies without a server, whose analysis recovers the truth."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from fspo.study.analysis.findings import StudyFindings, analyse
from fspo.study.config import StudyConfig
from fspo.study.material import Material, load_material
from fspo.study.records import StudyRecords
from fspo.study.simulated import (
    Kind,
    Rater,
    SimulatedArms,
    TextTraits,
    draw_rater,
    expected_win_rate,
    simulate_study,
)

PAIR = ("personal", "base")


@pytest.fixture(scope="module")
def config() -> StudyConfig:
    return StudyConfig.model_validate(
        {
            "name": "simulated",
            "arms": {"personal": {"policy": "m"}, "base": {"policy": "m", "personalised": False}},
            "labels": {"source": {"domain": "elix-written"}, "count": 9},
            "comparisons": {"attention": 2},
            "matching": {"length": 2.0},
            "attention": [{"prompt": f"Check {n}.", "right": "blue", "wrong": "table"} for n in range(2)],
            "consent": {"version": "1", "text": "Do you agree?", "contact": "ann@example.org"},
        }
    )


@pytest.fixture(scope="module")
def material(config: StudyConfig) -> Material:
    return load_material(config)


def _study(
    config: StudyConfig, material: Material, kinds: Sequence[Kind], *, seed: int = 0, skill: float = 0.8
) -> tuple[StudyRecords, StudyFindings, float]:
    """Records, findings, and the true win rate of the attentive participants."""
    chance, texts = random.Random(seed), TextTraits(config, material)
    raters = [draw_rater(kind, texts, chance) for kind in kinds]
    records = simulate_study(config, material, raters, SimulatedArms(texts, skill), chance)
    named = {person.id: rater for person, rater in zip(records.participants, raters, strict=True)}
    attentive = {name: rater for name, rater in named.items() if rater.kind == "attentive"}
    truth = expected_win_rate(records.items, attentive, "personal", texts, ties=True)
    return records, analyse(records, config.exclusions, pairs=[PAIR]), truth


def test_the_analysis_recovers_the_truth_and_flags_who_does_not_read(config: StudyConfig, material: Material) -> None:
    kinds: list[Kind] = ["attentive"] * 30 + ["always-left"] * 3 + ["careless"] * 4
    records, found, truth = _study(config, material, kinds)
    (rate,) = found.results.win_rates
    assert rate.estimate.low is not None and rate.estimate.high is not None
    assert truth > 0.6 and rate.estimate.low < truth < rate.estimate.high
    flagged = {row.participant for row in found.excluded}
    assert flagged == {person.id for person in records.participants[30:]}
    assert found.reasons["one side"] >= 3 and found.reasons["too fast"] == 7


def test_who_always_chooses_left_comes_out_at_one_half(config: StudyConfig, material: Material) -> None:
    _, found, _ = _study(config, material, ["always-left"] * 10 + ["attentive"])
    own = found.everybody.by_participant["personal over base"]
    left = [own[f"sim{number}"] for number in range(1, 11)]
    # Of 11 comparisons, 5 or 6 have the arm on the left.
    assert all(rate == pytest.approx(0.5, abs=0.05) for rate in left)
    assert all("one side" in row.reasons for row in found.excluded)


def test_an_arm_that_ignores_the_labels_wins_as_often_as_it_loses(config: StudyConfig, material: Material) -> None:
    _, found, truth = _study(config, material, ["attentive"] * 30, skill=0.0)
    assert truth == pytest.approx(0.5, abs=0.05)
    (rate,) = found.results.win_rates
    assert rate.estimate.low is not None and rate.estimate.high is not None
    assert rate.estimate.low < truth < rate.estimate.high


def test_tastes_and_noise_decide(config: StudyConfig, material: Material) -> None:
    texts = TextTraits(config, material)
    assert set(texts.values) == {"level", "approach"}
    assert [texts.place("level", value) for value in texts.values["level"]] == [0, 0.25, 0.5, 0.75, 1]
    prompt = material.labels[0].text
    by_level = {texts.of(text)["level"]: text for text in texts.texts(prompt)}
    child, expert = by_level[texts.values["level"][0]], by_level[texts.values["level"][-1]]
    rater = Rater("attentive", liked={"level": "expert"}, weights={"level": 1.0}, noise=0.2, fatigue=0.1)
    fresh, tired = (rater.chances(expert, child, number, texts, ties=True) for number in (0, 30))
    assert fresh["first"] > 0.95 and fresh["first"] > tired["first"] > 0.5
    assert sum(fresh.values()) == pytest.approx(1)
    alike = rater.chances(child, child, 0, texts, ties=False)
    assert alike == {"first": 0.5, "second": 0.5, "tie": 0.0}


def test_a_participant_who_leaves_has_not_finished(config: StudyConfig, material: Material) -> None:
    chance, texts = random.Random(0), TextTraits(config, material)
    rater = draw_rater("attentive", texts, chance, leaving=1.0)
    assert rater.votes is not None
    records = simulate_study(config, material, [rater], SimulatedArms(texts), chance)
    assert sum(item.choice is not None for item in records.items) == rater.votes
    assert records.participants[0].finished is None
    assert analyse(records).reasons == {"unfinished": 1}
