"""The ideal observer: at chance without evidence (by symmetry), near certain with enough of it."""

from __future__ import annotations

import math
import random
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fspo.errors import ConfigError
from fspo.judging.by_topic import TopicJudge
from fspo.judging.judge import AttributeJudge
from fspo.judging.observer import (
    Observer,
    axis_users,
    family_of,
    pair_users,
    prior_of,
    sampled_users,
)
from fspo.preferences.types import Episode, Preference, User


class NumbersJudge:
    """Texts are two numbers; the attributes are those numbers."""

    calls = 0

    def utility(self, user: User, text: str, prompt: str = "") -> float:
        self.calls += 1
        values = dict(zip(("warm", "long"), map(float, text.split()), strict=True))
        return sum(weight * values[name] for name, weight in user.traits.items())


def labelled(user: User, generator: random.Random) -> Preference:
    judge = NumbersJudge()
    while True:
        a, b = (f"{generator.gauss(0, 1):.4f} {generator.gauss(0, 1):.4f}" for _ in range(2))
        difference = judge.utility(user, a) - judge.utility(user, b)
        if abs(difference) > 0.3:
            return Preference(user.id, a + b, a, b) if difference > 0 else Preference(user.id, a + b, b, a)


def episodes(users: list[User], shots: int, queries: int, seed: int) -> list[Episode]:
    generator = random.Random(seed)
    return [
        Episode(
            user.id,
            tuple(labelled(user, generator) for _ in range(shots)),
            tuple(labelled(user, generator) for _ in range(queries)),
        )
        for user in users
    ]


def expecting(prior: list[User]) -> Observer:
    return Observer(prior, NumbersJudge(), margin=0.3)


def accuracy(rows: list[Episode], observer: Observer, k: int) -> float:
    return statistics.fmean(right for episode in rows for right in observer.correct(episode, k))


def test_accuracy_climbs_with_shots_from_chance() -> None:
    rows = episodes(sampled_users(["warm", "long"], 60, seed=3), 8, 6, seed=4)
    observer = expecting(sampled_users(["warm", "long"], 200, seed=5))
    by_k = {k: accuracy(rows, observer, k) for k in (1, 2, 4, 8)}
    assert by_k[1] < by_k[4] < by_k[8] + 0.02
    assert by_k[1] > 0.7
    assert by_k[8] > 0.92


def test_without_shots_a_symmetric_prior_is_undecided() -> None:
    rows = episodes(axis_users(["warm", "long"]), 0, 4, seed=1)
    observer = Observer(family_of(axis_users(["warm", "long"])), NumbersJudge())
    for episode in rows:
        assert observer.correct(episode, 0) == [0.5] * 4
        assert observer.probabilities(episode, 0) == pytest.approx([0.5] * 4)


def test_a_prior_of_only_the_true_user_is_always_right() -> None:
    user = User("u", traits={"warm": 0.6, "long": -0.8})
    assert accuracy(episodes([user], 0, 30, seed=2), expecting([user]), 0) == 1.0


def test_a_wrong_label_rules_nobody_out() -> None:
    user = User("u", traits={"warm": 1.0})
    (episode,) = episodes([user], 6, 10, seed=6)
    misled = episode.with_shots((episode.shots[0].swap(), *episode.shots[1:]))
    assert accuracy([misled], expecting(axis_users(["warm"])), 6) == 1.0


def test_whoever_would_be_undecided_gave_no_label_made_without_ties() -> None:
    warm, long = axis_users(["warm", "long"])[::2]
    query = Preference("u", "q", "1 -1", "-1 1")

    def believed(source: dict[str, str]) -> float:
        shot = Preference("u", "s", "1 0", "-1 0", source=source)
        (found,) = Observer([warm, long], NumbersJudge(), margin=0.3).probabilities(Episode("u", (shot,), (query,)), 1)
        return found

    for judge in ("measured", "attributes"):  # as both recipes say now, and as one said before
        assert believed({"judge": judge}) == pytest.approx(0.98 * 0.98 + 0.02 * 0.02)
    assert believed({}) == pytest.approx((0.98 * 0.98 + 0.5 * 0.02) / 1.48)


def test_more_shots_than_there_are_use_all_of_them() -> None:
    (episode,) = episodes([User("u", traits={"warm": 1.0})], 2, 3, seed=7)
    observer = Observer(axis_users(["warm", "long"]), NumbersJudge())
    assert observer.probabilities(episode, 2) == observer.probabilities(episode, 8)


def test_every_text_is_measured_once_for_each_user_of_the_prior() -> None:
    judge = NumbersJudge()
    (episode,) = episodes([User("u", traits={"warm": 1.0})], 2, 2, seed=8)
    observer = Observer(axis_users(["warm"]), judge)
    for k in (0, 1, 2):
        observer.probabilities(episode, k)
    assert judge.calls == 2 * 8


def test_observers_by_other_scales_or_topics_are_others() -> None:
    def identity(texts: list[str], topics: dict[str, str]) -> str:
        judge = TopicJudge(AttributeJudge.fit(texts, ["length"]), topics)
        return Observer(axis_users(["length"]), judge).identity

    short, long = ["One.", "One two three."], ["One.", "One two three four five six seven."]
    assert identity(short, {"Why?": "physics"}) == identity(short, {"Why?": "physics"})
    assert len({identity(short, {"Why?": "physics"}), identity(long, {"Why?": "physics"}), identity(short, {})}) == 3


def test_the_family_has_both_signs_of_axes_and_pairs() -> None:
    family = family_of([User("a", traits={"x": 1.0}), User("b", traits={"y": 0.5, "z": 0.0})])
    assert len(family) == 2 * 2 + 4
    assert all(math.hypot(*user.traits.values()) == pytest.approx(1.0) for user in family)
    assert len({user.id for user in family}) == len(family)
    assert len(pair_users("abc")) == 12


def test_bad_input_is_refused() -> None:
    with pytest.raises(ConfigError, match="prior"):
        Observer([], NumbersJudge())
    with pytest.raises(ConfigError, match=r"0 and 0\.5"):
        Observer(axis_users(["warm"]), NumbersJudge(), noise=0.5)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_mirroring_an_episode_mirrors_nothing_but_the_labels(seed: int) -> None:
    """With a symmetric prior, flipped shots predict the flipped query exactly as well."""
    (episode,) = episodes([User("u", traits={"warm": 0.8, "long": 0.6})], 3, 3, seed=seed)
    observer = Observer(family_of(axis_users(["warm", "long"])), NumbersJudge(), margin=0.2)
    for k in (1, 3):
        assert observer.probabilities(episode, k) == pytest.approx(observer.probabilities(episode.mirror(), k))


def user(name: str, **traits: float) -> User:
    return User(name, traits=traits)


def test_the_prior_is_the_family_where_it_holds_everybody() -> None:
    inside = [user("a", warm=2.0), user("b", warm=0.7, long=-0.7)]
    kind, prior = prior_of("auto", inside, [user("c", warm=1.0, long=0.2)], 0)
    assert (kind, len(prior)) == ("family", 8)


def test_users_outside_the_family_are_expected_to_be_like_those_of_the_training_part() -> None:
    uneven, known = [user("a", warm=0.4, long=0.9)], [user("c", warm=1.0, long=0.2), user("d"), user("e", warm=1.0)]
    assert prior_of("auto", uneven, known, 0) == ("trained", [known[0], known[2]])
    assert prior_of("auto", uneven, [user("d")], 0)[0] == "family"  # nobody known has traits
    many = [user(str(number), warm=number / 7, long=1.0) for number in range(900)]
    assert len(prior_of("trained", uneven, many, 0)[1]) == 500
    assert prior_of("trained", uneven, many, 0) == prior_of("trained", uneven, many, 0)
    assert prior_of("sampled", uneven, many, 0)[0] == "sampled"


def test_a_prior_of_the_right_users_predicts_better_than_the_family() -> None:
    generator = random.Random(1)
    kinds = [user(str(n), warm=0.3 + n / 100, long=0.95) for n in range(12)]
    rows = episodes(kinds, 4, 8, seed=generator.randrange(99))
    trained, family = expecting(prior_of("auto", kinds, kinds[::2], 0)[1]), expecting(family_of(kinds))
    assert accuracy(rows, trained, 0) > accuracy(rows, family, 0) + 0.2


def test_log_odds_are_those_of_the_probabilities_and_bounded_by_the_noise() -> None:
    observer = Observer(axis_users(["warm"]), NumbersJudge(), noise=0.02)
    (episode,) = episodes([user("a", warm=1.0)], 4, 3, seed=9)
    for k in (0, 4):
        expected = [math.log(p / (1 - p)) for p in observer.probabilities(episode, k)]
        assert [odds for (odds,) in observer.log_odds(episode, k)] == pytest.approx(expected)
    assert max(abs(odds) for (odds,) in observer.log_odds(episode, 4)) <= math.log(0.98 / 0.02)


def test_any_responses_are_compared_two_by_two() -> None:
    observer = Observer(axis_users(["warm"]), NumbersJudge())
    (episode,) = episodes([user("a", warm=1.0)], 2, 1, seed=9)
    (query,) = episode.queries
    texts = (query.chosen, query.rejected, query.chosen)
    ((better, same, worse),) = observer.log_odds(episode, 2, [texts])
    assert better == pytest.approx(observer.log_odds(episode, 2)[0][0])
    assert better > 1
    assert same == pytest.approx(0)
    assert worse == pytest.approx(-better)


def test_observers_that_expect_other_users_or_noise_are_others() -> None:
    made = [(["warm"], 0.02), (["warm"], 0.1), (["long"], 0.02), (["warm"], 0.02)]
    one, noisy, other, again = (Observer(axis_users(of), NumbersJudge(), noise=noise).identity for of, noise in made)
    assert one == again
    assert len({one, noisy, other}) == 3
