"""What a policy makes of responses outside a training step: rewards of any responses, figures of whole episodes."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import torch

from fspo.errors import DataError
from fspo.modeling.logprobs import branch_logprobs
from fspo.modeling.rendering import Branch, EpisodeRenderer, RenderedPrompt, TokenizedEpisode
from fspo.preferences.types import Preference
from fspo.training import objectives
from fspo.training.config import TrainingConfig
from fspo.training.losses import Reference, figures, score
from fspo.training.steps import Unit

__all__ = ["antisymmetric_rewards", "mean_figures", "means", "reference_rewards"]


def reference_rewards(
    policy: torch.nn.Module,
    reference: Reference,
    renderer: EpisodeRenderer,
    shots: Sequence[Preference],
    prompt: str,
    responses: Sequence[str],
    config: TrainingConfig,
) -> list[float]:
    """Implicit reward of each response, beta (log pi(y | S, x) - log pi_ref(y | S, x)) (FSPO, arXiv 2502.19312).

    Log-probabilities are reduced as in training, and the reference sees what it saw there.

    Raises:
        DataError: there is no response, or the prompt with a response is too long.
    """
    asked, texts = _rendered(renderer, shots, prompt, responses)
    bare = asked
    if config.reference == "none":
        bare, _ = _rendered(renderer, (), prompt, responses)
    with torch.no_grad():
        own_R = _logps(policy, asked.trunk_ids, asked, texts, config)
        with reference() as frozen:
            reference_R = _logps(frozen, bare.trunk_ids, bare, texts, config)
    return (config.beta * (own_R - reference_R)).tolist()


def antisymmetric_rewards(
    policy: torch.nn.Module,
    renderer: EpisodeRenderer,
    shots: Sequence[Preference],
    prompt: str,
    responses: Sequence[str],
    config: TrainingConfig,
) -> list[float]:
    """What the labels of the shots do to each response, beta (log pi(y | S, x) - log pi(y | S', x)) / 2.

    S' are the shots with their labels swapped; what the contents alone do cancels.

    Raises:
        DataError: there is no response or no shot, or the prompt with a response is too long.
    """
    asked, texts = _rendered(renderer, shots, prompt, responses)
    if asked.mirror_trunk_ids is None:
        raise DataError("There are no labels to swap: no preference is shown; give some, or measure by the reference.")
    with torch.no_grad():
        own_R = _logps(policy, asked.trunk_ids, asked, texts, config)
        mirrored_R = _logps(policy, asked.mirror_trunk_ids, asked, texts, config)
    return (config.beta * (own_R - mirrored_R) / 2).tolist()


def mean_figures(
    policy: torch.nn.Module, units: Sequence[Unit], config: TrainingConfig, reference: Reference | None
) -> dict[str, float]:
    """Means of `figures` over episodes, each scored in a pass of its own."""
    with torch.no_grad():
        return means([figures(score(policy, [unit], config, reference), config) for unit in units])


def means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each figure over the rows that have it."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: statistics.fmean(row[name] for row in rows if name in row) for name in names}


def _rendered(
    renderer: EpisodeRenderer, shots: Sequence[Preference], prompt: str, responses: Sequence[str]
) -> tuple[RenderedPrompt, tuple[tuple[int, ...], ...]]:
    if not responses or not all(response.strip() for response in responses):
        raise DataError("A reward is of responses that are texts; give at least one, and none that is empty.")
    texts = tuple(map(renderer.render_response, responses))
    return renderer.render_prompt(shots, prompt, reserve=max(map(len, texts))), texts


def _logps(
    model: torch.nn.Module,
    trunk: tuple[int, ...],
    asked: RenderedPrompt,
    texts: tuple[tuple[int, ...], ...],
    config: TrainingConfig,
) -> torch.Tensor:
    """[R]: reduced log-probabilities of the responses."""
    branch = Branch(asked.prompt_ids, texts, boundary=len(trunk), shots=0, query=0)
    (scored,) = branch_logprobs(model, [TokenizedEpisode(trunk, (len(trunk),), (branch,))])
    return objectives.reduce_logprobs(scored.sums, scored.lengths, config.reduction)[0]
