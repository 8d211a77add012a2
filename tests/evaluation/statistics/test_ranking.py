"""Ranking by Bradley-Terry: recovers what was put in, and says where games don't suffice."""

from __future__ import annotations

import math

import pytest

from fspo.errors import DataError
from fspo.evaluation.statistics.ranking import Game, bradley_terry
from tests.evaluation.statistics.simulations import tournament

STRENGTHS = {"base": -0.6, "few-shot": -0.2, "ipo": 0.1, "fspo": 0.7}


def test_recovers_the_strengths_that_judgements_were_drawn_from() -> None:
    ranking = bradley_terry(tournament(0, STRENGTHS, users=1500), draws=50)
    assert [standing.method for standing in ranking.standings] == ["fspo", "ipo", "few-shot", "base"]
    for standing in ranking.standings:
        # Users with a taste of their own agree less than the strengths say, by a few percent.
        assert standing.strength == pytest.approx(STRENGTHS[standing.method], abs=0.06)


def test_intervals_cover_the_truth() -> None:
    large = bradley_terry(tournament(999, STRENGTHS, users=1500), draws=2)
    truth = {standing.method: standing.strength for standing in large.standings}
    hits = [
        standing.low is not None and standing.high is not None and standing.low <= truth[name] <= standing.high
        for seed in range(40)
        for standing in bradley_terry(tournament(seed, STRENGTHS, users=15), draws=200, seed=seed).standings
        for name in [standing.method]
    ]
    assert 0.89 <= sum(hits) / len(hits) <= 0.99


def test_two_methods_have_the_log_odds_of_their_win_rate() -> None:
    games = [Game(str(n), "a", "b", score) for n, score in enumerate([1.0, 1.0, 0.5, 0.0, 1.0, 0.5, 1.0, 1.0])]
    ranking = bradley_terry(games, anchor="b")
    strengths = {standing.method: standing.strength for standing in ranking.standings}
    assert strengths == {"a": pytest.approx(math.log(6 / 2)), "b": 0.0}


def test_a_tie_is_half_a_win_for_each() -> None:
    ties = bradley_terry([Game(str(n), "a", "b", 0.5) for n in range(10)])
    halves = bradley_terry([Game(str(n), "a", "b", float(n % 2)) for n in range(10)])
    assert [s.strength for s in ties.standings] == pytest.approx([s.strength for s in halves.standings])


def test_which_of_two_is_named_first_does_not_matter() -> None:
    games = tournament(3, STRENGTHS, users=12)
    turned = [Game(game.user, game.second, game.first, 1 - game.score) for game in games]
    one, other = bradley_terry(games, anchor="base"), bradley_terry(turned, anchor="base")
    for standing in one.standings:
        match = next(found for found in other.standings if found.method == standing.method)
        assert standing.strength == pytest.approx(match.strength)
        assert standing.low == pytest.approx(match.low)


def test_ranks_overlap_where_methods_are_alike() -> None:
    clear = bradley_terry(tournament(4, {"weak": -2.0, "strong": 2.0}, users=30))
    assert [(s.rank, s.best_rank, s.worst_rank) for s in clear.standings] == [(1, 1, 1), (2, 2, 2)]
    alike = bradley_terry(tournament(5, {"one": 0.0, "other": 0.0}, users=30))
    assert {(s.best_rank, s.worst_rank) for s in alike.standings} == {(1, 2)}


def test_methods_that_only_tied_share_a_rank_and_may_have_any() -> None:
    pairs = [("a", "b"), ("a", "c"), ("b", "c")]
    games = [Game(str(user), one, other, 0.5) for user in range(10) for one, other in pairs]
    for anchor in (None, "b"):
        for standing in bradley_terry(games, anchor=anchor).standings:
            assert (standing.rank, standing.best_rank, standing.worst_rank) == (1, 1, 3)
            assert standing.low is not None
            if standing.method == anchor:
                assert (standing.low, standing.high) == (0, 0)
            else:
                assert standing.low < -0.5
                assert standing.high == pytest.approx(-standing.low)


def test_two_equals_take_both_ranks_and_the_next_is_third() -> None:
    """One of them stronger for one half of the users, the other for the other half, and a third weaker for all."""
    games = []
    for user in range(40):
        one, other = ("a", "b") if user % 2 else ("b", "a")
        games += [Game(str(user), one, other, 1.0), Game(str(user), one, "c", 1.0), Game(str(user), other, "c", 1.0)]
        games.append(Game(str(user), "c", one if user % 4 < 2 else other, 1.0))
    standings = {standing.method: standing for standing in bradley_terry(games).standings}
    assert [standings[name].rank for name in "abc"] == [1, 1, 3]
    assert {(standings[name].best_rank, standings[name].worst_rank) for name in "ab"} == {(1, 2)}
    assert (standings["c"].best_rank, standings["c"].worst_rank) == (3, 3)


def test_ranks_are_taken_as_far_out_as_strengths() -> None:
    """With eight users a rank that a few percent of draws have is within the limits, as that strength is."""
    for seed in range(20):
        two = bradley_terry(tournament(seed, {"one": 0.0, "other": 0.9}, users=8), anchor="one").standings
        other = next(standing for standing in two if standing.method == "other")
        assert other.low is not None
        assert (other.worst_rank == 2) == (other.low < 1e-6)


def test_groups_that_never_met_are_refused_by_name() -> None:
    games = [Game("u", "a", "b", 1.0), Game("u", "c", "d", 0.0), Game("u", "b", "a", 1.0)]
    with pytest.raises(DataError, match=r"a and b \| c and d"):
        bradley_terry(games)


def test_a_method_that_never_lost_has_no_finite_strength_and_that_is_said() -> None:
    games = [Game(str(n), "a", "b", 1.0) for n in range(12)]
    ranking = bradley_terry(games)
    assert ranking.unbounded
    assert ranking.standings[0].method == "a"
    assert all(math.isfinite(standing.strength) for standing in ranking.standings)
    assert not bradley_terry([*games, Game("0", "b", "a", 1.0)]).unbounded


def test_too_few_users_are_ranked_without_intervals() -> None:
    ranking = bradley_terry(tournament(6, STRENGTHS, users=7))
    assert "7 users, at least 8" in ranking.shortage
    assert {(s.low, s.high, s.best_rank, s.worst_rank) for s in ranking.standings} == {(None, None, None, None)}


def test_the_same_seed_gives_the_same_intervals() -> None:
    games = tournament(7, STRENGTHS, users=10)
    assert bradley_terry(games, seed=1) == bradley_terry(games, seed=1)
    assert bradley_terry(games, seed=1) != bradley_terry(games, seed=2)


@pytest.mark.parametrize(
    ("games", "words"),
    [
        ([], "no games"),
        ([Game("u", "a", "b", 1.5)], "score 1.5"),
        ([Game("u", "a", "a", 1.0)], "two different methods"),
    ],
)
def test_bad_games_are_refused(games: list[Game], words: str) -> None:
    with pytest.raises(DataError, match=words):
        bradley_terry(games)


def test_an_anchor_that_never_played_is_refused() -> None:
    with pytest.raises(DataError, match="'oracle' played no game"):
        bradley_terry([Game("u", "a", "b", 1.0)], anchor="oracle")
