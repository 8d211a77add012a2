"""What a step trains on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from fspo.errors import DataError
from fspo.modeling.rendering import Branch, EpisodeRenderer, TokenizedEpisode
from fspo.preferences.sampling import EpisodeSampler
from fspo.preferences.types import Episode
from fspo.training.config import TrainingConfig
from fspo.training.steps import (
    EpisodeStream,
    StepBatch,
    StepCollator,
    Unit,
    balanced,
    known_responses,
    shares,
    split_passes,
)
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


def long(index: int, tokens: int, pairs: int = 1) -> Unit:
    """A unit of so many tokens."""
    branches = tuple(Branch((), ((1,),), tokens - pairs, 0, query) for query in range(pairs))
    return Unit(index, f"u{index}", TokenizedEpisode((1,) * (tokens - pairs), (tokens - pairs,), branches))


def test_the_longest_units_are_dealt_out_first() -> None:
    units = [long(index, tokens) for index, tokens in enumerate([100, 900, 400, 500, 300])]
    assert [[unit.tokens for unit in own] for own in balanced(units, 2)] == [[900, 300], [100, 400, 500]]
    assert [[unit.tokens for unit in own] for own in balanced(units, 3)] == [[900], [100, 500], [400, 300]]


@given(st.lists(st.integers(2, 500), min_size=1, max_size=24), st.integers(1, 6), st.integers(1, 1500))
def test_shares_are_balanced_and_make_up_the_step(tokens: list[int], processes: int, row_tokens: int) -> None:
    units = [long(index, count) for index, count in enumerate(tokens)]
    processes = min(processes, len(units))
    own = balanced(units, processes)
    loads = [sum(unit.tokens for unit in part) for part in own]
    assert sorted(unit.index for part in own for unit in part) == list(range(len(units)))
    assert min(loads) > 0
    assert max(loads) - min(loads) <= max(tokens)
    assert max(loads) <= sum(tokens) / processes + max(tokens) * (1 - 1 / processes)
    every = shares(units, processes, row_tokens)
    assert every == shares(units, processes, row_tokens)
    assert len({len(share.passes) for share in every}) == 1
    for share, part in zip(every, own, strict=True):
        assert share.passes[: share.counted] == split_passes(part, row_tokens)
        assert all(len(extra) == 1 and extra[0] in part for extra in share.passes[share.counted :])


class CountingObserver:
    """Its log-odds are the number of shots, and a hundredth for each query before."""

    identity = "counting"

    def log_odds(self, episode: Episode, k: int, responses: Sequence[Sequence[str]] = ()) -> list[list[float]]:
        return [
            [k + place / 100 + pair / 1e4 for pair in range(len(texts) * (len(texts) - 1) // 2)]
            for place, texts in enumerate(responses)
        ]


@pytest.mark.parametrize("rungs", ["all", "one"])
def test_each_pair_aims_at_what_the_observer_says_after_the_same_shots(tokenizer: Any, rungs: str) -> None:
    settings = {"objective": "mirrored-contrast", "target": "observer", "ladder": [1, 3], "rungs_per_query": rungs}
    teacher = replace(collator(tokenizer, **settings), observer=CountingObserver())
    for unit in (teacher.unit(*stream()[index]) for index in range(4)):
        assert unit.targets == tuple((branch.shots + branch.query / 100,) for branch in unit.plain.branches)


def test_other_responses_to_a_querys_prompt_are_scored_beside_the_labelled_two(tokenizer: Any) -> None:
    settings = {"objective": "mirrored-contrast", "target": "observer", "responses": 4, "bias_weight": 0.1}
    index, episode = stream()[0]
    known = {q.prompt: [q.chosen, q.rejected, *(f"Another answer, {n}." for n in range(5))] for q in episode.queries}
    teacher = replace(collator(tokenizer, **settings), observer=CountingObserver(), known=known)
    unit = teacher.unit(index, episode)
    assert unit.mirrored is not None and unit.reference is None
    ids = {teacher.renderer.render_response(text): text for texts in known.values() for text in texts}
    for branch, twin in zip(unit.plain.branches, unit.mirrored.branches, strict=True):
        query = episode.queries[branch.query]
        shown = [ids[response] for response in branch.responses]
        assert shown[:2] == [query.chosen, query.rejected]
        assert len(set(shown)) == 4 and set(shown) <= set(known[query.prompt])
        assert twin.responses == branch.responses
    assert unit.targets is not None and {len(targets) for targets in unit.targets} == {6}
    assert unit == teacher.unit(index, episode)
    assert unit != teacher.unit(index + 1, episode)


def test_a_prompt_with_fewer_responses_repeats_one(tokenizer: Any) -> None:
    settings = {"objective": "mirrored-contrast", "target": "observer", "responses": 4}
    index, episode = stream()[0]
    known = {q.prompt: [q.chosen, q.rejected, "Another answer."] for q in episode.queries}
    unit = replace(collator(tokenizer, **settings), observer=CountingObserver(), known=known).unit(index, episode)
    for branch in unit.plain.branches:
        assert len(branch.responses) == 4
        assert branch.responses[3] == branch.responses[0]


def test_more_responses_than_any_prompt_has_are_refused(tokenizer: Any) -> None:
    config = TrainingConfig(objective="mirrored-contrast", target="observer", responses=3)
    dataset = small_dataset(users=2)
    with pytest.raises(DataError, match=r"more than 2 responses; set 2 or fewer"):
        known_responses(dataset, config)
    assert known_responses(dataset, TrainingConfig()) == {}


def test_the_observer_sees_only_the_shots_that_have_room(tokenizer: Any) -> None:
    seen: list[int] = []

    class Watching(CountingObserver):
        def log_odds(self, episode: Episode, k: int, responses: Sequence[Sequence[str]] = ()) -> list[list[float]]:
            seen.append(len(episode.shots))
            return super().log_odds(episode, k, responses)

    settings = {"objective": "mirrored-contrast", "target": "observer"}
    length = collator(tokenizer, **settings).renderer.render(stream()[0][1]).longest
    teacher = replace(collator(tokenizer, renderer_length=length - 1, **settings), observer=Watching())
    unit = teacher.unit(*stream()[0])
    assert unit.plain.dropped_shots > 0
    assert seen == [3 - unit.plain.dropped_shots]


def test_labels_say_how_probably_they_are_wrong(tokenizer: Any) -> None:
    number, episode = stream()[0]
    first, second = episode.queries
    doubtful = replace(episode, queries=(first, second.with_noise(0.2)))
    one = collator(tokenizer, objective="dpo", ladder=[1, 3])
    assert one.unit(number, episode).noise is None
    unit = one.unit(number, doubtful)
    assert unit.noise == tuple(0.2 * branch.query for branch in unit.plain.branches)
    assert len(unit.noise) == 4
