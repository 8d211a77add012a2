from __future__ import annotations

import pytest

from fspo.errors import DataError
from fspo.evaluation.benchmarks.benchmark import Protocol
from fspo.evaluation.benchmarks.episodes import Episodes, build_episodes
from fspo.evaluation.config import EvaluationConfig
from fspo.evaluation.scoring.eval_episodes import Trial
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.published import from_published
from tests.evaluation.benchmarks.rows import bench_rows, prism_rows

CONFIG = EvaluationConfig()


def dataset(kind: str, rows: list[dict[str, object]]) -> PreferenceDataset:
    return from_published(enumerate(rows, start=1), kind, file="theirs").dataset


def built(data: PreferenceDataset, protocol: Protocol, config: EvaluationConfig = CONFIG) -> Episodes:
    return build_episodes(data, protocol, config, file="theirs")


def shares_nothing(trial: Trial) -> bool:
    prompts = {query.prompt for query in trial.own.queries}
    shown = [*trial.own.shots, *(trial.swapped.shots if trial.swapped else ())]
    return prompts.isdisjoint(shot.prompt for shot in shown)


def test_parts_of_the_rows_are_kept() -> None:
    found = built(dataset("reward-bench", bench_rows(asked=4)), Protocol(shots=3, parted=True))
    assert [trial.user for trial in found.trials] == ["user0", "user1", "user2", "user3"]
    for trial in found.trials:
        assert len(trial.own.shots) == 3
        assert {shot.source["split"] for shot in trial.own.shots} <= {"train", "val"}
        assert [query.source["split"] for query in trial.own.queries] == ["test"] * 4
        assert {shot.user for shot in trial.own.shots} == {trial.user}
        assert trial.swapped is not None and trial.donor != trial.user
        assert {shot.user for shot in trial.swapped.shots} == {trial.donor}
        assert shares_nothing(trial)
    assert (found.short, found.limited) == (0, 0)
    assert found == built(dataset("reward-bench", bench_rows(asked=4)), Protocol(shots=3, parted=True))


def test_an_earlier_pair_on_a_question_that_is_asked_is_not_shown() -> None:
    rows = bench_rows(users=2, shown=5, asked=1)
    asked = [row for row in rows if row["split"] == "test"]
    again = [
        row | {"split": "train", "chosen": row["rejected"], "rejected": {"role": "assistant", "content": "Hm."}}
        for row in asked
    ]
    found = built(dataset("reward-bench", [*rows, *again]), Protocol(shots=5, parted=True))
    assert all(shares_nothing(trial) and len(trial.own.shots) == 5 for trial in found.trials)


def test_users_with_too_few_pairs_are_counted_and_a_limit_is_kept() -> None:
    rows = [*bench_rows(users=5), *(row | {"user_id": "lone"} for row in bench_rows(users=1, shown=2))]
    found = built(dataset("reward-bench", rows), Protocol(shots=3, users=2, queries=1, parted=True))
    assert len(found.trials) == 2
    assert all(len(trial.own.queries) == 1 for trial in found.trials)
    assert (found.short, found.limited) == (1, 3)


def test_without_parts_episodes_are_drawn_across_conversations() -> None:
    rows = [*prism_rows(), *prism_rows(users=1, conversations=1)[:2]]
    rows[-2:] = [row | {"interaction_id": "i9", "user_id": "user9"} for row in rows[-2:]]
    found = built(dataset("prism", rows), Protocol(shots=4, queries=4, episodes=2))
    assert [trial.id for trial in found.trials[:2]] == ["user0/0", "user0/1"]
    assert all(shares_nothing(trial) for trial in found.trials)
    assert {(len(t.own.shots), len(t.own.queries)) for t in found.trials} == {(4, 4)}
    assert found.short == 1


def test_no_donors_where_nobody_is_swapped() -> None:
    config = CONFIG.model_copy(update={"user_swap": False})
    for kind, rows, protocol in (
        ("prism", prism_rows(), Protocol(shots=2, queries=2)),
        ("reward-bench", bench_rows(), Protocol(shots=2, parted=True)),
    ):
        assert all(trial.swapped is None for trial in built(dataset(kind, rows), protocol, config).trials)


def test_what_cannot_be_built_is_told() -> None:
    bench = dataset("reward-bench", bench_rows())
    with pytest.raises(DataError, match="None of the 4 users of theirs has enough preferences for 9 shots and 1 query"):
        built(bench, Protocol(shots=9, parted=True))
    with pytest.raises(DataError, match="None of the 4 users of theirs has enough preferences for 90 shots and 4 quer"):
        built(dataset("prism", prism_rows()), Protocol(shots=90, queries=4))
    bare = [{name: value for name, value in row.items() if name != "split"} for row in bench_rows()]
    with pytest.raises(DataError, match="does not say which pairs of a user may be shown"):
        built(dataset("reward-bench", bare), Protocol(shots=3, parted=True))
