"""Log-probabilities of responses: trunk and branches in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from fspo.errors import ModelError
from fspo.modeling.attention import ForestPlan, planned_attention
from fspo.modeling.lm_head import hidden_states, in_place_of_forward, logits
from fspo.modeling.packing import PackedRow, pack
from fspo.modeling.preparing import prepare_model
from fspo.modeling.reduction import Reduction
from fspo.modeling.rendering import TokenizedEpisode

__all__ = ["BranchLogprobs", "branch_logprobs", "token_logprobs"]

_LOGITS_BUDGET = 64 * 1024 * 1024
"""Logits held at once, in elements (256 MB in fp32); beyond it they are computed chunk by chunk, and again on the way
back."""


@dataclass(frozen=True)
class BranchLogprobs:
    """One episode's log-probs: branches by responses (chosen, rejected)."""

    sums: Tensor
    """[B, R]: sum over the tokens of a response of log p(token | what is before it), in nats; differentiable.

    In float64, where the device has it: what counts are small differences of large sums.
    """
    lengths: Tensor
    """[B, R]: number of tokens of each response, the end-of-turn token among them."""
    discounted: Tensor
    """[B, R]: as `sums`, but the t-th token of a response (t = 1, 2, ...) counts 1 / sqrt(t)."""

    @property
    def means(self) -> Tensor:
        """[B, R]: the mean per token."""
        return self.sums / self.lengths

    def reduced(self, reduction: Reduction) -> Tensor:
        """[B, R]: the log-prob of each response by this reduction."""
        return {"sum": self.sums, "mean": self.means, "discounted": self.discounted}[reduction]


def branch_logprobs(model: torch.nn.Module, episodes: Sequence[TokenizedEpisode]) -> list[BranchLogprobs]:
    """Log-probs of every response of `episodes`, with each trunk, prompt and response run through the model once.

    All episodes share one row, so that memory grows with their tokens together. Gradients flow through trunks and
    branches. `model` may be wrapped by DistributedDataParallel or sharded by FSDP2; the pass is then a call of it.

    Raises:
        ModelError: the architecture can't do this exactly, or an episode is malformed.
    """
    if not episodes:
        return []
    base = prepare_model(model, max(episode.longest for episode in episodes))
    row = pack(episodes, device=base.device)
    if len(row.targets) == 0:
        raise ModelError("There is no response to score in these episodes.")
    plan = ForestPlan(row.forest)

    def run(input_ids: Tensor, position_ids: Tensor) -> Tensor:
        with planned_attention():
            hidden = hidden_states(base, input_ids=input_ids, position_ids=position_ids, fspo_plan=plan)
        return token_logprobs(base, hidden[0, row.predictors], row.targets)

    return _by_episode(in_place_of_forward(model, run, row.input_ids, row.position_ids), row)


def token_logprobs(base: Any, hidden: Tensor, targets: Tensor) -> Tensor:
    """[T]: log p(targets) in fp32 from the last hidden states [T, d], never holding more logits than the budget."""
    head = base.get_output_embeddings()
    step = max(1, _LOGITS_BUDGET // head.weight.shape[0])

    def run(hidden: Tensor, targets: Tensor) -> Tensor:
        if len(targets) <= step:
            return _score(base, hidden, targets)
        pieces = zip(torch.split(hidden, step), torch.split(targets, step), strict=True)
        again = torch.is_grad_enabled()
        return torch.cat(
            [checkpoint(_score, base, h, t, use_reentrant=False) if again else _score(base, h, t) for h, t in pieces]
        )

    # One call of the head, however many pieces: sharded processes must gather its weights equally often.
    return in_place_of_forward(head, run, hidden, targets)


def _score(base: Any, hidden: Tensor, targets: Tensor) -> Tensor:
    return -torch.nn.functional.cross_entropy(logits(base, hidden), targets, reduction="none")


def _by_episode(logprobs: Tensor, row: PackedRow) -> list[BranchLogprobs]:
    count = sum(branches * responses for branches, responses in row.shapes)
    logprobs = _fine(logprobs)
    nothing = torch.zeros(count, dtype=logprobs.dtype, device=logprobs.device)
    lengths = torch.bincount(row.owners, minlength=count)
    before = lengths.cumsum(0) - lengths
    place = torch.arange(1, len(logprobs) + 1, device=logprobs.device) - before[row.owners]
    sums = nothing.index_add(0, row.owners, logprobs)
    discounted = nothing.index_add(0, row.owners, logprobs * place.to(logprobs.dtype).rsqrt())
    sizes = [branches * responses for branches, responses in row.shapes]
    pieces = (torch.split(each, sizes) for each in (sums, lengths, discounted))
    return [
        BranchLogprobs(*(each.view(shape) for each in found)) for *found, shape in zip(*pieces, row.shapes, strict=True)
    ]


def _fine(logprobs: Tensor) -> Tensor:
    return logprobs if logprobs.device.type == "mps" else logprobs.double()
