"""Several judges of the same answers: win rates, lengths, rejects, agreement; and instruments whose truth is known."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fspo.evaluation.artifacts import Agreement
from fspo.evaluation.config import EvaluationConfig, Floors, JudgeConfig
from fspo.evaluation.judges.answer_quality import Quality
from fspo.evaluation.judges.judges import obtain_judges
from fspo.evaluation.judges.win_rates import Answer, AnswerKey, judge_answers
from fspo.evaluation.judging_stage import JudgingStage, agreement, cohens_kappa, matched_in_length
from fspo.evaluation.metrics.answer_metrics import win_rates
from fspo.evaluation.metrics.table import estimates
from fspo.evaluation.statistics.intervals import Estimate
from fspo.judging.verdicts import Comparison, Failure, Judgement, Preferred
from fspo.llm.pool import EndpointPool
from fspo.preferences.types import User
from fspo.progress import Silent
from tests.evaluation.helpers import CountingJudge, JudgeOfOne
from tests.judging.helpers import said

FINE = Quality(log_prob=-2.0, distinct=1.0, compression=0.9, overlap=0.5, closeness=0.4, words=9)
USERS = {f"u{n}": User(f"u{n}", "Likes it long.", {"length": 1.0 if n % 2 else -1.0}) for n in range(30)}
FSPO: AnswerKey = ("fspo", "plain")
BASE: AnswerKey = ("base", "plain")


class CoinJudge:
    """Tosses a coin for each pair, the same in both orders."""

    def __init__(self, seed: int) -> None:
        self.seed, self.identity = seed, f"coin {seed}"

    def compare(self, user: User, prompt: str, first: str, second: str) -> Preferred:
        heads = random.Random(f"{self.seed}{user.id}{prompt}{sorted((first, second))}").random() < 0.5
        return "first" if heads == (first < second) else "second"


def answers(seed: int = 0, longer: float = 1.0, each: int = 4) -> dict[AnswerKey, list[Answer]]:
    """Random words; the method's answers have `longer` times as many."""
    rng = random.Random(seed)
    found: dict[AnswerKey, list[Answer]] = {FSPO: [], BASE: []}
    for user in USERS:
        for number in range(each):
            for drawn, factor in ((FSPO, longer), (BASE, 1.0)):
                text = " ".join(rng.choices(["film", "plot", "music"], k=max(1, round(factor * rng.randint(5, 25)))))
                found[drawn].append(Answer(*drawn, f"{user}/0/{number}", user, f"{number}?", f"{text} {rng.random()}"))
    return found


def panel(
    folder: Path, drawn: dict[AnswerKey, list[Answer]], *, floors: Floors | None = None, **options: object
) -> JudgingStage:
    config = EvaluationConfig.model_validate({"floors": floors or Floors(), **options.pop("config", {})})  # type: ignore[dict-item]
    made = JudgingStage(config, USERS, options.pop("judges"), folder)  # type: ignore[arg-type]
    made.judge(drawn, {key: {answer.item: FINE for answer in rows} for key, rows in drawn.items()})
    return made


def measured(stage: JudgingStage, *, headline: bool = True) -> dict[str, Estimate]:
    """The win rates of fspo's plain answers by every judge."""
    return estimates(stage.table(FSPO, headline=headline)) | stage.length_controlled(FSPO, headline=headline)


def test_the_headline_stays_and_others_stand_beside_it(tmp_path: Path) -> None:
    drawn = answers()
    found = panel(tmp_path, drawn, judges={"headline": CountingJudge(), "coin": CoinJudge(0)})
    measures = measured(found)
    assert {"win_rate", "win_rate/plain", "win_rate_by/coin/plain", "win_rate_length_controlled"} <= measures.keys()
    assert "win_rate_weighted/plain" not in measures
    assert "win_rate" not in measured(found, headline=False)
    record = found.record()
    [pair] = record.agreement
    assert pair.judges == ("headline", "coin")
    assert pair.share is not None and pair.share.items == 120
    assert pair.kappa == pytest.approx(0.0, abs=0.2)
    consistency = record.judges["coin"].consistency
    assert consistency is not None and consistency.value == 1.0
    assert (tmp_path / "fspo" / "judgements.jsonl").exists()
    assert (tmp_path / "fspo" / "judgements-coin.jsonl").exists()


def test_a_judge_that_tosses_coins_is_even_within_its_interval(tmp_path: Path) -> None:
    """In at least 95 of 100 simulations."""
    drawn, inside = answers(each=2), 0
    base = {answer.item: answer for answer in drawn[BASE]}
    fine = dict.fromkeys(base, FINE)
    for seed in range(100):
        path = tmp_path / f"{seed}.jsonl"
        rows = judge_answers(CoinJudge(seed), USERS, drawn[FSPO], base, fine, fine, Floors(), path=path)
        estimate = estimates(win_rates(rows, "plain", headline=True))["win_rate"]
        assert estimate.low is not None and estimate.high is not None
        inside += estimate.low <= 0.5 <= estimate.high
    assert inside >= 95


def test_a_judge_who_never_decides_is_told(tmp_path: Path) -> None:
    heard: list[str] = []

    class Heard(Silent):
        def say(self, text: str) -> None:
            heard.append(text)

    class Indifferent:
        identity = "indifferent"

        def compare(self, user: User, prompt: str, first: str, second: str) -> Preferred:
            return "tie"

    drawn = answers()
    made = JudgingStage(EvaluationConfig(), USERS, {"headline": Indifferent()}, tmp_path, Heard())
    made.judge(drawn, {key: {answer.item: FINE for answer in rows} for key, rows in drawn.items()})
    assert heard == ["The judge 'headline' preferred neither answer in any of 120 comparisons."]


def test_a_user_without_a_weight_for_what_a_judge_measures_is_left_out(tmp_path: Path) -> None:
    people = [User(user.id, "", {"sentiment": 1.0}) for user in list(USERS.values())[:5]]
    texts = [answer.text for answer in answers()[FSPO]] + ["A wonderful film."]
    entry = JudgeConfig.model_validate({"name": "tone", "attributes": ["sentiment"]})
    judges = {"headline": CoinJudge(0)} | obtain_judges([entry], texts, people, EndpointPool(tmp_path))
    found = measured(panel(tmp_path, answers(), judges=judges))
    assert found["win_rate"].users == 30 and "win_rate_by/tone/plain" not in found
    mixed = JudgingStage(EvaluationConfig(), USERS | {user.id: user for user in people}, judges, tmp_path)
    mixed.judge(answers(), {key: {answer.item: FINE for answer in rows} for key, rows in answers().items()})
    assert measured(mixed)["win_rate_by/tone/plain"].users == 5


def test_the_win_rate_is_of_the_users_that_the_headline_can_judge_for(tmp_path: Path) -> None:
    rows = answers()
    user = rows[FSPO][0].user
    found = measured(panel(tmp_path, rows, judges={"headline": JudgeOfOne(user)}))
    assert found["win_rate"].users == 1


def test_the_advantage_of_longer_answers_disappears_under_length_control(tmp_path: Path) -> None:
    drawn = answers(longer=1.5, each=10)
    config = EvaluationConfig.model_validate({"judges": [{"name": "longer", "likes": {"length": 1}}]})
    texts = [answer.text for rows in drawn.values() for answer in rows]
    judges = obtain_judges(config.judges, texts, USERS.values(), EndpointPool(tmp_path))
    found = panel(tmp_path, drawn, judges={"headline": judges["longer"]})
    measures = measured(found)
    assert measures["win_rate"].low is not None and measures["win_rate"].low > 0.6
    controlled = measures["win_rate_length_controlled"]
    assert controlled.low is not None and controlled.high is not None
    assert controlled.low <= 0.5 <= controlled.high
    assert controlled.value < measures["win_rate"].value - 0.05
    assert found.controlled["headline"][FSPO].length > 0


class Fixed:
    """Says the same of every pair, with a probability."""

    identity = "fixed"

    def __init__(self, *words: Preferred | Failure, probability: float | None = None) -> None:
        self.judgement = said(*words, probability)

    def compare(self, user: User, prompt: str, first: str, second: str) -> Preferred:
        raise NotImplementedError

    def judge(self, comparisons: Iterable[Comparison]) -> Iterator[Judgement]:
        return (self.judgement for _ in comparisons)


@pytest.mark.parametrize("failure", get_args(Failure))
def test_failures_are_counted_by_kind_and_left_out_and_nothing_else_breaks(failure: Failure, tmp_path: Path) -> None:
    judges = {"headline": CountingJudge(), "mute": Fixed(failure, "first")}
    found = panel(tmp_path, answers(), judges=judges)
    measures = measured(found)
    assert not any("mute" in measure for measure in measures)
    record = found.record()
    assert record.judges["mute"].counts["fspo, plain"][failure] == 120
    assert record.judges["mute"].consistency is None
    assert record.agreement == (Agreement(judges=("headline", "mute")),)


def test_a_floor_decides_where_the_judge_gave_nothing(tmp_path: Path) -> None:
    found = panel(tmp_path, answers(), judges={"headline": Fixed("refused", "refused")}, floors=Floors(words=99))
    assert "win_rate" not in measured(found)  # both below: still nothing
    drawn = answers()
    qualities = {key: {a.item: FINE for a in rows} for key, rows in drawn.items()}
    qualities[FSPO] = dict.fromkeys(qualities[FSPO], Quality(-9.0, 1.0, 0.9, 0.5, 0.4, 9))
    made = JudgingStage(EvaluationConfig(), USERS, {"headline": Fixed("refused", "refused")}, tmp_path / "b")
    made.judge(drawn, qualities)
    assert measured(made)["win_rate"].value == 0.0


def test_a_weighing_judge_gives_a_weighted_win_rate(tmp_path: Path) -> None:
    measures = measured(panel(tmp_path, answers(), judges={"headline": Fixed("first", "second", probability=0.75)}))
    assert measures["win_rate"].value == 1.0
    assert measures["win_rate_weighted/plain"].value == pytest.approx(0.75)
    assert measures["win_rate_length_controlled"].value == pytest.approx(0.75, abs=0.02)


def test_matched_answers_are_bare_and_alike_in_length(tmp_path: Path) -> None:
    drawn = answers()
    drawn[FSPO] = [
        Answer(*FSPO, a.item, a.user, a.prompt, "\n".join(f"- {word}" for word in base.text.split()))
        for a, base in zip(drawn[FSPO], drawn[BASE], strict=True)
    ]

    class Bullets:
        """Likes bullets."""

        identity = "bullets"

        def compare(self, user: User, prompt: str, first: str, second: str) -> Preferred:
            one, other = first.count("- "), second.count("- ")
            return "tie" if one == other else "first" if one > other else "second"

    config = {"match": ["format", "length"], "match_band": 1.0}
    found = panel(tmp_path, drawn, judges={"headline": Bullets()}, config=config)
    measures = measured(found)
    assert measures["win_rate"].value == 1.0
    assert (measures["win_rate_matched/plain"].value, measures["win_rate_matched/plain"].items) == (0.5, 120)
    assert found.record().matched["fspo, plain"]["ties"] == 120


WORDS = st.lists(st.sampled_from(["win", "loss", "tie"]), min_size=1, max_size=30)


def test_the_textbook_example() -> None:
    """20 both yes, 15 both no, 5 and 10 apart: share 0.7, chance 0.5, kappa 0.4."""
    pairs = [("yes", "yes")] * 20 + [("yes", "no")] * 5 + [("no", "yes")] * 10 + [("no", "no")] * 15
    first, second = ({n: pair[side] for n, pair in enumerate(pairs)} for side in (0, 1))
    assert cohens_kappa(first, second) == pytest.approx(0.4)


@given(WORDS)
def test_a_judge_agrees_with_itself(words: list[str]) -> None:
    said = dict(enumerate(words))
    kappa = cohens_kappa(said, said)
    assert kappa == pytest.approx(1.0) if len(set(words)) > 1 else kappa is None


@given(WORDS, WORDS)
def test_kappa_is_symmetric_and_at_most_the_share(one: list[str], other: list[str]) -> None:
    first, second = dict(enumerate(one)), dict(enumerate(other))
    kappa = cohens_kappa(first, second)
    assert kappa == cohens_kappa(second, first) or kappa == pytest.approx(cohens_kappa(second, first))
    shared = min(len(one), len(other))
    if kappa is not None:
        assert kappa <= sum(first[n] == second[n] for n in range(shared)) / shared + 1e-12


def test_only_what_both_judged_counts_and_users_are_the_clusters() -> None:
    first = {("fspo", (user, f"{user}/{n}")): "win" for user in "abc" for n in range(2)}
    second = {key: "win" if key[1][0] != "c" else "loss" for key in first} | {("fspo", ("d", "d/0")): "win"}
    share = agreement(first, second)
    assert share is not None
    assert share.value == pytest.approx(2 / 3)
    assert (share.users, share.items) == (3, 6)
    assert agreement(first, {}) is None
    assert cohens_kappa(first, {}) is None


def test_pairs_within_the_band_are_kept_whichever_is_longer() -> None:
    def answers(method: str, *lengths: int) -> list[Answer]:
        return [Answer(method, "plain", f"{n}", "u", "p", "x" * length) for n, length in enumerate(lengths)]

    base = {answer.item: answer for answer in answers("base", 100, 100, 100, 100, 0)}
    kept = matched_in_length(answers("fspo", 125, 80, 126, 79, 0), base, 1.25)
    assert [answer.item for answer in kept] == ["0", "1", "4"]
