from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.naive import naive_logprobs, response_logprobs
from fspo.errors import ModelError
from fspo.modeling import logprobs, rectangle_attention
from fspo.modeling.logprobs import branch_logprobs
from fspo.modeling.reduction import Reduction
from fspo.modeling.rendering import Branch, TokenizedEpisode
from tests.modeling.models import KINDS, build, episodes

CASES = [
    ("llama", False, True),
    ("llama", True, False),
    *((kind, both, both) for kind in KINDS for both in (False, True)),
]
"""Architecture, adapters, checkpointing. Neither of these depends on the architecture, so each alone has one."""
CALLS = [0, 100, 2000]
"""How many cells a call of the attention's kernel is worth: without masked blocks, with some, all trees masked."""
LOGPROB_TOLERANCE = 1e-4
GRADIENT_TOLERANCE = 1e-4


def gradients(model: Any, results: list[logprobs.BranchLogprobs]) -> torch.Tensor:
    """All gradients in one vector, of a loss in which every response weighs differently."""
    model.zero_grad()
    loss = sum(
        (row.sums * torch.linspace(0.5, 2, row.sums.numel()).view_as(row.sums)).sum()
        + row.means.square().sum()
        + row.discounted.square().mean()
        for row in results
    )
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize(("kind", "lora", "checkpointing"), CASES)
def test_equals_one_sequence_per_response_with_its_gradients(
    kind: str, lora: bool, checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build(kind, lora=lora, checkpointing=checkpointing)

    @settings(max_examples=6)
    @given(st.lists(episodes(), min_size=1, max_size=2), st.sampled_from(CALLS))
    def check(some: list[TokenizedEpisode], call: int) -> None:
        monkeypatch.setattr(rectangle_attention, "_CALL", call)
        shared = branch_logprobs(model, some)
        shared_gradients = gradients(model, shared)
        naive = naive_logprobs(model, some)
        naive_gradients = gradients(model, naive)
        for ours, oracle in zip(shared, naive, strict=True):
            assert torch.equal(ours.lengths, oracle.lengths)
            assert (ours.sums - oracle.sums).abs().max() < LOGPROB_TOLERANCE
            assert (ours.discounted - oracle.discounted).abs().max() < LOGPROB_TOLERANCE
        difference = (shared_gradients - naive_gradients).norm() / naive_gradients.norm().clamp(min=1e-6)
        assert difference < GRADIENT_TOLERANCE

    check()


@pytest.mark.parametrize("kind", KINDS)
def test_the_naive_way_is_what_transformers_computes_without_us(kind: str) -> None:
    model = build(kind).eval()
    ids = torch.randint(0, 61, (1, 30), generator=torch.Generator().manual_seed(1))
    assert model.config._attn_implementation == "sdpa"
    with torch.no_grad():
        expected = torch.log_softmax(model(ids).logits[0, 19:-1], dim=-1).gather(-1, ids[0, 20:, None])[:, 0]
        ours = response_logprobs(model, ids[0, :20].tolist(), ids[0, 20:].tolist())
    assert torch.allclose(ours, expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_scoring_one_way_after_the_other_leaves_the_model_as_it_was(kind: str) -> None:
    model = build(kind).eval()
    ids = torch.arange(40)[None] % 61
    before = model(ids).logits
    branch_logprobs(model, [TokenizedEpisode((1, 2, 3), (3,), (Branch((4,), ((5, 6), (7,)), 3, 0, 0),))])
    assert torch.allclose(model(ids).logits, before, atol=1e-5)


def test_a_long_head_is_computed_in_chunks_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("smollm2")
    some = [TokenizedEpisode(tuple(range(20)), (20,), (Branch((3,), (tuple(range(9)), (1, 2)), 20, 0, 0),))]
    whole = branch_logprobs(model, some)
    whole_gradients = gradients(model, whole)
    monkeypatch.setattr(logprobs, "_LOGITS_BUDGET", 61 * 4)
    pieces = branch_logprobs(model, some)
    assert (gradients(model, pieces) - whole_gradients).norm() < 1e-5 * whole_gradients.norm()
    with torch.no_grad():
        assert torch.allclose(branch_logprobs(model, some)[0].sums, whole[0].sums, atol=1e-5)


def test_a_branch_does_not_see_what_comes_after_its_boundary_nor_other_branches() -> None:
    model = build("qwen3").eval()
    branch = Branch((1, 2), ((3, 4), (5,)), 4, 0, 0)
    others = Branch((9, 9), ((8, 8), (7,)), 10, 0, 1)
    one = TokenizedEpisode((1, 2, 3, 4, 5, 6, 7, 8, 9, 10), (10,), (branch, others))
    two = TokenizedEpisode((1, 2, 3, 4, 50, 50, 50), (7,), (branch,))
    with torch.no_grad():
        first, second = branch_logprobs(model, [one]), branch_logprobs(model, [two])
    assert torch.allclose(first[0].sums[0], second[0].sums[0], atol=1e-5)


def test_lengths_and_means_count_the_tokens_of_each_response() -> None:
    episode = TokenizedEpisode((1, 2), (2,), (Branch((), ((3, 4, 5), (6,)), 2, 0, 0),))
    result = branch_logprobs(build("llama"), [episode])[0]
    assert result.lengths.tolist() == [[3, 1]]
    assert torch.allclose(result.means * result.lengths, result.sums)
    by_name: dict[Reduction, torch.Tensor] = {
        "sum": result.sums,
        "mean": result.means,
        "discounted": result.discounted,
    }
    assert all(torch.equal(result.reduced(name), values) for name, values in by_name.items())
    assert result.discounted[0, 1] == result.sums[0, 1]  # of one token


def test_nothing_to_score() -> None:
    assert branch_logprobs(build("llama"), []) == []
    with pytest.raises(ModelError, match="no response"):
        branch_logprobs(build("llama"), [TokenizedEpisode((1,), (1,), ())])
