"""Trials: deterministic, donors of a differing tendency, nothing of a query among swapped shots."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fspo.errors import DataError
from fspo.evaluation.config import EvaluationConfig
from fspo.evaluation.scoring.eval_episodes import build_trials, donors, pick_users, short_users, tendency
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.types import User
from tests.evaluation.helpers import small_dataset

CONFIG = EvaluationConfig(shots=4, queries=4, episodes=2)


def test_trials_are_a_function_of_dataset_and_seed() -> None:
    dataset = small_dataset("t")
    first, again = build_trials(dataset, CONFIG), build_trials(dataset, CONFIG)
    other = build_trials(dataset, CONFIG.model_copy(update={"seed": 1}))
    assert [t.key for t in first] == [t.key for t in again]
    assert {t.key for t in first}.isdisjoint(t.key for t in other)
    assert len({t.item(q) for t in first for q in range(4)}) == 4 * 2 * 4


def test_swapped_shots_are_the_donors_and_touch_no_query() -> None:
    dataset = small_dataset("t")
    for trial in build_trials(dataset, CONFIG):
        assert trial.swapped is not None
        assert trial.swapped.description == dataset.users[trial.donor].description != trial.own.description
        assert {shot.user for shot in trial.swapped.shots} == {trial.donor} != {trial.user}
        assert trial.swapped.queries == trial.own.queries
        asked = {query.question_id for query in trial.own.queries}
        assert asked.isdisjoint(shot.question_id for shot in trial.swapped.shots)


def test_a_donor_differs_in_tendency_where_anybody_does() -> None:
    dataset = small_dataset("t")
    for trial in build_trials(dataset, CONFIG):
        alike = tendency(dataset.users[trial.user], dataset.users[trial.donor])
        assert alike is not None
        assert alike <= 0


def test_the_least_alike_comes_first_where_nobody_differs() -> None:
    users = [
        User("u", traits={"a": 1.0}),
        User("near", traits={"a": 1.0, "b": 0.1}),
        User("far", traits={"a": 1.0, "b": 1.0}),
    ]
    rows = [p for name in ("u", "near", "far") for p in small_dataset(name, questions=1).preferences[:1]]
    dataset = PreferenceDataset(
        users, [p.__class__(u.id, p.prompt, p.chosen, p.rejected) for u, p in zip(users, rows, strict=True)]
    )
    assert [user.id for user in donors(users[0], dataset, seed=0)] == ["far", "near"]


def test_tendency_is_unknown_without_traits() -> None:
    assert tendency(User("a"), User("b", traits={"x": 1.0})) is None
    assert tendency(User("a", traits={"x": 2.0}), User("b", traits={"x": -1.0})) == pytest.approx(-1.0)


def test_a_lone_user_has_no_donor() -> None:
    dataset = small_dataset("t")
    alone = dataset.select(users=[next(iter(dataset.users))])
    assert all(trial.swapped is None and trial.donor == "" for trial in build_trials(alone, CONFIG))


def test_fewer_users_are_drawn_from_every_group() -> None:
    dataset = small_dataset("t")
    mixed = [
        User(u.id, u.description, u.traits, "axis" if i < 3 else "pair") for i, u in enumerate(dataset.users.values())
    ]
    picked = pick_users(PreferenceDataset(mixed, dataset.preferences), 2, seed=0)
    assert sorted(user.group for user in picked) == ["axis", "pair"]


def test_which_groups_are_represented_is_drawn_where_there_are_too_many() -> None:
    dataset = small_dataset("t")
    alone = [replace(user, group=f"group {number}") for number, user in enumerate(dataset.users.values())]
    alone_each = PreferenceDataset(alone, dataset.preferences)
    drawn = {tuple(user.group for user in pick_users(alone_each, 2, seed)) for seed in range(20)}
    assert {group for groups in drawn for group in groups} == {user.group for user in alone}
    assert pick_users(alone_each, 2, 3) == pick_users(alone_each, 2, 3)


def test_only_those_are_drawn_who_may_be() -> None:
    dataset = small_dataset("t")
    *_, one, other = dataset.users
    assert [user.id for user in pick_users(dataset, 3, seed=0, among={one, other})] == [one, other]


def test_a_user_with_too_few_preferences_is_named() -> None:
    with pytest.raises(DataError, match="t-length-more"):
        build_trials(small_dataset("t", questions=5), CONFIG)


def test_short_users_are_left_out_if_the_settings_say_so() -> None:
    whole = small_dataset("t")
    user, kept = next(iter(whole.users)), CONFIG.shots + CONFIG.queries - 1
    rows = [row for row in whole if row.user != user] + list(whole.of_user(user))[:kept]
    dataset = PreferenceDataset(whole.users.values(), rows)
    with pytest.raises(DataError, match=user):
        build_trials(dataset, CONFIG)
    skipping = CONFIG.model_copy(update={"skip_short_users": True})
    assert [one.user for one in short_users(dataset, skipping)] == [user]
    left = {trial.id: trial.own for trial in build_trials(dataset, skipping)}
    assert left == {trial.id: trial.own for trial in build_trials(whole, CONFIG) if trial.user != user}
