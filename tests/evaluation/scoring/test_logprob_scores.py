"""Rewards: the table of scores equals the naive computation, resumes, and what was scored is not scored again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fspo.evaluation.config import EvaluationConfig
from fspo.evaluation.scoring.eval_episodes import Trial, build_trials
from fspo.evaluation.scoring.logprob_scores import Scorer, Scores
from fspo.evaluation.scoring.weights import LoadableModel
from tests.evaluation.helpers import small_dataset

CONFIG = EvaluationConfig(shots=3, ladder=(0, 1, 3), queries=2)


@pytest.fixture(scope="module")
def tiny(tiny_model_path: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(str(tiny_model_path)).eval()
    return model, AutoTokenizer.from_pretrained(str(tiny_model_path))


@pytest.fixture(scope="module")
def trials() -> list[Trial]:
    return build_trials(small_dataset("t"), CONFIG)[:2]


def scored(tiny: tuple[Any, Any], trials: list[Trial], path: Path, context: Any = "shots", **options: Any) -> Scores:
    from fspo.modeling.rendering import EpisodeRenderer

    model, tokenizer = tiny
    config = options.pop("config", CONFIG)
    renderer = EpisodeRenderer(tokenizer, context=context, max_length=config.max_length)
    give = options.pop("model", lambda: model)
    return Scorer(LoadableModel(give, renderer, "w"), config, "fspo").score(trials, path)


def refuse() -> Any:
    raise AssertionError("the model was asked for again")


def test_scores_equal_the_naive_computation(tiny: tuple[Any, Any], trials: list[Trial], tmp_path: Path) -> None:
    from benchmarks.naive import naive_logprobs
    from fspo.modeling.rendering import EpisodeRenderer

    scores = scored(tiny, trials, tmp_path / "m.jsonl")
    renderer = EpisodeRenderer(tiny[1])
    trial = trials[1]
    for condition, episode in (("own", trial.own), ("flipped", trial.own.flip_shots()), ("swapped", trial.swapped)):
        assert episode is not None
        (naive,) = naive_logprobs(tiny[0], [renderer.render(episode)])
        for query, expected in enumerate(naive.sums.tolist()):
            score = scores.get(trial.item(query), 3, condition)  # type: ignore[arg-type]
            assert score is not None
            assert [score.chosen, score.rejected] == pytest.approx(expected, abs=1e-3)
            assert score.margin("mean") == pytest.approx(
                expected[0] / naive.lengths[query, 0].item() - expected[1] / naive.lengths[query, 1].item(), abs=1e-4
            )


def test_what_was_scored_is_not_scored_again(tiny: tuple[Any, Any], trials: list[Trial], tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    whole = scored(tiny, trials, path)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + lines[1][: len(lines[1]) // 2])  # killed while writing the second user
    resumed = scored(tiny, trials, path)
    again = scored(tiny, trials, path, model=refuse)
    for trial in trials:
        for query in range(2):
            assert (
                whole.get(trial.item(query), 1) == resumed.get(trial.item(query), 1) == again.get(trial.item(query), 1)
            )
    with pytest.raises(AssertionError, match="asked for again"):
        scored(tiny, trials, path, model=refuse, config=CONFIG.model_copy(update={"shots": 2}))


@pytest.mark.parametrize(("context", "rows"), [("none", 2), ("description", 4), ("shots", 12), ("both", 12)])
def test_each_context_is_scored_only_where_it_differs(
    tiny: tuple[Any, Any], trials: list[Trial], tmp_path: Path, context: str, rows: int
) -> None:
    scores = scored(tiny, trials[:1], tmp_path / "m.jsonl", context)
    assert len(scores) == rows
    for condition in ("own", "flipped", "swapped", "swapped-flipped"):
        assert scores.get(trials[0].item(1), 3, condition) is not None  # type: ignore[arg-type]


def test_dropped_shots_are_counted_and_leave_every_rung_filled(
    tiny: tuple[Any, Any], trials: list[Trial], tmp_path: Path
) -> None:
    scores = scored(tiny, trials[:1], tmp_path / "m.jsonl", config=CONFIG.model_copy(update={"max_length": 230}))
    assert scores.dropped_shots > 0
    assert all(scores.get(trials[0].item(q), k) is not None for q in range(2) for k in (0, 1, 3))
