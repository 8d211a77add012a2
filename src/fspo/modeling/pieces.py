"""Attention over a forest in mask-free pieces, on processors: each piece is a rectangle or a triangle of the tree mask.

A token's attention over several sets of keys is a mean of its attentions over each, weighted by the exponentials of
their log-sum-exps (as in flash attention, arXiv 2205.14135). So all branches attend to what they share of the trunk in
one large rectangle, and to themselves in small ones: no mask exists, no key of the trunk is copied for a branch, and
nothing is computed that is thrown away. On the way back, each piece needs only the merged output and log-sum-exp.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch

from fspo.modeling.packing import Forest, Segment, Tree

__all__ = ["Piece", "attend_in_pieces", "forest_pieces", "pieces_apply"]

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


def pieces_apply(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> bool:
    """Whether these tensors can be attended over in pieces: full precision, on a processor, all of one kind."""
    kinds = {(tensor.device.type, tensor.dtype, tensor.shape[-1]) for tensor in (query, key, value)}
    return len(kinds) == 1 and query.device.type == "cpu" and query.dtype in (torch.float32, torch.float64)


def attend_in_pieces(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, pieces: tuple[Piece, ...], scale: float
) -> torch.Tensor:
    """Attention of the whole row: [1, H, S, D] over [1, G, S, D] (G divides H) -> [1, H, S, D], differentiable."""
    out: torch.Tensor = _PiecewiseAttention.apply(query, key, value, pieces, scale)  # type: ignore[no-untyped-call]
    return out


class _PiecewiseAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        pieces: tuple[Piece, ...],
        scale: float,
    ) -> torch.Tensor:
        out, lse = _merged(query, key, value, pieces, scale)
        context.save_for_backward(query, key, value, out, lse)
        context.pieces, context.scale = pieces, scale
        return out

    @staticmethod
    def backward(context: Any, *gradients: Any) -> tuple[torch.Tensor | None, ...]:
        query, key, value, out, lse = context.saved_tensors
        sums = [torch.zeros_like(tensor) for tensor in (query, key, value)]
        for piece in context.pieces:
            rows, keys = slice(piece.start, piece.end), slice(piece.first, piece.last)
            parts = _backward(
                gradients[0][:, :, rows],
                query[:, :, rows],
                key[:, :, keys],
                value[:, :, keys],
                out[:, :, rows],
                lse[:, :, rows],
                0.0,
                piece.causal,
                scale=context.scale,
            )
            for total, part, place in zip(sums, parts, (rows, keys, keys), strict=True):
                total[:, :, place] += part
        return (*sums, None, None)


def _merged(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, pieces: tuple[Piece, ...], scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
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
