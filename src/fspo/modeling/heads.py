"""From the last hidden states to logits, as each architecture does it, for chosen positions only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["hidden_states", "logits"]


def hidden_states(base: Any, **inputs: Any) -> torch.Tensor:
    """[B, S, d]: the decoder's last hidden states, before the LM head and without a cache."""
    hidden: torch.Tensor = base.get_decoder()(use_cache=False, **inputs).last_hidden_state
    return hidden


def logits(base: Any, hidden: torch.Tensor) -> torch.Tensor:
    """[T, V] in fp32: the LM head of `base` on `hidden` [T, d], scaled and soft-capped as its configuration says."""
    transform = _LogitTransform.of(base.config.get_text_config())
    return transform(base.get_output_embeddings()(hidden)).float()


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

    def __call__(self, scores: torch.Tensor) -> torch.Tensor:
        if self.scale != 1.0:
            scores = scores * self.scale
        return scores if self.cap is None else torch.tanh(scores / self.cap) * self.cap
