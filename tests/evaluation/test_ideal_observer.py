"""Regret: what is lost by wrong choices, weighed by how much was at stake."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fspo.evaluation.config import EvaluationConfig
from fspo.evaluation.ideal_observer import Regrets, pair_regrets
from fspo.evaluation.metrics.table import estimates, per_user
from fspo.evaluation.scoring.eval_episodes import build_trials
from fspo.evaluation.statistics.intervals import Spread, estimate_of
from fspo.preferences.types import User
from tests.evaluation.helpers import CountingJudge, JudgeOfOne, small_dataset

ITEMS = [("ann", "1"), ("bob", "2"), ("cid", "3"), ("dee", "4")]


def test_regret_by_hand() -> None:
    gaps = dict(zip(ITEMS, (1.0, 2.0, 3.0, -2.0), strict=True))
    found = estimates(pair_regrets(dict(zip(ITEMS, (1.0, 0.5, 0.0, 1.0), strict=True)), gaps))
    assert found["regret"].value == pytest.approx((0 + 1 + 3 + 2) / 4)
    # The label of the last pair was wrong. Residuals are lost - 6/8 stake, over the mean stake.
    share, spread = 6 / 8, Spread.of([(0 - 0.75) / 2, (1 - 1.5) / 2, (3 - 2.25) / 2, (2 - 1.5) / 2], 4)
    expected = estimate_of(share, spread, users=4, items=4).to_json()
    assert found["regret_share"].to_json() == pytest.approx(expected)


def test_a_users_share_is_of_what_was_at_stake_for_them() -> None:
    gaps = {("ann", "1"): 1.0, ("ann", "2"): 3.0, ("bob", "1"): 8.0, ("cid", "1"): 0.0}
    found = per_user(pair_regrets({item: 0.0 if item[1] == "1" else 1.0 for item in gaps}, gaps))["regret_share"]
    assert {user: row.value for user, row in found.items()} == {"ann": 0.25, "bob": 1.0}


@given(st.lists(st.floats(0.01, 10), min_size=4, max_size=4))
def test_the_best_lose_nothing_a_coin_half_and_the_worst_all(stakes: list[float]) -> None:
    gaps = dict(zip(ITEMS, stakes, strict=True))
    for right, share in ((1.0, 0.0), (0.5, 0.5), (0.0, 1.0)):
        found = estimates(pair_regrets(dict.fromkeys(ITEMS, right), gaps))
        assert found["regret_share"].value == pytest.approx(share)
        assert found["regret"].value == pytest.approx(share * sum(stakes) / 4)
        assert found["regret_share"].high is not None and found["regret_share"].high <= 1 + 1e-9  # none can lose more
        alike = estimates(pair_regrets(dict.fromkeys(ITEMS, right), dict.fromkeys(ITEMS, 1.0)))["regret_share"]
        assert found["regret_share"].to_json() == pytest.approx(alike.to_json())  # how stakes differ says nothing of it


def test_nothing_at_stake_is_no_regret() -> None:
    assert pair_regrets(dict.fromkeys(ITEMS, 1.0), dict.fromkeys(ITEMS, 0.0)) == {}
    assert pair_regrets({}, {}) == {}


def test_answers_are_compared_with_the_best_response_of_the_data() -> None:
    dataset, judge = small_dataset("t"), CountingJudge()
    trials = build_trials(dataset, EvaluationConfig(shots=2, queries=2))
    regrets = Regrets(judge, dataset, trials)
    trial = trials[0]
    query, user = trial.own.queries[0], dataset.users[trial.user]
    item = (trial.user, trial.item(0))
    assert regrets.gaps[item] == pytest.approx(judge.utility(user, query.chosen) - judge.utility(user, query.rejected))
    pool = [text for row in dataset if row.prompt == query.prompt for text in (row.chosen, row.rejected)]
    best = max(pool, key=lambda text: judge.utility(user, text))
    liked = User("x", traits=user.traits)
    for text in (best, query.rejected, "one two three four five six seven eight nine ten eleven twelve thirteen!!!!!"):
        found = estimates(regrets.answers(judge, [(item, query.prompt, text)], "plain"))
        assert found["answer_utility/plain"].value == pytest.approx(judge.utility(liked, text))
        assert found["answer_regret/plain"].value == pytest.approx(
            judge.utility(liked, best) - judge.utility(liked, text)
        )


def test_users_that_nobody_can_judge_for_have_no_regret_of_answers() -> None:
    dataset = small_dataset("t")
    trials = build_trials(dataset, EvaluationConfig(shots=2, queries=2))
    regrets = Regrets(CountingJudge(), dataset, trials)
    first, second = (trial for trial in trials[:2])
    drawn = [((one.user, one.item(0)), one.own.queries[0].prompt, "An answer.") for one in (first, second)]
    found = estimates(regrets.answers(JudgeOfOne(second.user), drawn, "plain"))
    assert found["answer_utility/plain"].users == found["answer_regret/plain"].users == 1
    assert not regrets.answers(JudgeOfOne("nobody"), drawn, "plain")
