"""FlexAttention's pattern against the one written down token by token; and what happens where it can't be used."""

from __future__ import annotations

import logging

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import flex_attention
from torch.nn.functional import scaled_dot_product_attention

from fspo.modeling import flex
from fspo.modeling.attention import _portable
from fspo.modeling.flex import FlexForest, _attend, _trial, flex_applies
from fspo.modeling.packing import Forest
from tests.modeling.test_attention import dense_visibility, forests

CPU = torch.device("cpu")
WINDOWS = st.one_of(st.none(), st.integers(1, 12))


@pytest.fixture(autouse=True)
def _asked_afresh() -> None:
    flex._is_right.cache_clear()


@given(forests(), WINDOWS)
def test_a_token_sees_what_the_tree_lets_it_see(forest: Forest, window: int | None) -> None:
    row = torch.arange(forest.length)
    seen = FlexForest(forest, CPU).visible(window, row[:, None], row[None, :])
    assert torch.equal(seen, dense_visibility(forest, window))


@pytest.mark.parametrize("window", [None, 48, 200])
def test_blocks_are_skipped_masked_or_seen_as_the_tree_wants(window: int | None) -> None:
    forest = _trial()
    blocks = FlexForest(forest, CPU).blocks(window)
    count = -(-forest.length // 128)
    dense = torch.zeros(count * 128, count * 128, dtype=torch.bool)
    dense[: forest.length, : forest.length] = dense_visibility(forest, window)
    cells = dense.view(count, 128, count, 128)
    assert torch.equal(blocks.to_dense()[0, 0].bool(), cells.any(3).any(1))
    full, number = blocks.full_kv_indices, blocks.full_kv_num_blocks
    assert full is not None and number is not None
    listed = {(row, int(column)) for row in range(count) for column in full[0, 0, row, : int(number[0, 0, row])]}
    assert listed == {(int(row), int(column)) for row, column in cells.all(3).all(1).nonzero()}
    assert blocks.seq_lengths == (forest.length, forest.length)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("window", [None, 48])
@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (3, 1)])
def test_attention_equals_one_dense_mask_and_the_portable_path(window: int | None, heads: tuple[int, int]) -> None:
    forest = _trial()
    generator = torch.Generator().manual_seed(1)
    shapes = [(1, count, forest.length, 16) for count in (heads[0], heads[1], heads[1])]
    query, key, value = (torch.randn(shape, generator=generator) for shape in shapes)
    found = _attend(flex_attention, FlexForest(forest, CPU), query, key, value, 0.3, window)
    mask = dense_visibility(forest, window)
    wanted = scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=0.3, enable_gqa=True)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found, _portable(forest, query, key, value, 0.3, window), rtol=1e-4, atol=1e-5)


def test_processors_go_another_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flex, "_is_right", lambda *_: pytest.fail("asked"))
    tensor = torch.zeros(1, 2, 4, 8)
    assert not flex_applies(tensor, tensor, tensor, _portable)


def test_what_does_not_compile_is_said_once_and_left(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise RuntimeError("no compiler here\nwith much more to say")

    monkeypatch.setattr(flex, "_compiled", broken)
    with caplog.at_level(logging.WARNING, "fspo"):
        assert [flex._is_right(torch.float32, CPU, 4, 2, 16, _portable) for _ in range(3)] == [False] * 3
    [record] = caplog.records
    assert "FlexAttention could not be used (RuntimeError: no compiler here); attention goes" in record.getMessage()


def test_a_kernel_that_is_wrong_is_found_out(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def near(forest: FlexForest, query: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        return _portable(_trial(), query, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(flex, "attend_flexibly", near)
    assert flex._is_right(torch.float32, CPU, 4, 2, 16, _portable)
    assert not caplog.records
    for wrong in (
        lambda *arguments: near(*arguments) * 1.01,
        lambda forest, query, key, value, scale, window: near(forest, query, key, value, scale, None),
        lambda forest, query, key, *rest: near(forest, query, key.detach() + 0 * key, *rest),
        lambda *arguments: near(*arguments) * float("nan"),
    ):
        flex._is_right.cache_clear()
        monkeypatch.setattr(flex, "attend_flexibly", wrong)
        assert not flex._is_right(torch.float32, CPU, 4, 2, 16, _portable)
    assert all("differs from the portable path" in record.getMessage() for record in caplog.records)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_cuda_it_is_right_and_compiled_for_all_lengths(dtype: torch.dtype) -> None:
    device = torch.device("cuda")
    assert flex._is_right(dtype, device, 9, 3, 64, _portable)
