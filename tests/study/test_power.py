"""The plan of a study agrees with simulated studies, analysed as the report does."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fspo.errors import ConfigError
from fspo.study.analysis.tables import attention_said
from fspo.study.analysis.win_rates import p_above_half
from fspo.study.config import StudyConfig, load_study
from fspo.study.power import Assumptions, participants_needed, plan_study, power_of

STUDIES = 250


def simulated_power(
    win_rate: float, participants: int, comparisons: int, assumed: Assumptions, *, alpha: float = 0.05, seed: int = 0
) -> float:
    """The share of simulated studies in which the report's test finds the win rate."""
    chance = np.random.default_rng(seed)
    # A tie counts as half, so that of the other votes a larger share is won.
    mean, spread = (win_rate - assumed.ties / 2) / (1 - assumed.ties), assumed.spread / (1 - assumed.ties)
    if spread:
        size = mean * (1 - mean) / spread**2 - 1
        rates = chance.beta(mean * size, (1 - mean) * size, size=(STUDIES, participants, 1))
    else:
        rates = np.full((STUDIES, participants, 1), mean)
    shape = (STUDIES, participants, comparisons)
    votes = (chance.random(shape) < rates).astype(float)
    votes[chance.random(shape) < assumed.ties] = 0.5
    people = [str(n) for n in range(participants) for _ in range(comparisons)]
    found = [p_above_half(study.ravel().tolist(), people) for study in votes]
    return sum(p is not None and p < alpha for p in found) / STUDIES


@settings(max_examples=12, derandomize=True)
@given(
    win_rate=st.floats(0.53, 0.75),
    participants=st.integers(8, 40),
    comparisons=st.integers(4, 14),
    spread=st.sampled_from([0.0, 0.1, 0.2]),
    ties=st.sampled_from([0.0, 0.1, 0.3]),
)
def test_power_agrees_with_simulation(
    win_rate: float, participants: int, comparisons: int, spread: float, ties: float
) -> None:
    assumed = Assumptions(spread=spread, ties=ties)
    mean, own = (win_rate - ties / 2) / (1 - ties), spread / (1 - ties)
    assume(own**2 < 0.5 * mean * (1 - mean))
    stated = power_of(win_rate, participants, comparisons, assumed)
    error = math.sqrt(stated * (1 - stated) / STUDIES)
    assert simulated_power(win_rate, participants, comparisons, assumed) == pytest.approx(stated, abs=0.05 + 3 * error)


def test_the_recommended_number_reaches_its_power_in_simulation() -> None:
    assumed = Assumptions(win_rate=0.62, spread=0.2, ties=0.15, power=0.8)
    count = participants_needed(assumed.win_rate, 8, assumed)
    assert count is not None
    assert simulated_power(assumed.win_rate, count, 8, assumed, seed=1) == pytest.approx(0.8, abs=0.08)
    assert power_of(assumed.win_rate, count - 1, 8, assumed) < 0.8 <= power_of(assumed.win_rate, count, 8, assumed)


@given(st.floats(0.52, 0.85), st.integers(1, 30), st.floats(0.0, 0.25), st.integers(3, 300))
def test_more_people_and_more_comparisons_never_hurt(rate: float, comparisons: int, spread: float, count: int) -> None:
    assumed = Assumptions(spread=spread)
    power = power_of(rate, count, comparisons, assumed)
    assert 0 <= power <= 1
    assert power <= power_of(rate, count + 1, comparisons, assumed) + 1e-9
    assert power <= power_of(rate, count, comparisons + 1, assumed) + 1e-9


def test_two_people_find_nothing_and_tiny_differences_need_too_many() -> None:
    assert power_of(0.9, 2, 100, Assumptions()) == 0
    assert participants_needed(0.5001, 5, Assumptions()) is None


def planned_study(**changes: Any) -> StudyConfig:
    values: dict[str, Any] = {
        "name": "planned",
        "arms": {"personal": {"policy": "m"}, "base": {"policy": "m", "personalised": False}},
        "participants": 25,
        "labels": {"source": {"domain": "elix-written"}},
        "consent": {"version": "1", "text": "Do you agree?", "contact": "ann@example.org"},
    }
    return StudyConfig.model_validate({**values, **changes})


def test_a_plan_follows_the_design() -> None:
    assumed = Assumptions(lost=0.2)
    plan = plan_study(planned_study(), assumed)
    alone = participants_needed(assumed.win_rate, 11, assumed)
    assert alone is not None and plan.recommended == math.ceil(alone / 0.8) == plan.needed["0.6"]
    assert plan.planned_power["0.7"] == power_of(0.7, 20, 11, assumed)
    assert plan.by_comparisons[11] == plan.recommended
    assert list(plan.by_comparisons) == [2, 5, 11, 22, 44]
    counts = [count for count in plan.needed.values() if count is not None]
    assert counts == sorted(counts, reverse=True)

    arms = {name: {"policy": name} for name in ("one", "two", "three")}
    within = plan_study(planned_study(arms=arms), assumed)
    between = plan_study(planned_study(arms=arms, assignment="between"), assumed)
    corrected = participants_needed(0.6, 11, assumed, alpha=0.025)
    assert (within.pairs, within.comparisons, between.comparisons) == (2, 5.5, 11)
    assert corrected is not None and between.recommended == math.ceil(2 * corrected / 0.8)
    assert within.recommended is not None and within.recommended > plan.recommended


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"win_rate": 0.5}, "--win-rate"),
        ({"power": 1.0}, "--power"),
        ({"lost": 1.0}, "--lost"),
        ({"spread": 0.6}, "lower --spread"),
        ({"ties": 0.9}, "lower --spread"),
    ],
)
def test_impossible_assumptions_are_refused(values: dict[str, float], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        plan_study(planned_study(), Assumptions(**values))


@pytest.mark.parametrize("name", ["paper", "second"])
def test_the_papers_designs_find_most_careless_people(name: str) -> None:
    plan = plan_study(load_study(Path(f"configs/study/{name}.yaml")), Assumptions())
    assert (plan.attention.items, plan.attention.careless) == (4, 1 - 0.5**4)
    assert plan.attention.attentive == pytest.approx(1 - 0.99**4)


@pytest.mark.parametrize(("most", "careless"), [(1, 0.875), (2, 0.5), (3, 0.125), (4, 0), (None, 0)])
def test_attention_items_are_planned_by_the_rule(most: int | None, careless: float) -> None:
    items = [{"prompt": f"Check {n}.", "right": "blue", "wrong": "table"} for n in range(3)]
    changes = {"labels": {"source": {"domain": "elix-written"}, "attention": 1}, "comparisons": {"attention": 2}}
    config = planned_study(attention=items, exclusions={"failed_attention": most}, **changes)
    found = plan_study(config, Assumptions()).attention
    assert found.items == 3 and found.careless == pytest.approx(careless)
    assert (found.attentive < found.careless) or careless == 0
    assert found.careless or "No rule" in attention_said(plan_study(config, Assumptions()))


@pytest.mark.parametrize("name", ["paper", "second"])
def test_the_papers_designs_find_the_papers_win_rate(name: str) -> None:
    """About 70% over the base model."""
    plan = plan_study(load_study(Path(f"configs/study/{name}.yaml")), Assumptions())
    assert plan.planned_power["0.7"] > 0.9
