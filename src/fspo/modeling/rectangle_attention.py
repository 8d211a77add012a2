"""Attention over a forest in mask-free pieces, on processors: each piece is a rectangle or a triangle of the tree mask.

A token's attention over several sets of keys is a mean of its attentions over each, weighted by the exponentials of
their log-sum-exps (as in flash attention, arXiv 2205.14135). So all branches attend to what they share of the trunk in
one large rectangle, and to themselves in small ones: no mask exists, no key of the trunk is copied for a branch, and
nothing is computed that is thrown away. On the way back, each piece needs only the merged output and log-sum-exp, and
is cut so that all threads have equally much to do: the kernel gives each thread whole groups of heads of a sequence.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from fspo.modeling.packing import Forest, Segment, Tree

__all__ = ["Piece", "attend_in_pieces", "forest_pieces", "pieces_apply", "shared_out"]

_WORTH_CUTTING = 64
"""Queries that a part has at least."""

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


def forest_pieces(forest: Forest) -> tuple[Piece, ...]:
    """Pieces that cover, for every token of the row, each token that it sees exactly once."""
    pieces: list[Piece] = []
    covered = 0
    for tree in forest.trees:
        for start, end, first, last, causal in _rectangles(tree):
            if start < end and first < last:
                pieces.append(Piece(start, end, first, last, causal, start >= covered))
                covered = max(covered, end)
    return tuple(pieces)


def shared_out(pieces: Sequence[Piece], parts: int) -> Iterator[Piece]:
    """The same cells, in pieces whose queries are in `parts` equal parts wherever they are many enough."""
    for piece in pieces:
        length = (piece.end - piece.start) // parts
        if parts == 1 or length < _WORTH_CUTTING:
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
            found = _backward(*of_rows[:2], *of_keys, *of_rows[2:], 0.0, piece.causal, scale=context.scale)
            _cut(sums[0][:, :, rows], piece.parts).add_(found[0])
            for total, part in zip(sums[1:], found[1:], strict=True):
                if piece.causal:
                    _cut(total[:, :, keys], piece.parts).add_(part)
                else:
                    total[:, :, keys] += part.sum(0, keepdim=True)
        return (*sums, None, None)


def _parts(groups: int) -> int:
    """In how many parts queries must come for all threads to get equally many groups of heads."""
    threads = torch.get_num_threads()
    return threads // math.gcd(groups, threads)


def _cut(tensor: Tensor, parts: int) -> Tensor:
    """[1, H, parts * L, ...] -> [parts, H, L, ...], a view."""
    batch, heads, length, *rest = tensor.shape
    return tensor.view(batch * heads, parts, length // parts, *rest).transpose(0, 1)


def _keys(tensor: Tensor, piece: Piece) -> Tensor:
    return _cut(tensor, piece.parts) if piece.causal else tensor.expand(piece.parts, -1, -1, -1)


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
        part, part_lse = _forward(query[:, :, rows], key[:, :, keys], value[:, :, keys], 0.0, piece.causal, scale=scale)
        if piece.fresh:
            out[:, :, rows], lse[:, :, rows] = part, part_lse
        else:
            both = torch.logaddexp(lse[:, :, rows], part_lse)
            out[:, :, rows] *= (lse[:, :, rows] - both).exp_().unsqueeze(-1)
            out[:, :, rows] += part.mul_((part_lse - both).exp_().unsqueeze(-1))
            lse[:, :, rows] = both
    return out, lse


def _rectangles(tree: Tree) -> Iterator[tuple[int, int, int, int, bool]]:
    yield tree.start, tree.start + tree.trunk, tree.start, tree.start + tree.trunk, True
    for boundary, neighbours in groupby(tree.segments, key=lambda segment: segment.boundary):
        segments = list(neighbours)
        end = segments[-1].start + segments[-1].length
        yield segments[0].start, end, tree.start, tree.start + boundary, False
        for segment in segments:
            yield from _own(segment)


def _own(segment: Segment) -> Iterator[tuple[int, int, int, int, bool]]:
    """What a branch sees of itself: the prompt and the first response are one sequence, the others fork off."""
    fork = segment.start + segment.prompt
    place = fork + sum(segment.responses[:1])
    yield segment.start, place, segment.start, place, True
    for length in segment.responses[1:]:
        yield place, place + length, segment.start, fork, False
        yield place, place + length, place, place + length, True
        place += length
