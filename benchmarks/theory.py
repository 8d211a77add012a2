"""What one training step costs in theory, in floating-point operations of matrix products.

Going forward, a token costs 2 operations per weight of the linear layers; a token that attends to another costs
4 x layers x heads x head size (scores and values); a scored position costs 2 per weight of the LM head. Going back
costs twice as much again, and the reference goes forward only, so that a step is 4 times its forward operations on
either side, and the ratio of the two sides is that of their forward operations. With a trunk of P tokens and K queries
of q tokens with two responses of r tokens each:

    ours   tokens P + K (q + 2r)      seen P(P+1)/2 + K (qP + q(q+1)/2 + 2 (r(P+q) + r(r+1)/2))    scored 2Kr
    peer   tokens 2K (P + q + r)      seen 2K n(n+1)/2, n = P + q + r                              scored see `peer`
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from fspo.modeling.rendering import TokenizedEpisode

__all__ = ["STEP", "Costs"]

STEP = 4
"""Forward and back (1 + 2) of the policy, forward of the reference."""


@dataclass(frozen=True)
class Costs:
    """What a model's parts cost going forward."""

    token: int
    """Linear layers, per token."""
    seen: int
    """Attention, per pair of a token and one that it sees."""
    scored: int
    """LM head, per position."""

    @classmethod
    def of(cls, model: Any) -> Costs:
        """The costs of a transformers model whose layers are alike."""
        config, head = model.config.get_text_config(), model.get_output_embeddings()
        linear = [part for part in model.modules() if isinstance(part, torch.nn.Linear) and part is not head]
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return cls(
            token=2 * sum(part.weight.numel() for part in linear),
            seen=4 * config.num_hidden_layers * config.num_attention_heads * size,
            scored=2 * head.weight.numel(),
        )

    def ours(self, episode: TokenizedEpisode) -> int:
        """One forward pass over trunk and branches."""
        trunk = len(episode.trunk_ids)
        seen, scored = _triangle(trunk), 0
        for branch in episode.branches:
            before, prompt = branch.boundary, len(branch.prompt_ids)
            seen += prompt * before + _triangle(prompt)
            for response in map(len, branch.responses):
                seen += response * (before + prompt) + _triangle(response)
                scored += response
        return self.token * episode.tokens + self.seen * seen + self.scored * scored

    def peer(self, episode: TokenizedEpisode, *, every_position: bool) -> int:
        """One forward pass over one sequence per response, scoring its response only or every position."""
        total = 0
        for branch in episode.branches:
            for response in map(len, branch.responses):
                length = branch.boundary + len(branch.prompt_ids) + response
                total += self.token * length + self.seen * _triangle(length)
                total += self.scored * (length - 1 if every_position else response)
        return total


def _triangle(length: int) -> int:
    return length * (length + 1) // 2
