from __future__ import annotations

import pickle
from collections import Counter
from itertools import islice

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fspo.errors import DataError
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.sampling import EpisodeSampler, shots_beside
from fspo.preferences.types import Episode, Preference, User
from tests.preferences.worlds import crowded, grid

EPISODE_0_OF_SEED_0 = ("u5", ["q8", "q10", "q4", "q5"])


def sampler_of(dataset: PreferenceDataset, shots: int, queries: int, seed: int) -> EpisodeSampler:
    """A sampler, where anybody has enough preferences for it."""
    try:
        return EpisodeSampler(dataset, shots=shots, queries=queries, seed=seed, skip_short_users=True)
    except DataError:
        assume(False)
        raise


def assert_honest(episode: Episode, dataset: PreferenceDataset, shots: int, queries: int) -> None:
    """N shots and K queries of the user, all different, sharing neither question nor prompt nor pair across."""
    assert (len(episode.shots), len(episode.queries)) == (shots, queries)
    rows = episode.shots + episode.queries
    assert len(set(rows)) == len(rows)
    assert set(rows) <= set(dataset.of_user(episode.user))
    assert episode.description == dataset.users[episode.user].description
    for share in ("question_id", "prompt", "pair"):
        assert {getattr(row, share) for row in episode.shots}.isdisjoint(
            getattr(row, share) for row in episode.queries
        ), share


@given(crowded(), st.integers(0, 4), st.integers(1, 4), st.integers())
def test_shots_and_queries_share_nothing(dataset: PreferenceDataset, shots: int, queries: int, seed: int) -> None:
    sampler = sampler_of(dataset, shots, queries, seed)
    for i in range(6):
        assert_honest(sampler.episode(i), dataset, shots, queries)
    for user in sampler.users:
        for episode in sampler.fixed(user, 4):
            assert episode.user == user
            assert_honest(episode, dataset, shots, queries)


@given(crowded(), st.integers(0, 3), st.integers(1, 3), st.integers(), st.integers(0, 50))
def test_an_episode_depends_on_its_number_alone(
    dataset: PreferenceDataset, shots: int, queries: int, seed: int, start: int
) -> None:
    sampler = sampler_of(dataset, shots, queries, seed)
    straight = [sampler.episode(i) for i in range(start, start + 5)]
    again = pickle.loads(pickle.dumps(sampler_of(dataset, shots, queries, seed)))
    assert [again.episode(i) for i in reversed(range(start, start + 5))] == straight[::-1]
    assert list(islice(again.stream(start), 5)) == straight


def test_the_episodes_of_a_seed_stay_what_they_are_from_version_to_version() -> None:
    episode = EpisodeSampler(grid(), shots=2, queries=2, seed=0).episode(0)
    assert (episode.user, [row.question for row in episode.shots + episode.queries]) == EPISODE_0_OF_SEED_0


def test_seeds_and_numbers_give_different_episodes() -> None:
    one, other = (EpisodeSampler(grid(), shots=4, queries=4, seed=seed) for seed in (0, 1))
    assert [one.episode(i) for i in range(6)] != [other.episode(i) for i in range(6)]
    assert len({one.episode(i) for i in range(60)}) == 60


def test_users_take_turns_in_rounds_of_their_own_order() -> None:
    sampler = EpisodeSampler(grid(), shots=2, queries=2, seed=0)
    rounds = [tuple(sampler.episode(6 * number + i).user for i in range(6)) for number in range(5)]
    assert all(sorted(turns) == sorted(sampler.users) for turns in rounds)
    assert len(set(rounds)) > 1


def test_turns_can_follow_the_number_of_preferences() -> None:
    dataset = grid(users=2, questions=12)
    few = dataset.select(questions=[f"q{i}" for i in range(4)])
    uneven = few.select(users=["u1"]).merge(dataset.select(users=["u0"]))
    sampler = EpisodeSampler(uneven, shots=2, queries=2, seed=0, balance="preferences")
    assert Counter(sampler.episode(i).user for i in range(4)) == {"u0": 3, "u1": 1}
    with pytest.raises(DataError, match="not by 'questions'"):
        EpisodeSampler(uneven, shots=2, queries=2, seed=0, balance="questions")  # type: ignore[arg-type]


def test_questions_of_an_episode_differ_where_there_are_enough() -> None:
    base = grid(users=1)
    double = [Preference("u0", row.prompt, row.chosen + "!", row.rejected, row.question) for row in base]
    dataset = PreferenceDataset(base.users, [*base, *double])
    sampler = EpisodeSampler(dataset, shots=6, queries=6, seed=0)
    drawn = [sampler.episode(i) for i in range(20)]
    assert all(len({row.question for row in e.shots + e.queries}) == 12 for e in drawn)
    assert len({row for e in drawn for row in e.shots}) == len(dataset)


def test_few_questions_with_many_pairs_are_divided_whole() -> None:
    rows = [Preference("u", f"p{q}", f"good {q} {i}", f"bad {q} {i}", f"q{q}") for q in range(3) for i in range(4)]
    dataset = PreferenceDataset([User("u")], rows)
    for shots, queries in ((8, 4), (4, 8), (6, 3), (0, 12)):
        sampler = EpisodeSampler(dataset, shots=shots, queries=queries, seed=0)
        for i in range(10):
            assert_honest(sampler.episode(i), dataset, shots, queries)
    with pytest.raises(DataError, match="has 12 preferences on 3 questions"):
        EpisodeSampler(dataset, shots=6, queries=6, seed=0)  # 12 are there, but one question would be on both sides


def test_short_users_are_named_or_left_out_and_listed() -> None:
    dataset = grid(users=3, questions=8)
    short = dataset.select(questions=["q0"]).select(users=["u1"])
    mixed = dataset.select(users=["u0", "u2"]).merge(short)
    with pytest.raises(DataError, match=r"User 'u1' has 1 preference on 1 question, .* 4 shots and 4 queries needs 8"):
        EpisodeSampler(mixed, shots=4, queries=4, seed=0)
    sampler = EpisodeSampler(mixed, shots=4, queries=4, seed=0, skip_short_users=True)
    assert sampler.users == ("u0", "u2")
    assert [(user.user, user.preferences) for user in sampler.skipped] == [("u1", 1)]
    with pytest.raises(DataError, match="User 'u1' has 1 preference"):
        sampler.fixed("u1", 1)
    with pytest.raises(DataError, match="No user has enough preferences for 9 shots and 4 queries: all 3"):
        EpisodeSampler(mixed, shots=9, queries=4, seed=0, skip_short_users=True)


def test_senseless_settings_are_refused() -> None:
    dataset = grid()
    with pytest.raises(DataError, match="at least one query"):
        EpisodeSampler(dataset, shots=1, queries=0, seed=0)
    with pytest.raises(DataError, match="no user 'u9'"):
        EpisodeSampler(dataset, shots=1, queries=1, seed=0, users=["u9"])
    with pytest.raises(DataError, match="there are no users"):
        EpisodeSampler(PreferenceDataset([]), shots=1, queries=1, seed=0)
    with pytest.raises(DataError, match="counted from 0"):
        EpisodeSampler(dataset, shots=1, queries=1, seed=0).episode(-1)


def test_fixed_episodes_query_everything_once_before_anything_twice_and_know_no_other_users() -> None:
    dataset = grid(users=4, questions=12)
    alone = EpisodeSampler(dataset.select(users=["u2"]), shots=4, queries=3, seed=5)
    among = EpisodeSampler(dataset, shots=4, queries=3, seed=5, users=["u0", "u2"])
    episodes = among.fixed("u2", 8)
    assert alone.fixed("u2", 8) == episodes
    queried = Counter(query.question for episode in episodes[:4] for query in episode.queries)
    assert queried == {question: 1 for question in dataset.questions()}
    assert among.fixed("u2", 3) == episodes[:3]
    with pytest.raises(DataError, match="no user 'u1'"):
        among.fixed("u1", 1)


@given(crowded(), st.integers(0, 3), st.integers(1, 3), st.integers())
def test_another_user_s_shots_share_nothing_with_the_queries(
    dataset: PreferenceDataset, shots: int, queries: int, seed: int
) -> None:
    sampler = sampler_of(dataset, shots, queries, seed)
    episode = sampler.episode(0)
    for other in dataset.users:
        try:
            swapped = sampler.shots_of(other, episode)
        except DataError as error:
            assert f"User '{other}' has" in str(error)
            continue
        assert swapped == sampler.shots_of(other, episode)
        assert swapped.queries == episode.queries
        assert {row.user for row in swapped.shots} <= {other}
        assert len(set(swapped.shots)) == shots
        for share in ("question_id", "prompt", "pair"):
            assert {getattr(row, share) for row in swapped.shots}.isdisjoint(
                getattr(row, share) for row in episode.queries
            )


SPELT = ("Is it warm?", "is it  warm? ", "\uff29s it warm\uff1f")


def respelt(user: str = "u") -> PreferenceDataset:
    """Three spellings of one question, and three other questions."""
    prompts = [*SPELT, "Who won?", "Why?", "How?"]
    return PreferenceDataset(
        [User(user)], [Preference(user, p, f"good {i}", f"bad {i}") for i, p in enumerate(prompts)]
    )


def test_a_question_in_another_spelling_is_no_shot_for_it() -> None:
    sampler = EpisodeSampler(respelt(), shots=2, queries=2, seed=0)
    for i in range(60):
        episode = sampler.episode(i)
        sides = [{row.prompt in SPELT for row in side} for side in (episode.shots, episode.queries)]
        assert not all(True in side for side in sides)
        assert sum(row.prompt in SPELT for row in episode.shots + episode.queries) <= 1
    with pytest.raises(DataError, match="has 6 preferences on 4 questions"):
        EpisodeSampler(respelt(), shots=4, queries=3, seed=0)
    swapped = EpisodeSampler(respelt(), shots=0, queries=1, seed=0)
    episode = Episode("u", (respelt().preferences[3],), (respelt().preferences[0],))
    for _ in range(5):
        assert swapped.shots_of("u", episode).shots[0].prompt not in SPELT


def on_questions(questions: list[int]) -> list[Preference]:
    return [
        Preference("ann", f"prompt {q}", f"good {i}", f"bad {i}", question=f"q{q}") for i, q in enumerate(questions)
    ]


def test_shots_beside_a_prompt_come_from_as_many_questions_as_possible() -> None:
    shots = shots_beside("another prompt", on_questions([0, 0, 1, 1, 2]), 4)
    assert [shot.question for shot in shots] == ["q0", "q1", "q2", "q0"]


def test_the_prompt_itself_is_never_among_the_shots() -> None:
    assert [shot.question for shot in shots_beside("prompt 0", on_questions([0, 1, 0]), 8)] == ["q1"]


@given(st.lists(st.integers(0, 4), max_size=12), st.integers(0, 12))
def test_shots_beside_a_prompt_are_never_repeated(questions: list[int], count: int) -> None:
    preferences = on_questions(questions)
    shots = shots_beside("prompt 0", preferences, count)
    assert len(shots) == min(count, sum(q != 0 for q in questions))
    assert len({shot.chosen for shot in shots}) == len(shots)
    assert set(shots) <= set(preferences)


def test_shots_beside_a_prompt_are_on_other_questions() -> None:
    shots = shots_beside("IS IT WARM?", respelt().preferences, 6)
    assert [row.prompt for row in shots] == ["Who won?", "Why?", "How?"]
    assert [row.prompt for row in shots_beside("Where?", respelt().preferences, 4)] == [
        SPELT[0],
        "Who won?",
        "Why?",
        "How?",
    ]
