"""What a step trains on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from fspo.modeling.rendering import EpisodeRenderer
from fspo.preferences.sampling import EpisodeSampler
from fspo.training.config import TrainingConfig
from fspo.training.steps import EpisodeStream, StepBatch, StepCollator, Unit, split_passes
from tests.training.helpers import small_dataset


@pytest.fixture(scope="module")
def tokenizer(tiny_model_path: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_model_path)


def collator(tokenizer: Any, both_sides: bool = False, context: str = "shots", **settings: Any) -> StepCollator:
    max_length = settings.pop("renderer_length", None)
    config = TrainingConfig.model_validate({"shots": 3, "queries": 2, **settings})
    return StepCollator(EpisodeRenderer(tokenizer, context=context, max_length=max_length), config, both_sides)  # type: ignore[arg-type]


def stream(length: int = 20) -> EpisodeStream:
    return EpisodeStream(EpisodeSampler(small_dataset(), shots=3, queries=2, seed=0), length)


def batch(tokenizer: Any, size: int = 3, **settings: Any) -> StepBatch:
    episodes = stream()
    step = collator(tokenizer, **settings)([episodes[index] for index in range(size)])["step"]
    assert isinstance(step, StepBatch)
    return step


def test_a_step_is_a_function_of_its_number(tokenizer: Any) -> None:
    assert len(stream()) == 20
    settings = {"mirror": True, "ladder": [1, 3], "rungs_per_query": "one"}
    assert batch(tokenizer, **settings) == batch(tokenizer, **settings)


def test_plain_steps_have_no_mirror(tokenizer: Any) -> None:
    units = list(batch(tokenizer, objective="ipo").units)
    assert [unit.index for unit in units] == [0, 1, 2]
    assert all(unit.mirrored is None and unit.reference is None and unit.pairs == 2 for unit in units)


def test_the_mirror_has_the_same_pairs_under_other_shots(tokenizer: Any) -> None:
    for unit in batch(tokenizer, mirror=True).units:
        assert unit.mirrored is not None
        assert unit.mirrored.trunk_ids != unit.plain.trunk_ids
        assert [b.responses for b in unit.mirrored.branches] == [b.responses for b in unit.plain.branches]
        assert unit.tokens == unit.plain.tokens + unit.mirrored.tokens


def test_pref_ft_renders_only_what_it_trains_on(tokenizer: Any) -> None:
    both = next(batch(tokenizer, objective="pref-ft", mirror=True, both_sides=True).units)
    only = next(batch(tokenizer, objective="pref-ft", mirror=True).units)
    assert only.mirrored is not None
    assert [b.responses for b in only.plain.branches] == [b.responses[:1] for b in both.plain.branches]
    assert [b.responses for b in only.mirrored.branches] == [b.responses[1:] for b in both.plain.branches]


def test_a_ladder_attaches_queries_at_every_rung_or_at_one(tokenizer: Any) -> None:
    every = next(batch(tokenizer, ladder=[1, 2, 3]).units)
    assert sorted((b.query, b.shots) for b in every.plain.branches) == [(q, s) for q in (0, 1) for s in (1, 2, 3)]
    drawn = [unit.plain.branches for unit in batch(tokenizer, size=20, ladder=[1, 2, 3], rungs_per_query="one").units]
    assert all(sorted(b.query for b in branches) == [0, 1] for branches in drawn)
    assert {b.shots for branches in drawn for b in branches} == {1, 2, 3}


def test_one_rung_is_the_same_for_the_mirror(tokenizer: Any) -> None:
    for unit in batch(tokenizer, size=8, mirror=True, ladder=[1, 2, 3], rungs_per_query="one").units:
        assert unit.mirrored is not None
        assert [(b.query, b.shots) for b in unit.mirrored.branches] == [(b.query, b.shots) for b in unit.plain.branches]


def test_a_reference_without_context_sees_each_query_once(tokenizer: Any) -> None:
    for unit in batch(tokenizer, reference="none", ladder=[1, 2, 3]).units:
        assert unit.reference is not None
        assert [b.query for b in unit.reference.branches] == [0, 1]
        assert all(b.shots == 0 for b in unit.reference.branches)
        assert [unit.reference.branches[b.query].responses for b in unit.plain.branches] == [
            b.responses for b in unit.plain.branches
        ]


def test_twins_drop_the_same_shots(tokenizer: Any) -> None:
    longest = max(unit.plain.longest for unit in batch(tokenizer).units)
    for cut in range(0, longest, 7):
        try:
            units = list(batch(tokenizer, mirror=True, renderer_length=longest - cut).units)
        except Exception as error:
            assert "tokens" in str(error)
            break
        for unit in units:
            assert unit.mirrored is not None
            assert unit.mirrored.dropped_shots == unit.plain.dropped_shots
            assert len(unit.mirrored.boundaries) == len(unit.plain.boundaries)


def test_passes_keep_the_budget_and_the_order(tokenizer: Any) -> None:
    units = tuple(batch(tokenizer, size=7).units)
    budget = 2 * max(unit.tokens for unit in units)
    passes = split_passes(units, budget)
    assert tuple(unit for group in passes for unit in group) == units
    assert all(sum(unit.tokens for unit in group) <= budget for group in passes)
    assert 1 < len(passes) < 7
    assert [len(group) for group in split_passes(units, 1)] == [1] * 7
    assert split_passes((), 10) == ()


def test_counts_are_sums_over_units(tokenizer: Any) -> None:
    step = batch(tokenizer, size=5, row_tokens=1)
    units: list[Unit] = list(step.units)
    assert step.tokens == sum(unit.tokens for unit in units)
    assert step.pairs == 10
