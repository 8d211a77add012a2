"""Every answer against every other: what floors, the judge and its kind make of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fspo.evaluation.artifacts import AGAIN, GAMES_FILE
from fspo.evaluation.config import Sampling
from fspo.evaluation.judges.pairwise_matches import all_games, games_over_base
from fspo.evaluation.judges.win_rates import Answer, AnswerKey, JudgedAnswer
from fspo.evaluation.statistics.ranking import Game
from fspo.judging.verdicts import Judgement, Preferred
from fspo.preferences.types import User
from fspo.records import read_records, write_records
from tests.evaluation.helpers import CountingJudge, JudgeOfOne

USERS = {"u": User("u", traits={"exclamation": 1.0})}
SAMPLINGS: dict[str, Sampling] = {"a": "plain", "b": "guided"}


def answers(**texts: str) -> dict[AnswerKey, Sequence[Answer]]:
    drawn: dict[str, Sampling] = {"base": "plain", **SAMPLINGS}
    return {(name, drawn[name]): [Answer(name, drawn[name], "u/0/0", "u", "p", text)] for name, text in texts.items()}


def judged(name: str, preferred: Preferred, broken: tuple[str, ...] = ()) -> dict[AnswerKey, list[JudgedAnswer]]:
    both = [Answer(method, "plain", "u/0/0", "u", "p", "x") for method in (name, "base")]
    return {(name, SAMPLINGS[name]): [JudgedAnswer(*both, Judgement.agreed(preferred), broken)]}


def test_a_judge_that_measures_is_asked_about_every_pair() -> None:
    found = all_games(CountingJudge(), USERS, answers(base="x", a="x!", b="x!!"), {}, SAMPLINGS, {})
    assert {(game.first, game.second): game.score for game in found} == {
        ("base", "a"): 0.0,
        ("base", "b"): 0.0,
        ("a", "b"): 0.0,
    }
    assert all(game.user == "u" for game in found)


def test_an_answer_below_a_floor_loses_to_every_other() -> None:
    broken = judged("b", "second", ("distinct",))
    found = all_games(CountingJudge(), USERS, answers(base="x", a="x!", b="x!!"), broken, SAMPLINGS, {})
    assert {(g.first, g.second): g.score for g in found}["a", "b"] == 1.0
    assert {(g.first, g.second): g.score for g in found}["base", "b"] == 1.0


def test_users_that_the_judge_can_not_judge_for_have_no_games() -> None:
    drawn = answers(base="x", a="x!", b="x!!")
    assert len(all_games(JudgeOfOne("u"), USERS, drawn, {}, SAMPLINGS, {})) == 3
    assert all_games(JudgeOfOne("v"), USERS, drawn, {}, SAMPLINGS, {}) == []


def test_any_other_judge_is_not_asked_again() -> None:
    class Other:
        def compare(self, user: User, prompt: str, first: str, second: str) -> Preferred:
            raise AssertionError("asked, at a cost")

    won = {"a": {("u", "u/0/0"): 1.0}}
    found = all_games(Other(), USERS, answers(base="x", a="y"), judged("a", "first"), SAMPLINGS, won)
    assert found == [Game("u", "a", "base", 1.0)]
    assert all_games(None, USERS, {}, {}, {}, {}) == []


def test_games_are_kept(tmp_path: Path) -> None:
    games = games_over_base({"a": {("u", "u/0/0"): 0.5}, "base": {("u", "u/0/0"): 0.5}})
    assert games == [Game("u", "a", "base", 0.5)]
    write_records(tmp_path / GAMES_FILE, games)
    assert read_records(tmp_path / GAMES_FILE, Game, AGAIN) == games
