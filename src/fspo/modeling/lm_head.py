"""From the last hidden states to logits, as each architecture does it, for chosen positions only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

__all__ = ["hidden_states", "in_place_of_forward", "logits"]


def in_place_of_forward(module: torch.nn.Module, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """What `function` makes of `inputs`, run as if it were the forward of `module`.

    What is hooked onto a call of the module then happens around it: DistributedDataParallel averages the gradients,
    FSDP2 gathers the sharded weights and frees them again.
    """
    inner = module.module if isinstance(module, DistributedDataParallel) else module
    if inner is module and not module._forward_pre_hooks:
        return function(*inputs)
    own = vars(inner).get("forward")

    def once(*arguments: Tensor) -> Tensor:
        restore()
        return function(*arguments)

    def restore() -> None:
        vars(inner).pop("forward", None)
        if own is not None:
            vars(inner)["forward"] = own

    vars(inner)["forward"] = once
    try:
        result: Tensor = module(*inputs)
        return result
    finally:
        restore()


def hidden_states(base: Any, **inputs: Any) -> Tensor:
    """[B, S, d]: the decoder's last hidden states, before the LM head and without a cache."""
    hidden: Tensor = base.get_decoder()(use_cache=False, **inputs).last_hidden_state
    return hidden


def logits(base: Any, hidden: Tensor) -> Tensor:
    """[T, V] in fp32: the LM head of `base` on `hidden` [T, d], scaled and soft-capped as its configuration says."""
    transform = _LogitTransform.of(base.config.get_text_config())
    # The head's forward without what is hooked onto it, which a caller that works in pieces does once for all.
    return transform(base.get_output_embeddings().forward(hidden)).float()


@dataclass(frozen=True)
class _LogitTransform:
    """What Cohere (scale), Granite (divisor) and Gemma 2 (cap) do to the head's output."""

    scale: float
    cap: float | None

    @classmethod
    def of(cls, config: Any) -> _LogitTransform:
        scale = getattr(config, "logit_scale", None) or 1.0
        divisor = getattr(config, "logits_scaling", None) or 1.0
        return cls(scale / divisor, getattr(config, "final_logit_softcapping", None))

    def __call__(self, scores: Tensor) -> Tensor:
        if self.scale != 1.0:
            scores = scores * self.scale
        return scores if self.cap is None else torch.tanh(scores / self.cap) * self.cap
