"""Attention over a forest in pieces, on processors: rectangles, triangles and small blocks of the tree mask.

A token's attention over several sets of keys is a mean of its attentions over each, weighted by the exponentials of
their log-sum-exps (as in flash attention, arXiv 2205.14135). So all branches attend to what they share of the trunk in
one large rectangle, and to themselves in small ones: no large mask exists, and no key of the trunk is copied for a
branch. For short texts, calling the kernel takes longer than what it computes: there, a tree, or branches next to each
other, are one block with a mask. On the way back, each piece needs only the merged output and log-sum-exp, and all
pieces but blocks are cut so that all threads have equally much to do: the kernel gives each thread whole groups of
heads of a sequence.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import groupby
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fspo.modeling.packing import Forest, Segment, Tree

__all__ = ["Piece", "attend_in_pieces", "forest_pieces", "pieces_apply", "shared_out"]

_WORTH_CUTTING = 64
"""Queries that a part has at least."""

_CALL = 2000
"""Cells of a mask that take about as long as a call of the kernel: a block may have so many more for each it saves."""
_LARGEST = 2**20
"""Cells that a block with a mask has at most: 4 MB in single precision."""

# What scaled_dot_product_attention itself runs on processors; it keeps the log-sum-exp to itself, and these return it.
_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


@dataclass(frozen=True)
class Piece:
    """Queries `start` to `end` of the row attend to keys `first` to `last`: to all, or each to those up to itself."""

    start: int
    end: int
    first: int
    last: int
    causal: bool
    fresh: bool
    """No earlier piece has these queries."""
    parts: int = 1
    """Queries in so many equal parts: of a triangle, the smaller triangles along its diagonal."""
    mask: Tensor | None = field(default=None, compare=False)
    """[queries, keys], of a block: 0 where a query attends to a key, and minus infinity elsewhere."""


def forest_pieces(forest: Forest) -> tuple[Piece, ...]:
    """Pieces that cover, for every token of the row, each token that it sees exactly once."""
    pieces: list[Piece] = []
    covered = 0
    for tree in forest.trees:
        for shapes in _blocks(tree):
            if any(shape.cells for shape in shapes):
                pieces.append(_piece(shapes, covered))
                covered = max(covered, pieces[-1].end)
    return tuple(pieces)


def shared_out(pieces: Sequence[Piece], parts: int) -> Iterator[Piece]:
    """The same cells, in pieces whose queries are in `parts` equal parts wherever they are many enough."""
    for piece in pieces:
        length = (piece.end - piece.start) // parts
        if parts == 1 or length < _WORTH_CUTTING or piece.mask is not None:
            yield piece
            continue
        middle = piece.start + parts * length
        if not piece.causal:
            yield replace(piece, end=middle, parts=parts)
            rest = [replace(piece, start=middle)]
        else:
            yield replace(piece, end=middle, last=middle, parts=parts)
            starts = range(piece.start + length, middle, length)
            below = [replace(piece, start=at, end=at + length, last=at, causal=False) for at in starts]
            below.append(replace(piece, start=middle, last=middle, causal=False))
            yield from shared_out([part for part in below if part.start < part.end], parts)
            rest = [replace(piece, start=middle, first=middle)]
        yield from (part for part in rest if part.start < part.end)


def pieces_apply(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether these tensors can be attended over in pieces: full precision, on a processor, all of one kind."""
    kinds = {(tensor.device.type, tensor.dtype, tensor.shape[-1]) for tensor in (query, key, value)}
    return len(kinds) == 1 and query.device.type == "cpu" and query.dtype in (torch.float32, torch.float64)


def attend_in_pieces(query: Tensor, key: Tensor, value: Tensor, pieces: tuple[Piece, ...], scale: float) -> Tensor:
    """Attention of the whole row: [1, H, S, D] over [1, G, S, D] (G divides H) -> [1, H, S, D], differentiable."""
    out: Tensor = _PiecewiseAttention.apply(query, key, value, pieces, scale)  # type: ignore[no-untyped-call]
    return out


class _PiecewiseAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any, query: Tensor, key: Tensor, value: Tensor, pieces: tuple[Piece, ...], scale: float
    ) -> Tensor:
        out, lse = _merged(query, key, value, pieces, scale)
        context.save_for_backward(query, key, value, out, lse)
        context.pieces, context.scale = pieces, scale
        return out

    @staticmethod
    def backward(context: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        query, key, value, out, lse = context.saved_tensors
        sums = [torch.zeros_like(tensor) for tensor in (query, key, value)]
        for piece in shared_out(context.pieces, _parts(key.shape[1])):
            rows, keys = slice(piece.start, piece.end), slice(piece.first, piece.last)
            of_rows = [_cut(tensor[:, :, rows], piece.parts) for tensor in (gradients[0], query, out, lse)]
            of_keys = [_keys(tensor[:, :, keys], piece) for tensor in (key, value)]
            options = {"attn_mask": _mask(piece, key.dtype), "scale": context.scale}
            found = _backward(*of_rows[:2], *of_keys, *of_rows[2:], 0.0, piece.causal, **options)
            _cut(sums[0][:, :, rows], piece.parts).add_(found[0])
            for total, part in zip(sums[1:], found[1:], strict=True):
                if piece.causal:
                    _cut(total[:, :, keys], piece.parts).add_(part)
                else:
                    total[:, :, keys].add_(part.sum(0, keepdim=True) if piece.parts > 1 else part)
        return (*sums, None, None)


def _parts(groups: int) -> int:
    """In how many parts queries must come for all threads to get equally many groups of heads."""
    threads = torch.get_num_threads()
    return threads // math.gcd(groups, threads)


def _cut(tensor: Tensor, parts: int) -> Tensor:
    """[1, H, parts * L, ...] -> [parts, H, L, ...], a view."""
    if parts == 1:  # most pieces: for short ones, views take as long as the kernel
        return tensor
    batch, heads, length, *rest = tensor.shape
    return tensor.view(batch * heads, parts, length // parts, *rest).transpose(0, 1)


def _keys(tensor: Tensor, piece: Piece) -> Tensor:
    return _cut(tensor, piece.parts) if piece.causal or piece.parts == 1 else tensor.expand(piece.parts, -1, -1, -1)


def _merged(
    query: Tensor, key: Tensor, value: Tensor, pieces: tuple[Piece, ...], scale: float
) -> tuple[Tensor, Tensor]:
    """The attention [1, H, S, D] and the log-sum-exp of each query's scores [1, H, S]."""
    batch, heads, length, size = query.shape
    # Tokens before heads in memory, as the layer's next matrix wants it: there it is a view.
    out = query.new_empty(batch, length, heads, size).transpose(1, 2)
    lse = query.new_empty(batch, heads, length)
    for piece in pieces:
        rows, keys = slice(piece.start, piece.end), slice(piece.first, piece.last)
        inputs, mask = (query[:, :, rows], key[:, :, keys], value[:, :, keys]), _mask(piece, key.dtype)
        part, part_lse = _forward(*inputs, 0.0, piece.causal, attn_mask=mask, scale=scale)
        whole, whole_lse = out[:, :, rows], lse[:, :, rows]
        if piece.fresh:
            whole.copy_(part), whole_lse.copy_(part_lse)
        else:
            both = torch.logaddexp(whole_lse, part_lse)
            whole.mul_((whole_lse - both).exp_().unsqueeze(-1)).add_(part.mul_((part_lse - both).exp_().unsqueeze(-1)))
            whole_lse.copy_(both)
    return out, lse


@dataclass(frozen=True)
class _Shape:
    """Queries `start` to `end` see keys `first` to `last`: all, or each those up to itself."""

    start: int
    end: int
    first: int
    last: int
    causal: bool

    @property
    def cells(self) -> int:
        """How many keys all queries see."""
        size = self.end - self.start
        return size * (size + 1) // 2 if self.causal else size * (self.last - self.first)


def _blocks(tree: Tree) -> Iterator[list[_Shape]]:
    """What the tokens of a tree see, in lists that are one piece each."""
    trunk = _Shape(tree.start, tree.start + tree.trunk, tree.start, tree.start + tree.trunk, True)
    branches = [shape for segment in tree.segments for shape in (_before(tree, [segment]), *_own(segment))]
    whole = [shape for shape in (trunk, *branches) if shape.cells]
    if _is_quicker(whole):
        yield whole
        return
    yield [trunk]
    for _, neighbours in groupby(tree.segments, key=lambda segment: segment.boundary):
        segments = list(neighbours)
        yield [_before(tree, segments)]
        for block in _joined(segments):
            yield from [block] if _is_quicker(block) else [[shape] for shape in block]


def _is_quicker(shapes: Sequence[_Shape]) -> bool:
    """Whether one block is quicker than a call for each shape."""
    if not shapes:
        return False
    start, end, first, last = _bounds(shapes)
    cells = (end - start) * (last - first)
    unseen = cells - sum(shape.cells for shape in shapes)
    return cells <= _LARGEST and unseen <= _CALL * (len(shapes) - 1)


def _joined(segments: Sequence[Segment]) -> Iterator[list[_Shape]]:
    """What branches see of themselves; neighbours are in one list if one block is quicker for them."""
    block: list[_Shape] = []
    tokens = 0
    for segment in segments:
        own = [shape for shape in _own(segment) if shape.cells]
        if block and 2 * tokens * segment.length > _CALL * len(own):
            yield block
            block, tokens = [], 0
        block, tokens = block + own, tokens + segment.length
    yield block


def _before(tree: Tree, segments: Sequence[Segment]) -> _Shape:
    """What branches on one boundary see of the trunk."""
    end = segments[-1].start + segments[-1].length
    return _Shape(segments[0].start, end, tree.start, tree.start + segments[0].boundary, False)


def _own(segment: Segment) -> Iterator[_Shape]:
    """What a branch sees of itself: the prompt and the first response are one sequence, the others fork off."""
    fork = segment.start + segment.prompt
    place = fork + sum(segment.responses[:1])
    yield _Shape(segment.start, place, segment.start, place, True)
    for length in segment.responses[1:]:
        yield _Shape(place, place + length, segment.start, fork, False)
        yield _Shape(place, place + length, place, place + length, True)
        place += length


def _bounds(shapes: Sequence[_Shape]) -> tuple[int, int, int, int]:
    """The first and the last of all queries, then of all keys."""
    starts, ends, firsts, lasts = zip(*((one.start, one.end, one.first, one.last) for one in shapes), strict=True)
    return min(starts), max(ends), min(firsts), max(lasts)


def _piece(shapes: Sequence[_Shape], covered: int) -> Piece:
    """One piece of all shapes; queries from `covered` on are in no earlier one."""
    start, end, first, last = _bounds(shapes)
    if len(shapes) == 1:
        return Piece(start, end, first, last, shapes[0].causal, start >= covered)
    mask = np.full((end - start, last - first), -np.inf, dtype=np.float32)
    for shape in shapes:
        size = shape.end - shape.start
        seen = mask[shape.start - start : shape.end - start, shape.first - first : shape.last - first]
        seen[:] = 0
        if shape.causal:
            seen += _triangle(1 << size.bit_length())[:size, :size]
    return Piece(start, end, first, last, False, start >= covered, mask=torch.from_numpy(mask))


@cache
def _triangle(size: int) -> NDArray[np.float32]:
    return np.triu(np.full((size, size), -np.inf, dtype=np.float32), 1)


def _mask(piece: Piece, dtype: torch.dtype) -> Tensor | None:
    return None if piece.mask is None else piece.mask.to(dtype)
