"""Attention over a forest: every trunk causally, every branch over its part of the trunk and itself.

The function is registered with transformers as the attention implementation `fspo`, for every model that uses the
attention interface. Called without a plan it is transformers' own SDPA. With a `ForestPlan` it computes what a dense
tree mask would, so that nothing of the size S x S exists: without masks in large pieces where that is exact (see
`pieces`), on CUDA by FlexAttention (see `flex`), else as one causal SDPA per trunk and one small one per branch. With
any other `AttentionPlan` (see `decoding`) the plan does the work.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from fspo.errors import ModelError
from fspo.modeling.flex import FlexForest, as_computed, attend_flexibly, flex_applies
from fspo.modeling.packing import Forest, Segment
from fspo.modeling.pieces import attend_in_pieces, forest_pieces, pieces_apply

__all__ = [
    "IMPLEMENTATION",
    "AttentionPlan",
    "ForestPlan",
    "attend",
    "branch_visibility",
    "planned_attention",
    "prepare_model",
]

IMPLEMENTATION = "fspo"
_SUPPORTED_LAYERS = frozenset({"full_attention", "sliding_attention"})
_LENGTH_DEPENDENT_ROPES = frozenset({"dynamic", "longrope"})
_planned: ContextVar[bool] = ContextVar("fspo_attention_planned", default=False)


class AttentionPlan(Protocol):
    """Whoever computes a layer's attention in the place of a mask."""

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scale: float,
        window: int | None,
        dropout: float,
    ) -> torch.Tensor:
        """Attention of `query` [B, H, S, D] over `key` and `value` [B, G, S, D] (G divides H) -> [B, H, S, D]."""


class ForestPlan:
    """The attention pattern of one packed row, with its small masks made once and shared by all layers."""

    def __init__(self, forest: Forest) -> None:
        """No mask is made before the first layer asks."""
        self.forest = forest
        self._pieces = forest_pieces(forest)
        self._flex: FlexForest | None = None
        self._masks: dict[tuple[Any, ...], torch.Tensor] = {}

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scale: float,
        window: int | None,
        dropout: float,
    ) -> torch.Tensor:
        """Attention of the whole row [1, H, S, D]; the same pattern at every layer, but for its sliding window."""
        if window is None and dropout == 0.0 and pieces_apply(query, key, value):
            return attend_in_pieces(query, key, value, self._pieces, scale)
        query, key, value = as_computed(query, key, value)
        if dropout == 0.0 and flex_applies(query, key, value, window, _portable):
            self._flex = self._flex or FlexForest(self.forest, query.device)
            out = attend_flexibly(self._flex, query, key, value, scale, window)
            if out is not None:
                return out
        return self._tree_by_tree(query, key, value, scale, window, dropout)

    def _tree_by_tree(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scale: float,
        window: int | None,
        dropout: float,
    ) -> torch.Tensor:
        sizes = [
            size for tree in self.forest.trees for size in (tree.trunk, *(segment.length for segment in tree.segments))
        ]
        queries, keys, values = (iter(torch.split(tensor, sizes, dim=2)) for tensor in (query, key, value))
        out: list[torch.Tensor] = []
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
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scale: float,
        window: int | None,
        dropout: float,
    ) -> torch.Tensor:
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

    def _band_mask(self, before: int, length: int, window: int, like: torch.Tensor) -> torch.Tensor:
        name = ("band", before, length, window, like.dtype)
        if name not in self._masks:
            keys = torch.arange(before + length, device=like.device)
            behind = keys[before:, None] - keys[None, :]
            self._masks[name] = _additive((behind >= 0) & (behind < window), like.dtype)
        return self._masks[name]

    def _branch_mask(self, segment: Segment, first: int, window: int | None, like: torch.Tensor) -> torch.Tensor:
        name = ("branch", segment.boundary, first, segment.prompt, segment.responses, window, like.dtype)
        if name not in self._masks:
            self._masks[name] = _additive(branch_visibility(segment, first, window, like.device), like.dtype)
        return self._masks[name]


def _portable(
    forest: Forest, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, window: int | None
) -> torch.Tensor:
    return ForestPlan(forest)._tree_by_tree(query, key, value, scale, window, 0.0)


def branch_visibility(
    segment: Segment, first: int, window: int | None, device: torch.device | str = "cpu"
) -> torch.Tensor:
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
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    fspo_plan: AttentionPlan | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """The registered attention function: transformers' SDPA, or what the plan says.

    Raises:
        ModelError: the layer does something that a plan can't do exactly, such as soft-capping or attention sinks.
    """
    if fspo_plan is None:
        if _planned.get():
            raise ModelError(
                f"{_architecture(module)} does not hand its keyword arguments to its attention, so trunk and branches "
                "can't run on it."
            )
        plain: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
        return plain
    _check_layer(module, options)
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


def prepare_model(model: torch.nn.Module, longest: int = 0) -> PreTrainedModel:
    """Switch `model` to the attention `fspo`, which is SDPA wherever no plan is given, and return it unwrapped.

    `longest` is the greatest number of tokens one response will be read with (trunk, prompt and response).

    Raises:
        ModelError: the architecture can't compute trunk and branches exactly; the sentence says why.
    """
    base = _unwrapped(model)
    config = base.config.get_text_config()
    if config._attn_implementation != IMPLEMENTATION:
        _check_architecture(base, config)
        base.set_attn_implementation(IMPLEMENTATION)
    _check_length(base, config, longest)
    return base


def _check_length(base: PreTrainedModel, config: Any, longest: int) -> None:
    rope: dict[str, Any] = getattr(config, "rope_parameters", None) or {}
    trained: int | None = rope.get("original_max_position_embeddings")
    limit: int = getattr(config, "max_position_embeddings", longest) if trained is None else trained
    if rope.get("rope_type") in _LENGTH_DEPENDENT_ROPES and longest > limit:
        raise ModelError(
            f"The rotary positions of {type(base).__name__} change with the length of the sequence beyond {limit} "
            f"tokens, and this one has {longest}; show fewer shots, or set the maximal length to {limit}."
        )


def _check_architecture(base: PreTrainedModel, config: Any) -> None:
    name = type(base).__name__
    alien = sorted(set(getattr(config, "layer_types", None) or ()) - _SUPPORTED_LAYERS)
    if alien or getattr(base, "_is_stateful", False):
        raise ModelError(
            f"{name} has layers ({', '.join(alien) or 'recurrent'}) that can't attend along a tree; use a model with "
            "attention layers only."
        )
    if not getattr(config, "is_causal", True) or getattr(config, "use_bidirectional_attention", False) not in (
        False,
        None,
        "vision",
    ):
        raise ModelError(
            f"{name} attends in both directions, which a tree of responses rules out; use a causal language model."
        )
    if getattr(config, "attn_logit_softcapping", None) is not None:
        raise ModelError(
            f"{name} soft-caps its attention scores, which SDPA can't do exactly; use another model, such as Gemma 3 "
            "in place of Gemma 2."
        )
    if not base._can_set_attn_implementation():
        raise ModelError(
            f"{name} does not use transformers' attention interface, so trunk and branches can't run on it; use "
            "another model."
        )


def _check_layer(module: torch.nn.Module, options: dict[str, Any]) -> None:
    for name in ("softcap", "s_aux", "position_bias"):
        if options.get(name) is not None:
            raise ModelError(
                f"{_architecture(module)} uses {name} in its attention, which trunk and branches can't do exactly; use "
                "another model."
            )
    types = getattr(getattr(module, "config", None), "layer_types", None)
    if (
        types
        and options.get("sliding_window") is None
        and types[getattr(module, "layer_idx", 0)] == "sliding_attention"
    ):
        raise ModelError(
            f"{_architecture(module)} does not tell its attention the sliding window, so trunk and branches can't run "
            "on it."
        )


def _architecture(module: torch.nn.Module) -> str:
    return type(module).__name__


def _unwrapped(model: torch.nn.Module) -> PreTrainedModel:
    inner: Any = model
    while not isinstance(inner, PreTrainedModel):
        if hasattr(inner, "get_base_model"):
            inner = inner.get_base_model()
        elif hasattr(inner, "module"):
            inner = inner.module
        else:
            raise ModelError(f"{type(inner).__name__} is not a transformers model.")
    return inner


def _first_visible(segment: Segment, window: int | None) -> int:
    return 0 if window is None else min(max(0, segment.boundary - window + 1), segment.boundary)


def _additive(visible: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill_(~visible, float("-inf"))


def _sdpa(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    dropout: float,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
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


def _for_each_head(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """[B, G, S, D] -> [B, heads, S, D], each group's part once for every head of it."""
    return tensor.repeat_interleave(heads // tensor.shape[1], dim=1) if tensor.shape[1] != heads else tensor


def _masks(*args: Any, **options: Any) -> torch.Tensor | None:
    return None if _planned.get() else sdpa_mask(*args, **options)


AttentionInterface.register(IMPLEMENTATION, attend)
AttentionMaskInterface.register(IMPLEMENTATION, _masks)
