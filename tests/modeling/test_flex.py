"""FlexAttention's pattern against the one written down token by token; and what happens where it can't be used."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import flex_attention
from torch.nn.functional import scaled_dot_product_attention

from fspo.modeling import flex
from fspo.modeling.attention import _portable
from fspo.modeling.flex import FlexForest, _attend, _trial, as_computed, attend_flexibly, flex_applies
from fspo.modeling.packing import Forest, Tree
from tests.modeling.test_attention import dense_visibility, forests

CPU = torch.device("cpu")
WINDOWS = st.one_of(st.none(), st.integers(1, 12))


@pytest.fixture(autouse=True)
def _asked_afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    flex._is_right.cache_clear()
    monkeypatch.setattr(flex, "_broken", False)


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
@pytest.mark.parametrize(("window", "heads"), [(48, (4, 4)), (None, (4, 2)), (48, (3, 1))])
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
    assert not flex_applies(tensor, tensor, tensor, None, _portable)


@pytest.mark.parametrize("length", [100, 300])
def test_rows_that_are_long_enough_and_of_one_kind_go_through_it(monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    asked = []
    monkeypatch.setattr(flex, "_is_right", lambda *what: not asked.append(what))
    query = SimpleNamespace(device=torch.device("cuda", 0), dtype=torch.bfloat16, shape=(1, 4, length, 16))
    key = SimpleNamespace(**vars(query) | {"shape": (1, 2, length, 16)})
    mixed = SimpleNamespace(**vars(key) | {"dtype": torch.float32})
    assert flex_applies(query, key, key, None, _portable) == (length > 128)  # type: ignore[arg-type]
    assert not flex_applies(query, mixed, key, None, _portable)  # type: ignore[arg-type]
    monkeypatch.setenv("FSPO_FLEX", "0")
    assert not flex_applies(query, key, key, 7, _portable)  # type: ignore[arg-type]
    assert asked == [(torch.bfloat16, query.device, (4, 2, 16), False, _portable)] * (length > 128)


def test_under_autocast_all_three_come_in_its_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = (torch.float32, torch.float32, torch.bfloat16)
    here = [torch.zeros(1, 2, 4, 8, dtype=kind) for kind in kinds]
    there = [SimpleNamespace(device=torch.device("cuda", 0), to=lambda dtype: dtype) for _ in kinds]
    assert as_computed(*there) == tuple(there)  # type: ignore[arg-type, comparison-overlap]
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: kind == "cuda")
    monkeypatch.setattr(torch, "get_autocast_dtype", lambda kind: torch.bfloat16)
    assert as_computed(*there) == (torch.bfloat16,) * 3  # type: ignore[arg-type, comparison-overlap]
    assert all(one is other for one, other in zip(as_computed(*here), here, strict=True))


def test_a_compiler_that_gives_up_later_is_announced_and_not_asked_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object, **__: object) -> None:
        raise RuntimeError("recompile limit reached")

    monkeypatch.setattr(flex, "_compiled", lambda: full)
    tensor = torch.zeros(1, 2, _trial().length, 8)
    with caplog.at_level(logging.WARNING, "fspo"):
        assert attend_flexibly(FlexForest(_trial(), CPU), tensor, tensor, tensor, 0.3, None) is None
    assert "recompile limit reached" in caplog.records[0].getMessage()
    monkeypatch.setattr(flex, "_is_right", lambda *_: True)
    query = SimpleNamespace(device=torch.device("cuda", 0), dtype=torch.float32, shape=(1, 4, 300, 16))
    assert not flex_applies(query, query, query, None, _portable)  # type: ignore[arg-type]


def test_what_does_not_compile_is_said_once_and_left(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise RuntimeError("no compiler here\nwith much more to say")

    monkeypatch.setattr(flex, "_compiled", broken)
    with caplog.at_level(logging.WARNING, "fspo"):
        assert [flex._is_right(torch.float32, CPU, (4, 2, 16), False, _portable) for _ in range(3)] == [False] * 3
    [record] = caplog.records
    assert "FlexAttention could not be used (RuntimeError: no compiler here); attention uses" in record.getMessage()


@pytest.mark.parametrize("inference", [False, True])
def test_a_kernel_that_is_wrong_is_found_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, inference: bool
) -> None:
    def near(_: object, __: object, query: torch.Tensor, *rest: Any) -> torch.Tensor:
        return _portable(_trial(), query, *rest)

    def right(kernel: object) -> bool:
        flex._is_right.cache_clear()
        monkeypatch.setattr(flex, "_attend", kernel)
        with torch.inference_mode(inference):
            return flex._is_right(torch.float32, CPU, (4, 2, 16), True, _portable)

    assert right(near)
    assert not caplog.records
    assert not right(lambda *arguments: near(*arguments) * 1.01)
    assert not right(lambda *arguments: near(*arguments[:-1], None))
    assert not right(lambda a, b, query, key, *rest: near(a, b, query, key.detach() + 0 * key, *rest))
    assert not right(lambda *arguments: near(*arguments) * float("nan"))
    assert len(caplog.records) == 4
    assert all("differs from the portable path" in record.getMessage() for record in caplog.records)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_cuda_it_is_right_and_compiled_for_all_lengths(dtype: torch.dtype) -> None:
    device = torch.device("cuda", 0)
    forest = Forest(tuple(Tree(700 * n, 700, ()) for n in range(2)))
    assert flex._is_right(dtype, device, (9, 3, 64), False, _portable)
    for trees in (1, 2):
        part = Forest(forest.trees[:trees])
        tensors = [torch.randn(1, part.length, heads, 64, device=device, dtype=dtype) for heads in (9, 3, 3)]
        query, key, value = (tensor.requires_grad_().transpose(1, 2) for tensor in tensors)
        before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        assert attend_flexibly(FlexForest(part, device), query, key, value, 0.125, None) is not None
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == before
