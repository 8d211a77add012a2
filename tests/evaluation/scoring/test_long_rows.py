"""Queries that some method can't read whole are measured for none, also where the trials are given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fspo.errors import DataError
from fspo.evaluation.config import EvaluationConfig, RobustnessConfig
from fspo.evaluation.evaluate import evaluate
from fspo.evaluation.scoring.eval_episodes import Trial, build_trials
from fspo.evaluation.scoring.long_rows import fitting_trials, rooms_of
from fspo.files import read_json
from fspo.modeling.loading import load_tokenizer
from fspo.modeling.rendering import EpisodeRenderer
from tests.evaluation.helpers import small_dataset

CONFIG = EvaluationConfig(shots=2, ladder=(), queries=3, answers=0, robustness=RobustnessConfig(users=0))
LONG = "It was long. " * 5000


def with_a_long_query(trials: list[Trial]) -> list[Trial]:
    first = trials[0]
    queries = (replace(first.own.queries[0], rejected=LONG), *first.own.queries[1:])
    swapped = first.swapped and replace(first.swapped, queries=queries)
    return [replace(first, own=replace(first.own, queries=queries), swapped=swapped), *trials[1:]]


@pytest.fixture
def rooms(tiny_model_path: Path) -> Any:
    tokenizer = load_tokenizer(tiny_model_path)
    return rooms_of(
        CONFIG, ["base", "oracle", "fspo-rat"], lambda context, _: EpisodeRenderer(tokenizer, context, 4096)
    )


def test_a_query_without_room_is_left_out_of_its_trial(rooms: Any) -> None:
    trials = build_trials(small_dataset("long"), CONFIG)
    assert fitting_trials(trials, rooms, "refuse") == (trials, 0)
    kept, left_out = fitting_trials(with_a_long_query(trials), rooms, "leave-out")
    assert left_out == 1
    assert kept[0].own.queries == trials[0].own.queries[1:]
    assert kept[0].swapped is not None and kept[0].swapped.queries == kept[0].own.queries
    assert kept[1:] == trials[1:]


def test_a_swap_with_a_description_that_leaves_no_room_is_none(rooms: Any) -> None:
    trials = build_trials(small_dataset("long"), CONFIG)
    first = trials[0]
    assert first.swapped is not None
    wordy = replace(first, swapped=replace(first.swapped, description=LONG))
    assert fitting_trials([wordy], rooms, "refuse") == ([Trial(first.id, first.own)], 0)


def test_no_query_with_room_is_one_sentence(rooms: Any) -> None:
    (first, *_) = with_a_long_query(build_trials(small_dataset("long"), CONFIG))
    alone = replace(first, own=replace(first.own, queries=first.own.queries[:1]))
    for long in ("refuse", "leave-out"):
        with pytest.raises(DataError, match="What about the long film number"):
            fitting_trials([alone], rooms, long)


def test_given_trials_are_measured_without_what_is_too_long(tiny_model_path: Path, tmp_path: Path) -> None:
    dataset = small_dataset("long")
    trials = with_a_long_query(build_trials(dataset, CONFIG))
    where: dict[str, Any] = {"model": str(tiny_model_path), "judge": None, "trials": trials}
    metrics = evaluate(CONFIG, dataset, {"base": None, "few-shot": None}, out=tmp_path / "out", **where)
    assert metrics["base"]["reward_accuracy"]["items"] == metrics["few-shot"]["reward_accuracy"]["items"] == 11
    assert read_json(tmp_path / "out" / "details.json")["too_long"] == 1
    refusing = CONFIG.model_copy(update={"long_rows": "refuse"})
    with pytest.raises(DataError, match="are too long for some method"):
        evaluate(refusing, dataset, {"base": None}, out=tmp_path / "no", **where)
