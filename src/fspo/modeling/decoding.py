"""Many answers decoded side by side, over shared trunks that are read once and kept once.

A *stream* is one sequence being decoded. Streams with the same trunk share its keys and values: at every step their
queries meet the trunk in one matrix product. What is their own (prompt and answer so far) is kept per stream, aligned
on the right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby

import torch
from torch import Tensor
from torch.nn.functional import pad

from fspo.errors import ModelError
from fspo.modeling.attention import RecordingPlan, planned_attention
from fspo.modeling.lm_head import hidden_states, logits
from fspo.modeling.packing import Forest, Segment, Tree
from fspo.modeling.preparing import prepare_model

__all__ = ["Decoder", "Stream"]

_GROWTH = 64
"""Columns by which the streams' own cache grows."""
_PREFILL_TOKENS = 8192
"""Tokens of one prefill pass, unless a single tree is longer."""
_SHARED_TRUNK = 256
"""A trunk of a single stream is kept apart from this length on; a shorter one counts as the beginning of the prompt."""


@dataclass(frozen=True)
class Stream:
    """One sequence to be continued: a trunk, perhaps shared with other streams, and at least one token of its own."""

    trunk: tuple[int, ...]
    prompt: tuple[int, ...]


@dataclass
class _Layer:
    keys: Tensor
    """[B, G, C, D], filled up to the decoder's cursor"""
    values: Tensor
    trunks: list[tuple[Tensor, Tensor]]
    """per trunk: keys and values [G, P, D]"""


class Decoder:
    """The streams' state, and the attention plan of every decoding step."""

    def __init__(self, model: torch.nn.Module, streams: Sequence[Stream], max_new_tokens: int) -> None:
        """Read all trunks and prompts; `scores` then holds [B, V], the logits of every stream's next token.

        Raises:
            ModelError: the architecture can't do this exactly.
        """
        longest = max(len(stream.trunk) + len(stream.prompt) for stream in streams) + max_new_tokens
        self.base = prepare_model(model, longest)
        shared = _share(streams)
        self._trunk_ids = list(dict.fromkeys(stream.trunk for stream in shared))
        # Streams of one trunk lie side by side, so that their queries are one slice.
        trunk_index = {trunk: index for index, trunk in enumerate(self._trunk_ids)}
        self.order = sorted(range(len(shared)), key=lambda i: trunk_index[shared[i].trunk])
        """Which of the given streams each row is."""
        self._streams = [shared[i] for i in self.order]
        device = self.base.device
        self._trunk_of = torch.tensor([trunk_index[stream.trunk] for stream in self._streams], device=device)
        self._trunk_lengths = torch.tensor([len(stream.trunk) for stream in self._streams], device=device)
        lengths = torch.tensor([len(stream.prompt) for stream in self._streams], device=device)
        self._cursor = int(lengths.max())
        self._pads = self._cursor - lengths
        self._layers: list[_Layer] = []
        self._masks: dict[int | None, Tensor] = {}
        self._groups: list[tuple[int, int, int]] = []
        self._regroup()
        self.scores = self._prefill()

    def step(self, tokens: Tensor) -> None:
        """Append one token to every stream [B], and put the logits of the next ones into `scores`."""
        self._masks.clear()
        self._grow()
        positions = self._trunk_lengths + self._cursor - self._pads
        self._cursor += 1
        with planned_attention():
            hidden = hidden_states(
                self.base, input_ids=tokens[:, None], position_ids=positions[:, None], fspo_plan=self
            )
        self.scores = logits(self.base, hidden[:, 0])

    def keep(self, rows: Tensor) -> None:
        """Forget all streams but `rows` (ascending row numbers)."""
        for layer in self._layers:
            layer.keys, layer.values = layer.keys[rows], layer.values[rows]
        self.order = [self.order[i] for i in rows.tolist()]
        self._trunk_of, self._trunk_lengths = self._trunk_of[rows], self._trunk_lengths[rows]
        self._pads, self.scores = self._pads[rows], self.scores[rows]
        self._regroup()

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None, dropout: float
    ) -> Tensor:
        """One decoding step's attention: `query` [B, H, 1, D], `key` and `value` [B, G, 1, D] -> [B, H, 1, D]."""
        cache, cursor = self._layers[layer], self._cursor
        cache.keys[:, :, cursor - 1 : cursor] = key
        cache.values[:, :, cursor - 1 : cursor] = value
        batch, heads, _, size = query.shape
        packed = query.reshape(batch, key.shape[1], heads // key.shape[1], size) * scale
        scores = packed @ cache.keys[:, :, :cursor].transpose(2, 3)
        widest = max(length for _, _, length in self._groups)
        if widest:
            over_trunks = scores.new_zeros(*scores.shape[:3], widest)
            for start, end, length in self._groups:
                keys, _ = cache.trunks[int(self._trunk_of[start])]
                over_trunks[start:end, :, :, :length] = _over_trunk(packed[start:end], keys.transpose(1, 2))
            scores = torch.cat([over_trunks, scores], dim=-1)
        weights = torch.softmax(scores + self._mask(window, widest, scores), dim=-1)
        out = weights[..., widest:] @ cache.values[:, :, :cursor]
        if widest:
            for start, end, length in self._groups:
                _, values = cache.trunks[int(self._trunk_of[start])]
                out[start:end] += _over_trunk(weights[start:end, :, :, :length], values)
        return out.reshape(batch, heads, 1, value.shape[-1])

    def _mask(self, window: int | None, widest: int, like: Tensor) -> Tensor:
        # [B, 1, 1, widest + cursor]: made once a step for every kind of layer.
        if window not in self._masks:
            trunk = torch.arange(widest, device=like.device).expand(len(self._pads), -1)
            column = torch.arange(self._cursor, device=like.device) - self._pads[:, None]
            positions = torch.cat([trunk, self._trunk_lengths[:, None] + column], dim=1)
            visible = torch.cat([trunk < self._trunk_lengths[:, None], column >= 0], dim=1)
            if window is not None:
                visible &= positions[:, -1:] - positions < window
            mask = torch.zeros(visible.shape, dtype=like.dtype, device=like.device)
            self._masks[window] = mask.masked_fill_(~visible, float("-inf"))[:, None, None]
        return self._masks[window]

    def _regroup(self) -> None:
        self._masks.clear()
        runs = [(trunk, len(list(rows))) for trunk, rows in groupby(self._trunk_of.tolist())]
        ends = list(accumulate(count for _, count in runs))
        self._groups = [
            (end - count, end, len(self._trunk_ids[trunk])) for (trunk, count), end in zip(runs, ends, strict=True)
        ]

    def _grow(self) -> None:
        for layer in self._layers:
            if self._cursor == layer.keys.shape[2]:
                layer.keys, layer.values = (pad(t, (0, 0, 0, _GROWTH)) for t in (layer.keys, layer.values))

    def _prefill(self) -> Tensor:
        scores: list[Tensor] = []
        chunk: list[list[Stream]] = []
        for _, streams in groupby(self._streams, key=_tree_of):
            tree = list(streams)
            if chunk and sum(map(_tokens, [*chunk, tree])) > _PREFILL_TOKENS:
                scores.append(self._read(chunk, sum(map(len, scores))))
                chunk = []
            chunk.append(tree)
        scores.append(self._read(chunk, sum(map(len, scores))))
        return torch.cat(scores)

    def _read(self, trees: Sequence[Sequence[Stream]], first_row: int) -> Tensor:
        """Run some trees through the model, keep their keys and values, and return their streams' logits."""
        forest, ids, positions = _lay_out(trees)
        plan = RecordingPlan(forest)
        device = self.base.device
        with planned_attention():
            hidden = hidden_states(
                self.base,
                input_ids=torch.tensor([ids], device=device),
                position_ids=torch.tensor([positions], device=device),
                fspo_plan=plan,
            )
        segments = [segment for tree in forest.trees for segment in tree.segments]
        for layer, (keys, values) in enumerate(plan.recorded):
            self._keep_layer(layer, forest, segments, keys[0], values[0], first_row)
        last = torch.tensor([segment.start + segment.prompt - 1 for segment in segments], device=device)
        return logits(self.base, hidden[0, last])

    def _keep_layer(
        self, index: int, forest: Forest, segments: Sequence[Segment], keys: Tensor, values: Tensor, first_row: int
    ) -> None:
        if index == len(self._layers):
            shape = (len(self._streams), keys.shape[0], self._cursor + _GROWTH, keys.shape[2])
            self._layers.append(_Layer(keys.new_zeros(shape), values.new_zeros(*shape[:3], values.shape[2]), []))
        layer = self._layers[index]
        for row, segment in enumerate(segments, start=first_row):
            end = segment.start + segment.prompt
            layer.keys[row, :, self._cursor - segment.prompt : self._cursor] = keys[:, segment.start : end]
            layer.values[row, :, self._cursor - segment.prompt : self._cursor] = values[:, segment.start : end]
        for tree in forest.trees:
            if tree.trunk or not layer.trunks or layer.trunks[-1][0].shape[1]:
                part = slice(tree.start, tree.start + tree.trunk)
                layer.trunks.append((keys[:, part].clone(), values[:, part].clone()))


def _share(streams: Sequence[Stream]) -> list[Stream]:
    """The same streams, with short trunks of a single stream moved into its prompt."""
    uses = Counter(stream.trunk for stream in streams)
    return [
        stream
        if stream.prompt and (uses[stream.trunk] > 1 or len(stream.trunk) >= _SHARED_TRUNK)
        else _without_trunk(stream)
        for stream in streams
    ]


def _without_trunk(stream: Stream) -> Stream:
    ids = (*stream.trunk, *stream.prompt)
    if not ids:
        raise ModelError("An answer needs at least one token before it.")
    return Stream((), ids)


def _tree_of(stream: Stream) -> tuple[int, ...] | int:
    # Streams without a trunk share nothing: each is a tree of its own, so that no prefill pass grows without bound.
    return stream.trunk or id(stream)


def _tokens(tree: Sequence[Stream]) -> int:
    return len(tree[0].trunk) + sum(len(stream.prompt) for stream in tree)


def _lay_out(trees: Sequence[Sequence[Stream]]) -> tuple[Forest, list[int], list[int]]:
    ids: list[int] = []
    positions: list[int] = []
    laid: list[Tree] = []
    for streams in trees:
        start, trunk = len(ids), streams[0].trunk
        ids.extend(trunk)
        positions.extend(range(len(trunk)))
        segments = []
        for stream in streams:
            segments.append(Segment(len(ids), len(stream.prompt), (), len(trunk)))
            ids.extend(stream.prompt)
            positions.extend(range(len(trunk), len(trunk) + len(stream.prompt)))
        laid.append(Tree(start, len(trunk), tuple(segments)))
    return Forest(tuple(laid)), ids, positions


def _over_trunk(rows: Tensor, matrix: Tensor) -> Tensor:
    """[n, G, R, X] times [G, X, Y] -> [n, G, R, Y], as one product per key-value head."""
    count, groups, repeats, _ = rows.shape
    flat = rows.transpose(0, 1).reshape(groups, count * repeats, -1) @ matrix
    return flat.view(groups, count, repeats, -1).transpose(0, 1)
