"""Attention over a forest by FlexAttention, on CUDA: one compiled kernel that skips blocks which the tree hides.

The kernel is compiled once for all lengths, but for the shortest rows, which take the portable path. Before a process
trusts it, a small forest goes through it and through the portable path, forward and back; where they differ, or nothing
compiles, one line says so and the portable path stays.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from fspo.modeling.packing import Forest, Segment, Tree

__all__ = ["FlexForest", "Portable", "as_computed", "attend_flexibly", "flex_applies"]

Portable = Callable[[Forest, Tensor, Tensor, Tensor, float, int | None], Tensor]
"""Attention of a whole row in plain pieces: forest, query, key, value, scale, window -> out."""

_BLOCK = 128
_TOLERANCES = {torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""Largest difference to the portable path, relative to the largest entry; float32 may run in TF32."""

_VARIANTS = 64
"""Most kernels that are compiled for one process: with and without gradients, windows, kinds of numbers."""

_log = logging.getLogger("fspo")
_broken = False


class FlexForest:
    """What FlexAttention needs to know of a forest: a few integers per token, and which blocks see which."""

    def __init__(self, forest: Forest, device: torch.device) -> None:
        """Lay the integers out on `device`; block masks are made when a layer first asks for them."""
        self._length, self._device = forest.length, device
        self._rows = _rows(forest, device)
        self._blocks: dict[int | None, BlockMask] = {}

    def visible(self, window: int | None, queries: Tensor, keys: Tensor) -> Tensor:
        """Whether each of `queries` (indices in the row) sees each of `keys`, which broadcast against each other."""
        return _visible(self._rows, window, queries, keys)

    def blocks(self, window: int | None) -> BlockMask:
        """The block mask of layers with this sliding window, made once."""
        if window not in self._blocks:
            self._blocks[window] = self._block_mask(window)
        return self._blocks[window]

    def _block_mask(self, window: int | None) -> BlockMask:
        # A band of the S x S mask at a time: the whole of it would be the largest thing in memory.
        count = -(-self._length // _BLOCK)
        keys = torch.arange(count * _BLOCK, device=self._device)
        inside, clamped = keys < self._length, keys.clamp(max=self._length - 1)
        partly, wholly = [], []
        for band in keys.view(count, _BLOCK):
            seen = self.visible(window, band.clamp(max=self._length - 1)[:, None], clamped[None, :]) & inside
            cells = (seen & (band < self._length)[:, None]).view(_BLOCK, count, _BLOCK)
            whole = cells.all(2).all(0)
            partly.append(cells.any(2).any(0) & ~whole)
            wholly.append(whole)
        # Tensors by themselves in the closure: the compiled kernel takes them as inputs, whatever their length.
        segment, trunk, part, position, bound = self._rows

        def mask_mod(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return _visible(_Rows(segment, trunk, part, position, bound), window, query, key)

        return BlockMask.from_kv_blocks(
            *_listed(torch.stack(partly)),
            *_listed(torch.stack(wholly)),
            BLOCK_SIZE=_BLOCK,
            mask_mod=mask_mod,
            seq_lengths=(self._length, self._length),
        )


def as_computed(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The tensors in autocast's precision, where it is on, as SDPA would take them: rotary positions are float32."""
    kind = query.device.type
    if kind != "cuda" or not torch.is_autocast_enabled(kind):
        return query, key, value
    dtype = torch.get_autocast_dtype(kind)
    return query.to(dtype), key.to(dtype), value.to(dtype)


def flex_applies(query: Tensor, key: Tensor, value: Tensor, window: int | None, portable: Portable) -> bool:
    """Whether these tensors go through FlexAttention: on CUDA, of a kind for which it was seen to be right.

    `FSPO_FLEX=0` in the environment turns it off.
    """
    if query.device.type != "cuda" or _broken or os.environ.get("FSPO_FLEX") == "0":
        return False
    same = query.shape[-1] == value.shape[-1] and query.dtype == key.dtype == value.dtype
    # Shorter rows would be compiled apart, as if they were steps of decoding.
    if not same or query.dtype not in _TOLERANCES or query.shape[2] <= _BLOCK:
        return False
    sizes = (query.shape[1], key.shape[1], query.shape[-1])
    return _is_right(query.dtype, query.device, sizes, window is not None, portable)


def attend_flexibly(
    flex: FlexForest, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None
) -> Tensor | None:
    """Attention of the whole row: [1, H, S, D] over [1, G, S, D] (G divides H) -> [1, H, S, D], differentiable.

    None, announced, where the compiler gives up on it; from then on FlexAttention applies to nothing.
    """
    global _broken
    try:
        return _attend(_compiled(), flex, query, key, value, scale, window)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a compiler can fail in any way
        _broken = True
        _announced(f"could not be used ({_reason(error)})")
        return None


def _attend(
    kernel: Callable[..., Tensor],
    flex: FlexForest,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    window: int | None,
) -> Tensor:
    grouped = query.shape[1] != key.shape[1]
    return kernel(query, key, value, block_mask=flex.blocks(window), scale=scale, enable_gqa=grouped)


@functools.cache
def _compiled() -> Callable[..., Tensor]:
    # A whole graph or none: what runs uncompiled keeps all scores in memory.
    settings: dict[str, Any] = {"fullgraph": True, "recompile_limit": _VARIANTS, "isolate_recompiles": True}
    compiled: Callable[..., Tensor] = torch.compile(flex_attention, dynamic=True, **settings)
    return compiled


@functools.cache
def _is_right(
    dtype: torch.dtype, device: torch.device, sizes: tuple[int, int, int], windowed: bool, portable: Portable
) -> bool:
    """Whether the compiled kernel agrees with the portable path on a small forest, forward and back.

    `sizes` are the heads of queries, those of keys, and the size of a head.
    """
    try:
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
            worst = _difference(dtype, device, sizes, 48 if windowed else None, portable)
    except Exception as error:
        return _announced(f"could not be used ({_reason(error)})")
    if worst > _TOLERANCES[dtype]:
        return _announced(f"differs from the portable path by {worst:.1e} in {dtype}")
    return True


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"


def _announced(what: str) -> bool:
    _log.warning("FlexAttention %s; attention uses the portable path, with the same results.", what)
    return False


def _difference(
    dtype: torch.dtype,
    device: torch.device,
    sizes: tuple[int, int, int],
    window: int | None,
    portable: Portable,
) -> float:
    """The largest difference in outputs and gradients, relative to the largest entry of each."""
    forest = _trial()
    generator = torch.Generator().manual_seed(0)
    heads, groups, size = sizes
    # Tokens before heads in memory, as the layers of a model lay them out.
    shapes = [(1, forest.length, count, size) for count in (heads, groups, groups, heads)]
    drawn = [torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes]
    found: list[list[Tensor]] = []
    for flexible in (True, False):
        leaves = [tensor.clone().requires_grad_() for tensor in drawn[:3]]
        query, key, value = (leaf.transpose(1, 2) for leaf in leaves)
        if flexible:
            out = _attend(_compiled(), FlexForest(forest, device), query, key, value, size**-0.5, window)
        else:
            out = portable(forest, query, key, value, size**-0.5, window)
        gradients = torch.autograd.grad(out, leaves, drawn[3].transpose(1, 2))
        found.append([out.detach(), *gradients])
    worst = [(one - other).abs().max() / other.abs().max() for one, other in zip(*found, strict=True)]
    # Not max() of numbers: what is not a number would get lost there.
    return float(torch.stack(worst).nan_to_num(nan=float("inf")).max())


def _trial() -> Forest:
    """Two trees that cross the borders of blocks, with branches on several boundaries and uneven responses."""
    first = Tree(0, 150, (Segment(150, 9, (40, 31), 150), Segment(230, 5, (12, 60), 70)))
    start = first.length
    second = Tree(start, 30, (Segment(start + 30, 3, (), 10), Segment(start + 33, 4, (90,), 30)))
    return Forest((first, second))


class _Rows(NamedTuple):
    """Integers for each token of the row, [S]."""

    segment: Tensor
    """Which sequence it belongs to: a number per trunk and per branch."""
    trunk: Tensor
    """The number of its tree's trunk."""
    part: Tensor
    """0 in a trunk or a prompt; 1, 2, ... in a branch's responses."""
    position: Tensor
    bound: Tensor
    """It sees the trunk's tokens before this position."""


def _rows(forest: Forest, device: torch.device) -> _Rows:
    columns: list[list[int]] = [[], [], [], [], []]
    number = 0
    for tree in forest.trees:
        own = number
        for position in range(tree.trunk):
            _add(columns, own, own, 0, position, position + 1)
        for segment in tree.segments:
            number += 1
            fork = segment.boundary + segment.prompt
            for position in range(segment.boundary, fork):
                _add(columns, number, own, 0, position, segment.boundary)
            for part, length in enumerate(segment.responses, start=1):
                for position in range(fork, fork + length):
                    _add(columns, number, own, part, position, segment.boundary)
        number += 1
    return _Rows(*(torch.tensor(column, dtype=torch.int32, device=device) for column in columns))


def _add(columns: list[list[int]], *values: int) -> None:
    for column, value in zip(columns, values, strict=True):
        column.append(value)


def _visible(rows: _Rows, window: int | None, query: Tensor, key: Tensor) -> Tensor:
    above = (rows.segment[key] == rows.trunk[query]) & (rows.position[key] < rows.bound[query])
    part = rows.part[key]
    own = (rows.segment[key] == rows.segment[query]) & (key <= query) & ((part == 0) | (part == rows.part[query]))
    seen = above | own
    return seen if window is None else seen & (rows.position[query] - rows.position[key] < window)


def _listed(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """[Q, K] of booleans -> how many blocks each band sees [1, 1, Q], and which, these first [1, 1, Q, K]."""
    order = torch.argsort(blocks.int(), dim=1, descending=True, stable=True)
    return blocks.sum(1, dtype=torch.int32)[None, None], order.to(torch.int32)[None, None]
