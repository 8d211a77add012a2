"""Many answers decoded side by side, over shared trunks that are read once and kept once.

A *stream* is one sequence being decoded. Streams with the same trunk share its keys and values: at every step their
queries meet the trunk in one matrix product. What is their own (prompt and answer so far) is kept per stream, aligned
on the right. `Decoder` knows all streams from the beginning; in `continuous` they come and go.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import PreTrainedModel

from fspo.errors import ModelError
from fspo.modeling.attention import RecordingPlan, planned_attention
from fspo.modeling.lm_head import hidden_states, logits
from fspo.modeling.packing import Segment, pack
from fspo.modeling.preparing import prepare_model
from fspo.modeling.rendering import Branch, TokenizedEpisode

__all__ = ["NOTHING", "Columns", "Decoder", "DecodingRows", "KeyValues", "Stream"]

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


@dataclass(frozen=True, eq=False)
class KeyValues:
    """What every layer keeps of a sequence of tokens: their keys and values, [G, P, D] each."""

    layers: tuple[tuple[Tensor, Tensor], ...] = ()

    @property
    def length(self) -> int:
        """Tokens."""
        return self.layers[0][0].shape[1] if self.layers else 0

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return sum(keys.nbytes + values.nbytes for keys, values in self.layers)

    def part(self, start: int, end: int) -> KeyValues:
        """A copy of some tokens, which does not hold on to the others."""
        if start >= end:
            return NOTHING
        return KeyValues(
            tuple((keys[:, start:end].clone(), values[:, start:end].clone()) for keys, values in self.layers)
        )

    def followed_by(self, other: KeyValues) -> KeyValues:
        """Both, one after the other."""
        if not self.layers or not other.layers:
            return self if self.layers else other
        return KeyValues(
            tuple(
                (torch.cat([keys, more_keys], dim=1), torch.cat([values, more_values], dim=1))
                for (keys, values), (more_keys, more_values) in zip(self.layers, other.layers, strict=True)
            )
        )


NOTHING = KeyValues()
"""The keys and values of no tokens."""


@dataclass
class Columns:
    """One layer's keys and values of what is each stream's own."""

    keys: Tensor
    """[rows, G, columns, D]; rows and columns that are not in use may follow"""
    values: Tensor


class DecodingRows:
    """The streams' state, one in each row, and the attention plan of each decoding step; `scores` [B, V] are logits."""

    def __init__(self, base: PreTrainedModel) -> None:
        """There are no rows yet."""
        self.base = base
        self.scores = torch.empty(0)
        self._layers: list[Columns] = []
        self._trunks: list[KeyValues] = []
        self._pads = torch.empty(0, dtype=torch.long, device=base.device)
        """[B]: the column of each row's first own token"""
        self._trunk_lengths = self._pads
        self._first, self._cursor = 0, 0
        """The columns in use; the own tokens of every row end at the cursor."""
        self._masks: dict[int | None, Tensor] = {}
        self._groups: list[tuple[int, int, KeyValues]] = []
        self._widest = 0

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

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None, dropout: float
    ) -> Tensor:
        """One decoding step's attention: `query` [B, H, 1, D], `key` and `value` [B, G, 1, D] -> [B, H, 1, D]."""
        cache, cursor = self._layers[layer], self._cursor
        batch, heads, _, size = query.shape
        cache.keys[:batch, :, cursor - 1 : cursor] = key
        cache.values[:batch, :, cursor - 1 : cursor] = value
        own_keys, own_values = (tensor[:batch, :, self._first : cursor] for tensor in (cache.keys, cache.values))
        packed = query.reshape(batch, key.shape[1], heads // key.shape[1], size) * scale
        scores = packed @ own_keys.transpose(2, 3)
        widest = self._widest
        if widest:
            over_trunks = scores.new_zeros(*scores.shape[:3], widest)
            for start, end, trunk in self._groups:
                keys, _ = trunk.layers[layer]
                over_trunks[start:end, :, :, : trunk.length] = _over_trunk(packed[start:end], keys.transpose(1, 2))
            scores = torch.cat([over_trunks, scores], dim=-1)
        weights = torch.softmax(scores + self._mask(window, scores), dim=-1)
        out = weights[..., widest:] @ own_values
        if widest:
            for start, end, trunk in self._groups:
                _, values = trunk.layers[layer]
                out[start:end] += _over_trunk(weights[start:end, :, :, : trunk.length], values)
        return out.reshape(batch, heads, 1, value.shape[-1])

    def _mask(self, window: int | None, like: Tensor) -> Tensor:
        # [B, 1, 1, widest + own columns]: made once a step for every kind of layer.
        if window not in self._masks:
            trunk = torch.arange(self._widest, device=like.device).expand(len(self._pads), -1)
            column = torch.arange(self._first, self._cursor, device=like.device) - self._pads[:, None]
            positions = torch.cat([trunk, self._trunk_lengths[:, None] + column], dim=1)
            visible = torch.cat([trunk < self._trunk_lengths[:, None], column >= 0], dim=1)
            if window is not None:
                visible &= positions[:, -1:] - positions < window
            mask = torch.zeros(visible.shape, dtype=like.dtype, device=like.device)
            self._masks[window] = mask.masked_fill_(~visible, float("-inf"))[:, None, None]
        return self._masks[window]

    def _regroup(self) -> None:
        """Find the rows side by side that share a trunk, after rows came or went."""
        self._masks.clear()
        self._trunk_lengths = self._pads.new_tensor([trunk.length for trunk in self._trunks])
        self._widest = max((trunk.length for trunk in self._trunks), default=0)
        runs = [(trunk, len(list(rows))) for trunk, rows in groupby(self._trunks)]
        ends = accumulate(count for _, count in runs)
        groups = [(end - count, end, trunk) for (trunk, count), end in zip(runs, ends, strict=True)]
        self._groups = [group for group in groups if group[2].layers]

    def _grow(self) -> None:
        """Make room for one more column."""
        for layer in self._layers:
            if self._cursor == layer.keys.shape[2]:
                layer.keys, layer.values = (pad(t, (0, 0, 0, _GROWTH)) for t in (layer.keys, layer.values))


class Decoder(DecodingRows):
    """Streams that are all known from the beginning."""

    def __init__(self, model: torch.nn.Module, streams: Sequence[Stream], max_new_tokens: int) -> None:
        """Read all trunks and prompts; `scores` then holds [B, V], the logits of every stream's next token.

        Raises:
            ModelError: the architecture can't do this exactly.
        """
        longest = max(len(stream.trunk) + len(stream.prompt) for stream in streams) + max_new_tokens
        super().__init__(prepare_model(model, longest))
        shared = _share(streams)
        # Streams of one trunk lie side by side, so that their queries are one slice.
        place = {trunk: index for index, trunk in enumerate(dict.fromkeys(stream.trunk for stream in shared))}
        self.order = sorted(range(len(shared)), key=lambda i: place[shared[i].trunk])
        """Which of the given streams each row is."""
        self._streams = [shared[i] for i in self.order]
        lengths = torch.tensor([len(stream.prompt) for stream in self._streams], device=self.base.device)
        self._cursor = int(lengths.max())
        self._pads = self._cursor - lengths
        self.scores = self._prefill()
        self._regroup()

    def keep(self, rows: Tensor) -> None:
        """Forget all streams but `rows` (ascending row numbers)."""
        for layer in self._layers:
            layer.keys, layer.values = layer.keys[rows], layer.values[rows]
        kept = rows.tolist()
        self.order, self._trunks = [self.order[i] for i in kept], [self._trunks[i] for i in kept]
        self._pads, self.scores = self._pads[rows], self.scores[rows]
        self._regroup()

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
        device = self.base.device
        row = pack([_episode(streams) for streams in trees], device)
        forest, plan = row.forest, RecordingPlan(row.forest)
        with planned_attention():
            hidden = hidden_states(self.base, input_ids=row.input_ids, position_ids=row.position_ids, fspo_plan=plan)
        segments = [segment for tree in forest.trees for segment in tree.segments]
        for layer, (keys, values) in enumerate(plan.recorded):
            self._keep_layer(layer, segments, keys[0], values[0], first_row)
        for tree in forest.trees:
            part = slice(tree.start, tree.start + tree.trunk)
            layers = tuple((keys[0, :, part].clone(), values[0, :, part].clone()) for keys, values in plan.recorded)
            self._trunks += [KeyValues(layers) if tree.trunk else NOTHING] * len(tree.segments)
        last = torch.tensor([segment.start + segment.prompt - 1 for segment in segments], device=device)
        return logits(self.base, hidden[0, last])

    def _keep_layer(
        self, index: int, segments: Sequence[Segment], keys: Tensor, values: Tensor, first_row: int
    ) -> None:
        if index == len(self._layers):
            shape = (len(self._streams), keys.shape[0], self._cursor + _GROWTH, keys.shape[2])
            self._layers.append(Columns(keys.new_zeros(shape), values.new_zeros(*shape[:3], values.shape[2])))
        layer = self._layers[index]
        for row, segment in enumerate(segments, start=first_row):
            end = segment.start + segment.prompt
            layer.keys[row, :, self._cursor - segment.prompt : self._cursor] = keys[:, segment.start : end]
            layer.values[row, :, self._cursor - segment.prompt : self._cursor] = values[:, segment.start : end]


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


def _episode(streams: Sequence[Stream]) -> TokenizedEpisode:
    trunk = streams[0].trunk
    branches = tuple(Branch(stream.prompt, (), len(trunk), 0, query) for query, stream in enumerate(streams))
    return TokenizedEpisode(trunk, (), branches)


def _over_trunk(rows: Tensor, matrix: Tensor) -> Tensor:
    """[n, G, R, X] times [G, X, Y] -> [n, G, R, Y], as one product per key-value head."""
    count, groups, repeats, _ = rows.shape
    flat = rows.transpose(0, 1).reshape(groups, count * repeats, -1) @ matrix
    return flat.view(groups, count, repeats, -1).transpose(0, 1)
