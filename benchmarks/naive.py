"""Log-probabilities from one sequence per response: the baseline of benchmarks, and the oracle of tests."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fspo.modeling.lm_head import hidden_states
from fspo.modeling.logprobs import BranchLogprobs, token_logprobs
from fspo.modeling.preparing import prepare_model
from fspo.modeling.rendering import TokenizedEpisode

__all__ = ["naive_logprobs", "reduced_apart", "response_logprobs"]


def naive_logprobs(model: torch.nn.Module, episodes: Sequence[TokenizedEpisode]) -> list[BranchLogprobs]:
    """What `branch_logprobs` gives, from whole sequences one at a time, without padding, masks or shared trunks."""
    return [_of_episode(model, episode) for episode in episodes]


def response_logprobs(model: torch.nn.Module, context: Sequence[int], response: Sequence[int]) -> torch.Tensor:
    """[T]: log-probs of the tokens of `response` after `context`, as one plain causal sequence."""
    base = prepare_model(model, len(context) + len(response))
    ids = torch.tensor([[*context, *response]], device=base.device)
    hidden = hidden_states(base, input_ids=ids[:, :-1])
    return token_logprobs(base, hidden[0, len(context) - 1 :], ids[0, len(context) :])


def _of_episode(model: torch.nn.Module, episode: TokenizedEpisode) -> BranchLogprobs:
    return reduced_apart(
        [
            [
                response_logprobs(model, (*episode.trunk_ids[: branch.boundary], *branch.prompt_ids), response)
                for response in branch.responses
            ]
            for branch in episode.branches
        ]
    )


def reduced_apart(scored: Sequence[Sequence[torch.Tensor]]) -> BranchLogprobs:
    """An episode's log-probs from those of the tokens of each response, branches by responses."""
    sums = torch.stack([torch.stack([logprobs.double().sum() for logprobs in row]) for row in scored])
    discounted = torch.stack([torch.stack([_discounted(logprobs) for logprobs in row]) for row in scored])
    lengths = torch.tensor([[len(logprobs) for logprobs in row] for row in scored], device=sums.device)
    return BranchLogprobs(sums, lengths, discounted)


def _discounted(logprobs: torch.Tensor) -> torch.Tensor:
    return (logprobs.double() / torch.arange(1, len(logprobs) + 1, device=logprobs.device).sqrt()).sum()
