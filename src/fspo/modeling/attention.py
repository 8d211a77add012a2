"""Attention over a forest: every trunk causally, every branch over its part of the trunk and itself.

The function is registered with transformers as the attention implementation `fspo`, for every model that uses the
attention interface. Called without a plan it is transformers' own SDPA. With a `ForestPlan` it computes what a dense
tree mask would, without a mask of S x S except for small trees: in large pieces where that is exact (see
`rectangle_attention`), on CUDA by FlexAttention (see `flex`), else as one causal SDPA per trunk and one small one per
branch. With any other `AttentionPlan` (see `decoding`) the plan does the work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, causal_mask_function, sdpa_mask

from fspo.errors import ModelError
from fspo.modeling.flex import FlexForest, as_computed, attend_flexibly, flex_applies
from fspo.modeling.packing import Forest, Segment
from fspo.modeling.rectangle_attention import Piece, attend_in_pieces, forest_pieces, pieces_apply

__all__ = [
    "IMPLEMENTATION",
    "AttentionPlan",
    "ContinuingPlan",
    "ForestPlan",
    "RecordingPlan",
    "attend",
    "branch_visibility",
    "planned_attention",
    "probed_masks",
]

IMPLEMENTATION = "fspo"
_planned: ContextVar[bool] = ContextVar("fspo_attention_planned", default=False)
_probe: ContextVar[_MaskProbe | None] = ContextVar("fspo_attention_probe", default=None)


class AttentionPlan(Protocol):
    """What computes a layer's attention in the place of a mask."""

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None, dropout: float
    ) -> Tensor:
        """Attention of `query` [B, H, S, D] over `key` and `value` [B, G, S, D] (G divides H) -> [B, H, S, D]."""


class ForestPlan:
    """The attention pattern of one packed row, with its small masks made once and shared by all layers."""

    def __init__(self, forest: Forest) -> None:
        """No mask is made before the first layer asks."""
        self.forest = forest
        self._pieces: tuple[Piece, ...] = ()
        self._flex: FlexForest | None = None
        self._masks: dict[tuple[Any, ...], Tensor] = {}

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None, dropout: float
    ) -> Tensor:
        """Attention of the whole row [1, H, S, D]; the same pattern at every layer, but for its sliding window."""
        if window is None and dropout == 0.0 and pieces_apply(query, key, value):
            self._pieces = self._pieces or forest_pieces(self.forest)
            return attend_in_pieces(query, key, value, self._pieces, scale)
        query, key, value = as_computed(query, key, value)
        if dropout == 0.0 and flex_applies(query, key, value, window, _portable):
            self._flex = self._flex or FlexForest(self.forest, query.device)
            out = attend_flexibly(self._flex, query, key, value, scale, window)
            if out is not None:
                return out
        return self._tree_by_tree(query, key, value, scale, window, dropout)

    def _tree_by_tree(
        self, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None, dropout: float
    ) -> Tensor:
        sizes = [
            size for tree in self.forest.trees for size in (tree.trunk, *(segment.length for segment in tree.segments))
        ]
        queries, keys, values = (iter(torch.split(tensor, sizes, dim=2)) for tensor in (query, key, value))
        out: list[Tensor] = []
        for tree in self.forest.trees:
            trunk_key, trunk_value = next(keys), next(values)
            if tree.trunk:
                out.append(self._trunk(next(queries), trunk_key, trunk_value, scale, window, dropout))
            else:
                next(queries)
            for segment in tree.segments:
                first = _first_visible(segment, window)
                visible_key = torch.cat([trunk_key[:, :, first : segment.boundary], next(keys)], dim=2)
                visible_value = torch.cat([trunk_value[:, :, first : segment.boundary], next(values)], dim=2)
                mask = self._branch_mask(segment, first, window, query)
                out.append(_sdpa(next(queries), visible_key, visible_value, scale, dropout, mask))
        return torch.cat(out, dim=2)

    def _trunk(
        self, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None, dropout: float
    ) -> Tensor:
        length = query.shape[2]
        if window is None or length <= window:
            return _sdpa(query, key, value, scale, dropout)
        # A block of `window` queries sees at most 2 * window - 1 keys: the work stays linear in the trunk's length.
        out = []
        for start in range(0, length, window):
            end, first = min(start + window, length), max(0, start - window + 1)
            mask = self._band_mask(start - first, end - start, window, query)
            out.append(
                _sdpa(query[:, :, start:end], key[:, :, first:end], value[:, :, first:end], scale, dropout, mask)
            )
        return torch.cat(out, dim=2)

    def _band_mask(self, before: int, length: int, window: int, like: Tensor) -> Tensor:
        name = ("band", before, length, window, like.dtype)
        if name not in self._masks:
            keys = torch.arange(before + length, device=like.device)
            behind = keys[before:, None] - keys[None, :]
            self._masks[name] = _additive((behind >= 0) & (behind < window), like.dtype)
        return self._masks[name]

    def _branch_mask(self, segment: Segment, first: int, window: int | None, like: Tensor) -> Tensor:
        name = ("branch", segment.boundary, first, segment.prompt, segment.responses, window, like.dtype)
        if name not in self._masks:
            self._masks[name] = _additive(branch_visibility(segment, first, window, like.device), like.dtype)
        return self._masks[name]


class RecordingPlan(ForestPlan):
    """A forest's attention that also keeps the keys and values of every layer, as decoding goes on from them."""

    def __init__(self, forest: Forest) -> None:
        """Nothing is recorded yet."""
        super().__init__(forest)
        self.recorded: list[tuple[Tensor, Tensor]] = []

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, *settings: Any) -> Tensor:
        """As in any forest.

        Raises:
            ModelError: a layer is left out, or has run before.
        """
        _need_order(layer, self.recorded)
        self.recorded.append((key, value))
        return super().attend(layer, query, key, value, *settings)


class ContinuingPlan:
    """Pieces of text in one row; each continues earlier text, whose keys and values are kept."""

    def __init__(self, lengths: Sequence[int], before: Sequence[Sequence[tuple[Tensor, Tensor]]]) -> None:
        """Nothing is recorded yet.

        Args:
            lengths: tokens of each piece.
            before: per piece and layer the keys and values [G, P, D] that it continues; no layers: none.
        """
        boundaries = [layers[0][0].shape[1] if layers else 0 for layers in before]
        self._segments = [Segment(0, length, (), at) for length, at in zip(lengths, boundaries, strict=True)]
        self._before = before
        self._masks: dict[tuple[Any, ...], Tensor] = {}
        self.recorded: list[tuple[Tensor, Tensor]] = []

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None, dropout: float
    ) -> Tensor:
        """Attention of the whole row [1, H, S, D]; its keys and values are recorded.

        Raises:
            ModelError: a layer is left out, or has run before.
        """
        _need_order(layer, self.recorded)
        self.recorded.append((key, value))
        sizes = [segment.length for segment in self._segments]
        parts = zip(*(torch.split(tensor, sizes, dim=2) for tensor in (query, key, value)), strict=True)
        out = []
        for segment, before, (own_query, own_key, own_value) in zip(self._segments, self._before, parts, strict=True):
            first = _first_visible(segment, window)
            mask = None
            if before:
                keys, values = (tensor[None, :, first:] for tensor in before[layer])
                own_key, own_value = torch.cat([keys, own_key], dim=2), torch.cat([values, own_value], dim=2)
            if before or (window is not None and segment.length > window):
                mask = self._mask(segment, first, window, query)
            out.append(_sdpa(own_query, own_key, own_value, scale, dropout, mask))
        return torch.cat(out, dim=2)

    def _mask(self, segment: Segment, first: int, window: int | None, like: Tensor) -> Tensor:
        name = (segment, first, window)
        if name not in self._masks:
            self._masks[name] = _additive(branch_visibility(segment, first, window, like.device), like.dtype)
        return self._masks[name]


def _need_order(layer: int, recorded: Sequence[object]) -> None:
    if layer != len(recorded):
        raise ModelError(
            "The layers of this model don't run once each and in order, so nothing can be generated over shared "
            "trunks; use another model."
        )


def _portable(forest: Forest, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None) -> Tensor:
    return ForestPlan(forest)._tree_by_tree(query, key, value, scale, window, 0.0)


def branch_visibility(segment: Segment, first: int, window: int | None, device: torch.device | str = "cpu") -> Tensor:
    """[L, boundary - first + L]: which keys each token of a branch sees, trunk tokens from `first` on, then its own."""
    fork = segment.boundary + segment.prompt
    own = [torch.arange(segment.boundary, fork), *(torch.arange(fork, fork + length) for length in segment.responses)]
    positions = torch.cat(own).to(device)
    part = torch.repeat_interleave(torch.arange(len(own)), torch.tensor([len(piece) for piece in own])).to(device)
    row = torch.arange(len(positions), device=device)
    itself = (row[None, :] <= row[:, None]) & ((part[None, :] == 0) | (part[None, :] == part[:, None]))
    trunk = torch.arange(first, segment.boundary, device=device)
    visible = torch.cat([torch.ones(len(positions), len(trunk), dtype=torch.bool, device=device), itself], dim=1)
    if window is not None:
        visible &= positions[:, None] - torch.cat([trunk, positions])[None, :] < window
    return visible


def attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    fspo_plan: AttentionPlan | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """The registered attention function: transformers' SDPA, or what the plan says.

    Raises:
        ModelError: the layer does something that a plan can't do exactly, such as soft-capping or attention sinks.
    """
    probe = _probe.get()
    if probe is not None:
        probe.check(module, attention_mask, options)
    if fspo_plan is None:
        if _planned.get():
            why = "does not hand its keyword arguments to its attention, so trunk and branches can't run on it"
            raise _unfit(module, why)
        plain: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
        return plain
    _check_layer(module, options)
    if attention_mask is not None:
        raise _unfit(module, _OWN_MASK)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    out = fspo_plan.attend(
        getattr(module, "layer_idx", 0), query, key, value, scale, options.get("sliding_window"), dropout
    )
    return out.transpose(1, 2).contiguous(), None


@contextmanager
def planned_attention() -> Iterator[None]:
    """While active, models build no masks, since the plan stands in for them; a layer without a plan refuses to run."""
    token = _planned.set(True)
    try:
        yield
    finally:
        _planned.reset(token)


@contextmanager
def probed_masks(longest: int | None) -> Iterator[None]:
    """While active, plain passes refuse layers whose mask is more than causality within the window that they name.

    No sequence is longer than `longest` tokens, so windows of so many are none.

    Raises:
        ModelError: in the pass, by a layer that a plan would not stand in for.
    """
    token = _probe.set(_MaskProbe(longest))
    try:
        yield
    finally:
        _probe.reset(token)


class _MaskProbe:
    """Which masks a model made in a pass, each with its window."""

    def __init__(self, longest: int | None) -> None:
        self._longest = longest
        self._made: list[tuple[Tensor, int | None, bool]] = []

    def make(self, *args: Any, **options: Any) -> Tensor:
        """The mask itself, never left out, and remembered."""
        mask = sdpa_mask(*args, **{**options, "allow_is_causal_skip": False, "allow_is_bidirectional_skip": False})
        assert mask is not None
        window = options.get("local_size")
        function = options.get("mask_function", causal_mask_function)
        if options.get("use_vmap"):  # made of the model's own functions, which may know positions in the sequence only
            exact = torch.equal(mask[0, 0], torch.ones_like(mask[0, 0]).tril())
        else:
            exact = _is_causal_window(function, window, mask.device)
        self._made.append((mask, window, exact))
        return mask

    def check(self, module: torch.nn.Module, mask: Tensor | None, options: dict[str, Any]) -> None:
        """Refuse a layer that got anything but one of these masks, with the window that it names itself."""
        _check_layer(module, options)
        named = options.get("sliding_window")
        causal = options.get("is_causal")
        causal = getattr(module, "is_causal", True) if causal is None else causal
        if mask is None:
            window, exact = None, bool(causal)
        else:
            known = [one for one in self._made if one[0].data_ptr() == mask.data_ptr() and one[0].dtype == mask.dtype]
            if not known:
                raise _unfit(module, _OWN_MASK)
            _, window, exact = known[0]
        if not exact:
            raise ModelError(
                f"{type(module).__name__} attends by another pattern than to all tokens before, or to the last ones of "
                "them, as encoders do; use a causal language model."
            )
        if self._effective(window) != self._effective(named):
            raise _unfit(module, _UNTOLD_WINDOW)

    def _effective(self, window: int | None) -> int | None:
        wide = window is not None and self._longest is not None and window >= self._longest
        return None if wide else window


def _is_causal_window(function: Callable[..., Any], window: int | None, device: torch.device) -> bool:
    """Whether `function` shows each token exactly those before and itself, the last `window` of them, also far off."""
    near = {0, 1, 2, 3, 7, 100}
    size = window or 50
    places = sorted({place + shift for place in (0, size, 2 * size, 5 * size + 3) for shift in (-1, 0, 1)} | near)
    tokens = torch.tensor([place for place in places if place >= 0], device=device)
    query, key = tokens[None, None, :, None], tokens[None, None, None, :]
    zero = torch.zeros(1, 1, 1, 1, dtype=torch.long, device=device)
    seen = torch.as_tensor(function(zero, zero, query, key), device=device).expand(1, 1, len(tokens), len(tokens))
    expected = key <= query
    if window is not None:
        expected = expected & (query - key < window)
    return torch.equal(seen, expected)


def _unfit(module: torch.nn.Module, why: str) -> ModelError:
    return ModelError(f"{type(module).__name__} {why}; use another model.")


_OWN_MASK = "makes an attention mask of its own, which trunk and branches can't follow"
_UNTOLD_WINDOW = "does not tell its attention the sliding window, so trunk and branches can't run on it"


def _check_layer(module: torch.nn.Module, options: dict[str, Any]) -> None:
    for name in ("softcap", "s_aux", "position_bias"):
        if options.get(name) is not None:
            raise _unfit(module, f"uses {name} in its attention, which trunk and branches can't do exactly")
    types = getattr(getattr(module, "config", None), "layer_types", None)
    if (
        types
        and options.get("sliding_window") is None
        and types[getattr(module, "layer_idx", 0)] == "sliding_attention"
    ):
        raise _unfit(module, _UNTOLD_WINDOW)


def _first_visible(segment: Segment, window: int | None) -> int:
    return 0 if window is None else min(max(0, segment.boundary - window + 1), segment.boundary)


def _additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill_(~visible, float("-inf"))


def _sdpa(
    query: Tensor, key: Tensor, value: Tensor, scale: float, dropout: float, mask: Tensor | None = None
) -> Tensor:
    if mask is not None and query.device.type != "cpu":
        # Elsewhere the kernels that take a mask take no groups of heads, and what is left would keep all scores.
        key, value = (_for_each_head(tensor, query.shape[1]) for tensor in (key, value))
    return scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        dropout_p=dropout,
        is_causal=mask is None,
        scale=scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )


def _for_each_head(tensor: Tensor, heads: int) -> Tensor:
    """[B, G, S, D] -> [B, heads, S, D], each group's part once for every head of it."""
    return tensor.repeat_interleave(heads // tensor.shape[1], dim=1) if tensor.shape[1] != heads else tensor


def _masks(*args: Any, **options: Any) -> Tensor | None:
    probe = _probe.get()
    if probe is not None:
        return probe.make(*args, **options)
    return None if _planned.get() else sdpa_mask(*args, **options)


AttentionInterface.register(IMPLEMENTATION, attend)
AttentionMaskInterface.register(IMPLEMENTATION, _masks)
