"""Variations: the same queries, and shots that differ in nothing but what the condition says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fspo.evaluation.config import EvaluationConfig, RobustnessConfig
from fspo.evaluation.scoring.eval_episodes import Pass, build_trials
from fspo.evaluation.scoring.variations import OTHER_TOPICS, Probe, build_probes, topic_of
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.types import Preference
from tests.evaluation.helpers import small_dataset

CONFIG = EvaluationConfig(shots=8, queries=4, robustness=RobustnessConfig(users=None, queries=2, orders=3))
PLAIN = small_dataset("t", questions=16)
TOPICS = small_dataset("t", questions=24, topics=4)


def probes(dataset: PreferenceDataset = PLAIN, **robustness: Any) -> tuple[list[Probe], EvaluationConfig]:
    config = CONFIG.model_copy(update={"robustness": CONFIG.robustness.model_copy(update=robustness)})
    return build_probes(dataset, build_trials(dataset, config), config), config


def varied(probe: Probe, config: EvaluationConfig) -> dict[str, Pass]:
    found = probe.variations(config)
    assert len({v.condition for v in found}) == len(found)
    return {v.condition: v for v in found}


def test_wrong_labels_are_swapped_shots_in_their_places_and_more_are_the_same_and_others() -> None:
    for probe in probes()[0]:
        own = probe.trial.own.shots
        found = varied(probe, CONFIG)
        wrong = {
            name: {i for i, shot in enumerate(found[name].episode.shots) if shot == own[i].swap()}
            for name in ("wrong-labels-10", "wrong-labels-25")
        }
        assert (len(wrong["wrong-labels-10"]), len(wrong["wrong-labels-25"])) == (1, 2)
        assert wrong["wrong-labels-10"] < wrong["wrong-labels-25"]
        for name, places in wrong.items():
            shots = found[name].episode.shots
            assert all(shots[i] == own[i] for i in range(len(own)) if i not in places)
            assert found[name].episode.queries == probe.trial.own.queries[:2]


def test_shares_that_come_to_the_same_number_are_one() -> None:
    assert EvaluationConfig(shots=8).wrong_labels == {0.1: 1, 0.25: 2}
    assert EvaluationConfig(shots=4).wrong_labels == {0.25: 1}
    assert EvaluationConfig(shots=2).wrong_labels == {0.25: 1}


def test_orders_are_other_orders_of_the_same_shots() -> None:
    for probe in probes()[0]:
        found = varied(probe, CONFIG)
        orders = [found[f"order-{number}"].episode.shots for number in (1, 2, 3)]
        assert all(sorted(map(repr, shots)) == sorted(map(repr, probe.trial.own.shots)) for shots in orders)
        assert len({probe.trial.own.shots, *orders}) == 4


def test_shots_of_other_topics_share_nothing_with_the_queries() -> None:
    made, config = probes(TOPICS, queries=3)
    assert made
    for probe in made:
        found = varied(probe, config)[OTHER_TOPICS]
        assert len(found.episode.shots) == config.shots
        assert [probe.trial.own.queries[number] for number in found.numbers] == list(found.episode.queries)
        asked = {topic_of(query) for query in found.episode.queries}
        assert asked.isdisjoint(map(topic_of, found.episode.shots))
        assert {shot.user for shot in found.episode.shots} == {probe.trial.user}
        assert {q.prompt for q in probe.trial.own.queries}.isdisjoint(s.prompt for s in found.episode.shots)


def test_queries_whose_topics_leave_too_few_shots_are_left_out() -> None:
    made, config = probes(small_dataset("t", questions=24, topics=2), queries=4)
    every = [varied(probe, config)[OTHER_TOPICS] for probe in made]
    assert all(len({topic_of(query) for query in found.episode.queries}) == 1 for found in every)
    assert {len(found.numbers) < 4 for found in every} == {True, False}


def test_without_topics_nothing_is_of_another_one() -> None:
    assert all(probe.elsewhere is None for probe in probes()[0])
    assert all(probe.elsewhere is None for probe in probes(TOPICS, other_topics=False)[0])
    assert all(probe.elsewhere is None for probe in probes(small_dataset("t", questions=16, topics=1))[0])


@pytest.mark.parametrize(
    ("question", "source", "topic"),
    [
        ("film/arrival/0", {}, "film"),
        ("film/arrival/0", {"topic": "science"}, "science"),
        ("film-1/0", {}, ""),
        ("https://example.org/a", {}, ""),
        ("", {"topic": 3}, ""),
    ],
)
def test_topics_are_read_from_the_source_or_a_kind_in_the_id(question: str, source: dict[str, Any], topic: str) -> None:
    assert topic_of(Preference("u", "p", "a", "b", question, source)) == topic


def test_the_antisymmetric_headline_needs_every_variation_with_flipped_labels_too() -> None:
    (probe, *_), config = probes(TOPICS)
    found = varied(probe, config.model_copy(update={"headline_reward": "antisymmetric"}))
    plain = [name for name in found if not name.endswith("-flipped")]
    assert len(found) == 2 * len(plain)
    for name in plain:
        assert found[f"{name}-flipped"].episode == found[name].episode.flip_shots()


def test_few_users_are_the_first_of_more_and_none_are_none() -> None:
    few, more = ([p.trial.user for p in probes(users=count)[0]] for count in (2, 3))
    assert set(few) < set(more)
    assert probes(users=0)[0] == []
    assert len(probes(users=99)[0]) == 4


def test_what_has_no_room_is_gone_before_anything_is_changed() -> None:
    (probe, *_), config = probes()
    found = probe.variations(config, lambda episode: (replace(episode, shots=episode.shots[3:]), 3))
    left = set(probe.trial.own.shots[3:])
    for variation in found:
        shots = {shot if shot in left else shot.swap() for shot in variation.episode.shots}
        assert shots == left


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 8), st.integers(0, 4))
def test_variations_are_a_function_of_the_seed(seed: int, shots: int, orders: int) -> None:
    robustness = RobustnessConfig(users=None, orders=orders)
    config = EvaluationConfig(seed=seed, shots=shots, queries=2, robustness=robustness)
    first, again = ([p.key(config) for p in build_probes(PLAIN, build_trials(PLAIN, config), config)] for _ in range(2))
    assert first == again
    for probe in build_probes(PLAIN, build_trials(PLAIN, config), config):
        for v in probe.variations(config):
            assert len(v.episode.shots) == shots
            assert {shot.pair for shot in v.episode.shots} == {shot.pair for shot in probe.trial.own.shots}
            assert v.condition.startswith("order") or v.episode.shots != probe.trial.own.shots
