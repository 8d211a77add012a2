from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fspo.errors import ModelError
from fspo.modeling import rectangle_attention
from fspo.modeling.attention import (
    IMPLEMENTATION,
    ForestPlan,
    _for_each_head,
    _sdpa,
    attend,
    branch_visibility,
    planned_attention,
)
from fspo.modeling.packing import Forest, Segment, Tree
from fspo.modeling.preparing import prepare_model
from tests.modeling.models import build


@st.composite
def forests(draw: Any) -> Forest:
    trees, start = [], 0
    for _ in range(draw(st.integers(1, 3))):
        trunk = draw(st.integers(0, 25))
        place, segments = start + trunk, []
        for _ in range(draw(st.integers(0, 3))):
            sizes = tuple(draw(st.lists(st.integers(0, 5), max_size=3)))
            segment = Segment(place, draw(st.integers(1, 4)), sizes, draw(st.integers(0, trunk)))
            segments.append(segment)
            place += segment.length
        trees.append(Tree(start, trunk, tuple(segments)))
        start = place
    return Forest(tuple(trees))


def dense_visibility(forest: Forest, window: int | None) -> torch.Tensor:
    """The S x S mask, written down token by token from the definition."""
    ancestry: list[list[int]] = []
    for tree in forest.trees:
        for offset in range(tree.trunk):
            ancestry.append(list(range(tree.start, tree.start + offset + 1)))
        for segment in tree.segments:
            before = list(range(tree.start, tree.start + segment.boundary))
            place = segment.start
            for _ in range(segment.prompt):
                before = [*before, place]
                ancestry.append(before)
                place += 1
            for length in segment.responses:
                path = before
                for _ in range(length):
                    path = [*path, place]
                    ancestry.append(path)
                    place += 1
    visible = torch.zeros(forest.length, forest.length, dtype=torch.bool)
    for token, path in enumerate(ancestry):
        visible[token, path if window is None else path[-window:]] = True
    return visible


CALLS = [0, 10, 60, 10_000]
"""How long a call takes: no block with a mask is quicker, some of the branches are, some trees are, all trees are."""


@given(
    forest=forests(),
    window=st.one_of(st.none(), st.integers(1, 12)),
    heads=st.sampled_from([(4, 4), (4, 2), (3, 1)]),
    call=st.sampled_from(CALLS),
)
def test_pieces_equal_one_dense_mask(
    forest: Forest, window: int | None, heads: tuple[int, int], call: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if forest.length == 0:
        return
    monkeypatch.setattr(rectangle_attention, "_CALL", call)
    generator = torch.Generator().manual_seed(forest.length)
    query, key, value = (
        torch.randn(1, count, forest.length, 8, generator=generator) for count in (heads[0], *heads[1:] * 2)
    )
    out = ForestPlan(forest).attend(0, query, key, value, 0.3, window, 0.0)
    repeat = heads[0] // heads[1]
    scores = query @ key.repeat_interleave(repeat, 1).transpose(2, 3) * 0.3
    scores = scores.masked_fill(~dense_visibility(forest, window), float("-inf"))
    expected = torch.softmax(scores, dim=-1) @ value.repeat_interleave(repeat, 1)
    assert torch.allclose(out, expected, atol=1e-5)


def test_masks_are_made_once_for_all_layers_and_are_never_square() -> None:
    forest = Forest((Tree(0, 200, tuple(Segment(200 + 8 * i, 2, (3, 3), 200) for i in range(20))),))
    plan = ForestPlan(forest)
    query = torch.randn(1, 2, forest.length, 4)
    for layer in range(3):
        plan.attend(layer, query, query, query, 0.5, 1000, 0.0)
    assert sum(mask.numel() for mask in plan._masks.values()) == 8 * 208


@pytest.mark.parametrize("parts", [1, 2, 3])
@given(forest=forests(), heads=st.sampled_from([(4, 4), (4, 2), (3, 1)]), call=st.sampled_from(CALLS))
def test_pieces_and_blocks_equal_one_call_per_branch_gradients_included(
    forest: Forest, heads: tuple[int, int], call: int, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if forest.length == 0:
        return
    monkeypatch.setattr(rectangle_attention, "_CALL", call)
    monkeypatch.setattr(rectangle_attention, "_parts", lambda groups: parts)
    monkeypatch.setattr(rectangle_attention, "_WORTH_CUTTING", 1)
    generator = torch.Generator().manual_seed(forest.length)
    inputs = [
        torch.randn(1, count, forest.length, 8, generator=generator, dtype=torch.float64).requires_grad_()
        for count in (heads[0], *heads[1:] * 2)
    ]
    plan = ForestPlan(forest)
    out, expected = plan.attend(0, *inputs, 0.3, None, 0.0), plan._tree_by_tree(*inputs, 0.3, None, 0.0)
    assert torch.allclose(out, expected, atol=1e-12)
    towards = torch.randn(out.shape, generator=generator, dtype=torch.float64)
    pairs = zip(torch.autograd.grad(out, inputs, towards), torch.autograd.grad(expected, inputs, towards), strict=True)
    assert all(torch.allclose(one, other, atol=1e-12) for one, other in pairs)


def test_groups_expanded_for_kernels_without_them_give_the_same() -> None:
    query, key, value = (torch.randn(1, heads, 5, 8) for heads in (6, 2, 2))
    grouped = _sdpa(query, key, value, 0.3, 0.0)
    expanded = _sdpa(query, _for_each_head(key, 6), _for_each_head(value, 6), 0.3, 0.0)
    assert torch.allclose(grouped, expanded, atol=1e-6)


@given(forests(), st.sampled_from(CALLS))
def test_pieces_cover_each_visible_key_once(forest: Forest, call: int) -> None:
    seen = torch.zeros(forest.length, forest.length, dtype=torch.int)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rectangle_attention, "_CALL", call)
        pieces = rectangle_attention.forest_pieces(forest)
    for piece in pieces:
        ones = torch.ones(piece.end - piece.start, piece.last - piece.first, dtype=torch.int)
        if piece.mask is not None:
            assert call > 0
            ones = (piece.mask == 0).int()
        assert piece.fresh == (seen[piece.start : piece.end].sum() == 0)
        seen[piece.start : piece.end, piece.first : piece.last] += ones.tril() if piece.causal else ones
    assert torch.equal(seen, dense_visibility(forest, None).int())


@pytest.mark.parametrize(("groups", "threads", "parts"), [(3, 2, 2), (4, 2, 1), (3, 1, 1), (8, 16, 2), (3, 16, 16)])
def test_every_thread_gets_equally_many_groups_of_heads(
    groups: int, threads: int, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert rectangle_attention._parts(groups) == parts
    assert groups * parts % threads == 0


def test_two_responses_share_the_prompt_and_do_not_see_each_other() -> None:
    visible = branch_visibility(Segment(3, 1, (2, 1), 3), 0, None)
    assert visible.int().tolist() == [
        [1, 1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 1, 1, 0],
        [1, 1, 1, 1, 0, 0, 1],
    ]


def test_without_a_plan_the_model_is_unchanged() -> None:
    model = build("gemma3").eval()
    ids = torch.arange(50)[None] % 61
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    before = model(ids, attention_mask=mask).logits[0, 4:]
    assert prepare_model(model) is model
    assert model.config._attn_implementation == IMPLEMENTATION
    assert torch.allclose(model(ids, attention_mask=mask).logits[0, 4:], before, atol=1e-5)


@pytest.mark.parametrize("option", ["softcap", "s_aux", "position_bias"])
def test_a_layer_with_extras_is_refused(option: str) -> None:
    tensor = torch.zeros(1, 1, 1, 4)
    plan = ForestPlan(Forest((Tree(0, 1, ()),)))
    with pytest.raises(ModelError, match=option):
        attend(torch.nn.Linear(1, 1), tensor, tensor, tensor, None, fspo_plan=plan, **{option: 1.0})


def test_a_model_that_loses_the_plan_refuses_to_run() -> None:
    model = prepare_model(build("llama"))
    with planned_attention(), pytest.raises(ModelError, match="does not hand"):
        model(torch.tensor([[1, 2]]))
