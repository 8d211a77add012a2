from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fspo.errors import ConfigError, ModelError
from fspo.modeling import decoding, generation
from fspo.modeling.generation import (
    Answer,
    Sampling,
    draw,
    generate_ids,
    guided,
    nucleus,
)
from fspo.modeling.rendering import RenderedPrompt
from tests.modeling.models import KINDS, VOCABULARY, build, token_ids

ENDS = frozenset({1, 2, 3})


def greedy(model: Any, ids: Sequence[int], count: int) -> Answer:
    """The oracle: the whole sequence anew for every token."""
    so_far, answer = list(ids), []
    for _ in range(count):
        with torch.no_grad():
            token = int(model(torch.tensor([so_far])).logits[0, -1].argmax())
        if token in ENDS:
            return Answer(tuple(answer), True)
        answer.append(token)
        so_far.append(token)
    return Answer(tuple(answer), False)


def random_ids(count: int, seed: int) -> list[int]:
    return torch.randint(0, VOCABULARY, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def requests_of_all_kinds() -> list[RenderedPrompt]:
    """Shared trunks, lonely ones (short and long), none at all, prompts of one token and of none."""
    shared, other = random_ids(30, 0), random_ids(9, 1)
    return [
        RenderedPrompt(shared, random_ids(4, 2)),
        RenderedPrompt(other, random_ids(1, 3)),
        RenderedPrompt(shared, random_ids(7, 4)),
        RenderedPrompt([], random_ids(5, 5)),
        RenderedPrompt(random_ids(40, 6), random_ids(3, 7)),
        RenderedPrompt(other, random_ids(8, 8)),
        RenderedPrompt(random_ids(3, 9), []),
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_answers_equal_the_naive_loop(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "_SHARED_TRUNK", 35)
    monkeypatch.setattr(decoding, "_PREFILL_TOKENS", 50)
    monkeypatch.setattr(decoding, "_GROWTH", 5)
    model = build(kind)
    wanted = requests_of_all_kinds()
    answers = generate_ids(model, wanted, Sampling(12, temperature=0, end_ids=ENDS))
    for request, answer in zip(wanted, answers, strict=True):
        assert answer == greedy(model, [*request.trunk_ids, *request.prompt_ids], 12)


@settings(max_examples=10)
@given(st.lists(st.tuples(token_ids(0, 12), token_ids(1, 6)), min_size=1, max_size=6), st.integers(1, 6))
def test_an_answer_does_not_depend_on_its_batch(asked: list[tuple[Any, Any]], batch_size: int) -> None:
    model = build("llama")
    sampling = Sampling(6, temperature=1.0, top_p=0.9, end_ids=ENDS)
    wanted = [RenderedPrompt(trunk, prompt, seed=index) for index, (trunk, prompt) in enumerate(asked)]
    together = generate_ids(model, wanted, sampling, seed=5)
    apart = generate_ids(model, wanted[::-1], sampling, seed=5, batch_size=batch_size)[::-1]
    assert together == apart


def test_seeds_decide() -> None:
    model, sampling = build("llama"), Sampling(20)
    same = [RenderedPrompt([], [5, 6])] * 4
    answers = generate_ids(model, same, sampling, seed=1)
    assert answers == generate_ids(model, same, sampling, seed=1)
    assert answers != generate_ids(model, same, sampling, seed=2)
    assert len(set(answers)) == 4
    drawn = generate_ids(model, [RenderedPrompt([], [5, 6], seed=3)] * 2, sampling, seed=1)
    assert drawn[0] == drawn[1]


def test_ended_answers_leave_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "_WORTH_MOVING", 1000)
    model = build("gemma3")
    wanted = [RenderedPrompt(random_ids(8, i // 3), random_ids(3, i), seed=i) for i in range(12)]
    sampling = Sampling(15, end_ids=frozenset(range(20)))
    lazily = generate_ids(model, wanted, sampling)
    assert len({len(answer.ids) for answer in lazily}) > 3
    for worth in (1, 4, 10**6):
        monkeypatch.setattr(generation, "_WORTH_MOVING", worth)
        assert generate_ids(model, wanted, sampling) == lazily


def test_a_mirror_equal_to_the_trunk_changes_nothing() -> None:
    model = build("qwen3")
    plain = [RenderedPrompt(random_ids(9, 1), random_ids(3, i), seed=i) for i in range(4)]
    mirrored = [RenderedPrompt(r.trunk_ids, r.prompt_ids, r.trunk_ids, r.seed) for r in plain]
    sampling = Sampling(8, guidance=2.0, plausibility=0.0, end_ids=ENDS)
    assert generate_ids(model, mirrored, sampling) == generate_ids(model, plain, Sampling(8, end_ids=ENDS))


def test_guidance_follows_its_formula() -> None:
    model = build("llama").eval()
    trunk, mirror, prompt = random_ids(9, 1), random_ids(9, 2), random_ids(3, 3)
    sampling = Sampling(5, temperature=0, guidance=3.0, plausibility=0.2)
    batch = [
        RenderedPrompt(trunk, prompt, mirror),
        RenderedPrompt(mirror, prompt, trunk),
        RenderedPrompt(trunk, prompt),
    ]
    answers = generate_ids(model, batch, sampling)
    so_far: list[int] = []
    for token in answers[0].ids:
        with torch.no_grad():
            here = torch.log_softmax(model(torch.tensor([[*trunk, *prompt, *so_far]])).logits[0, -1], -1)
            there = torch.log_softmax(model(torch.tensor([[*mirror, *prompt, *so_far]])).logits[0, -1], -1)
        mixed = 4 * here - 3 * there
        mixed[here.exp() < 0.2 * here.exp().max()] = float("-inf")
        assert token == int(mixed.argmax())
        so_far.append(token)
    assert answers[2].ids == generate_ids(model, [batch[2]], Sampling(5, temperature=0))[0].ids


def test_implausible_tokens_are_ruled_out() -> None:
    scores, mirror = torch.tensor([[4.0, 3.0, -4.0]]), torch.tensor([[4.0, 0.0, -50.0]])
    assert int(guided(scores, mirror, 2.0, 0.1).argmax()) == 1
    assert int(guided(scores, mirror, 2.0, 0.0).argmax()) == 2


@given(st.lists(st.floats(0.001, 1.0), min_size=1, max_size=20), st.floats(0.05, 1.0), st.integers(1, 25))
def test_the_nucleus_is_the_smallest_set_that_holds_enough(weights: list[float], top_p: float, first: int) -> None:
    probabilities = torch.tensor([weights, weights[::-1]], dtype=torch.float64)
    probabilities /= probabilities.sum(dim=-1, keepdim=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generation, "_NUCLEUS", first)
        kept = nucleus(probabilities, top_p)
    for row, original in zip(kept, probabilities, strict=True):
        inside = row[row > 0]
        assert inside.sum() >= min(top_p, 1) - 1e-9
        assert inside.sum() - inside.min() * (original == inside.min()).sum() < top_p + 1e-9
        assert original[row == 0].max() <= inside.min() if (row == 0).any() else True


def test_draws_follow_the_distribution() -> None:
    scores = torch.log(torch.tensor([[0.5, 0.3, 0.0, 0.2]])).expand(4000, -1)
    noise = torch.rand(4000, generator=torch.Generator().manual_seed(0))
    counts = torch.bincount(draw(scores, noise, 1.0, 1.0), minlength=4) / 4000
    assert torch.allclose(counts, torch.tensor([0.5, 0.3, 0.0, 0.2]), atol=0.03)
    assert set(draw(scores, noise, 1.0, 0.6).tolist()) == {0, 1}
    assert set(draw(scores, noise, 0.0, 1.0).tolist()) == {0}
    assert draw(scores[:2], torch.tensor([0.0, 1.0]), 1.0, 1.0).tolist() == [0, 3]


@pytest.mark.parametrize(
    "setting",
    [{"max_new_tokens": 0}, {"temperature": -1.0}, {"top_p": 0.0}, {"guidance": -1.0}, {"plausibility": 2.0}],
)
def test_settings_out_of_range_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(setting))):
        Sampling(**setting)


def test_nothing_to_go_on_from() -> None:
    with pytest.raises(ModelError, match="at least one token"):
        generate_ids(build("llama"), [RenderedPrompt([], [])], Sampling(3))
    assert generate_ids(build("llama"), [], Sampling(3)) == []


def test_the_model_is_given_back_in_the_mode_it_came_in() -> None:
    model = build("llama").train()
    generate_ids(model, [RenderedPrompt([], [4])], Sampling(2))
    assert model.training
