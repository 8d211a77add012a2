"""Answers decoded side by side that come and go: each is read by itself, and joins the others when it is ready.

What was read of a text can be continued later, so a trunk is read once and kept for as long as its user comes back.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import PreTrainedModel

from fspo.modeling.attention import ContinuingPlan, planned_attention
from fspo.modeling.decoding import NOTHING, Columns, DecodingRows, KeyValues
from fspo.modeling.lm_head import hidden_states, logits

__all__ = ["ContinuousDecoder", "read_on"]

_ROWS, _COLUMNS = 4, 64
"""By how many rows and columns the streams' own cache grows."""
_PADDED = 256
"""Own tokens of one stream from which on they are kept apart, so that the others need no padding of this length."""


def read_on(base: PreTrainedModel, pieces: Sequence[tuple[Sequence[int], KeyValues]]) -> tuple[list[KeyValues], Tensor]:
    """Read several pieces of text in one pass, each after what was read before it.

    Args:
        base: a model from `prepare_model`.
        pieces: the token ids of each piece, at least one, and the keys and values of all tokens before it.

    Returns:
        The keys and values of each piece alone, and the logits [N, V] of the token after each.

    Raises:
        ModelError: the architecture can't do this exactly.
    """
    lengths = [len(ids) for ids, _ in pieces]
    plan = ContinuingPlan(lengths, [before.layers for _, before in pieces])
    positions = [place for ids, before in pieces for place in range(before.length, before.length + len(ids))]
    with planned_attention():
        hidden = hidden_states(
            base,
            input_ids=torch.tensor([[index for ids, _ in pieces for index in ids]], device=base.device),
            position_ids=torch.tensor([positions], device=base.device),
            fspo_plan=plan,
        )
    ends = torch.tensor(lengths, device=base.device).cumsum(0)
    scores = logits(base, hidden[0, ends - 1])
    row = KeyValues(tuple((keys[0], values[0]) for keys, values in plan.recorded))
    return [row.part(end - length, end) for end, length in zip(ends.tolist(), lengths, strict=True)], scores


class ContinuousDecoder(DecodingRows):
    """Streams that come and go. `rows` of them are there."""

    @property
    def rows(self) -> int:
        """How many streams are decoded."""
        return len(self._trunks)

    def add(self, own: KeyValues, trunk: KeyValues = NOTHING) -> None:
        """Append a stream. It has read the tokens of `trunk` and then those of `own`, at least one.

        Streams side by side with the same `trunk` share it.
        """
        if own.length > _PADDED:
            last = own.length - 1
            own, trunk = own.part(last, last + 1), trunk.followed_by(own.part(0, last))
        row = self.rows
        self._fit(row + 1, own)
        start = self._cursor - own.length
        for layer, (keys, values) in zip(self._layers, own.layers, strict=True):
            for columns, tensor in ((layer.keys, keys), (layer.values, values)):
                columns[row].zero_()  # what an earlier stream left there may not even be numbers
                columns[row, :, start : self._cursor] = tensor
        self._trunks.append(trunk)
        self._pads = torch.cat([self._pads, self._pads.new_tensor([start])])
        self._first = int(self._pads.min())
        self._regroup()

    def remove(self, row: int) -> None:
        """Forget a stream; the last one takes its row."""
        last = self.rows - 1
        if row < last:
            for layer in self._layers:
                layer.keys[row], layer.values[row] = layer.keys[last], layer.values[last]
            self._trunks[row], self._pads[row] = self._trunks[last], self._pads[last]
        self._trunks.pop()
        self._pads = self._pads[:last]
        self._first = int(self._pads.min()) if last else self._cursor
        if not last:
            self._layers, self._first, self._cursor = [], 0, 0
        elif self._first >= _COLUMNS:
            self._shift(-self._first)
        self._regroup()

    def _fit(self, rows: int, own: KeyValues) -> None:
        """Make room for `own` in the last of so many rows."""
        if not self._layers:
            self._first = self._cursor = own.length
            for keys, values in own.layers:
                shapes = [(_ROWS, tensor.shape[0], own.length + _COLUMNS, tensor.shape[2]) for tensor in (keys, values)]
                self._layers.append(Columns(keys.new_zeros(shapes[0]), values.new_zeros(shapes[1])))
        shift = max(0, own.length - self._cursor)
        more_rows = _ROWS if rows > self._layers[0].keys.shape[0] else 0
        more_columns = max(0, self._cursor + shift - self._layers[0].keys.shape[2])
        more_columns += _COLUMNS if more_columns else 0
        if more_rows or more_columns:
            for layer in self._layers:
                layer.keys, layer.values = (
                    pad(tensor, (0, 0, 0, more_columns, 0, 0, 0, more_rows)) for tensor in (layer.keys, layer.values)
                )
        if shift:
            self._shift(shift)

    def _shift(self, columns: int) -> None:
        """Move all own tokens to the right, or to the left where `columns` is negative."""
        for layer in self._layers:
            for tensor in (layer.keys, layer.values):
                tensor[:, :, self._first + columns : self._cursor + columns] = tensor[
                    :, :, self._first : self._cursor
                ].clone()
        self._pads = self._pads + columns
        self._first, self._cursor = self._first + columns, self._cursor + columns
