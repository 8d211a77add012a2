"""From the log-probabilities of a pass to losses and figures.

Axes: B is the pairs of a pass, Q its queries with their attachments, R the responses to a query. Usually R is 2
(chosen, rejected) and B is Q; where a training compares more responses, B is Q times R(R - 1)/2, with a query's pairs
side by side and the labelled one first.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fspo.modeling.logprobs import BranchLogprobs, branch_logprobs
from fspo.modeling.rendering import TokenizedEpisode
from fspo.training import objectives
from fspo.training.companion import Companion
from fspo.training.config import TrainingConfig
from fspo.training.steps import Margins, StepBatch, Unit

__all__ = [
    "PassScores",
    "Reference",
    "add_figures",
    "description_losses",
    "figures",
    "losses",
    "mean_figures",
    "means",
    "partial_loss",
    "reference_margins",
    "score",
    "total_loss",
    "with_margins",
    "without_loss",
]

Reference = Callable[[], AbstractContextManager[torch.nn.Module]]
"""Enters the reference model: the policy with its adapters off, or a frozen copy."""

_OF_DESCRIPTIONS = "description_"
"""How the names of figures begin that are means over descriptions instead of pairs."""


@dataclass(frozen=True)
class PassScores:
    """What the models say about the pairs of a pass."""

    plain: BranchLogprobs
    """The policy's log-probabilities, [Q, R]."""
    mirrored: BranchLogprobs | None = None
    """The same responses in the same order under the mirrored shots."""
    reference_B: Tensor | None = None
    """The reference's margins, reduced."""
    reference_mirrored_B: Tensor | None = None
    described: BranchLogprobs | None = None
    """The policy's log-probabilities of descriptions given the shots, [D, R]: gold, or a closer and a farther draft."""
    reference_described_D: Tensor | None = None
    """The reference's margins between drafts."""
    targets_B: Tensor | None = None
    """The observer's log-odds of each pair's first response, where the objective aims at them."""
    noise_B: Tensor | None = None
    """How probably each pair's label is wrong, where labels say so."""
    weights_Q: Tensor | None = None
    """How much the pairs of each query count; None: all as much."""


def score(
    model: torch.nn.Module,
    units: Sequence[Unit],
    config: TrainingConfig,
    reference: Reference | None = None,
    companion: Companion | None = None,
) -> PassScores:
    """Score the pairs of `units` in one pass of the policy and, where a reference is given, one of the reference.

    Margins of the reference that the units bring along are taken as they are. A companion takes part in the pass of the
    policy alone.
    """
    episodes = [episode for unit in units for episode in unit.policy]
    drafts = [unit.described for unit in units if unit.described is not None]
    reference_B = reference_mirrored_B = reference_D = None
    known = [unit.margins for unit in units if unit.margins is not None]
    if reference is not None and len(known) < len(units):
        with torch.no_grad(), reference() as frozen:
            reference_B, reference_mirrored_B, reference_D = _reference_margins(frozen, units, episodes, drafts, config)
    with companion.enter(model, units) if companion is not None else nullcontext():
        scored = branch_logprobs(model, [*episodes, *drafts])
    plain, mirrored = _twins(scored[: len(episodes)], units)
    described = _joined(scored[len(episodes) :]) if drafts else None
    if known and len(known) == len(units):
        reference_B = plain.sums.new_tensor([margin for one in known for margin in one.plain])
        if mirrored is not None:
            reference_mirrored_B = plain.sums.new_tensor([margin for one in known for margin in one.mirrored or ()])
    odds = [value for unit in units for query in unit.targets or () for value in query]
    targets_B = plain.sums.new_tensor(odds) if odds else None
    noise_B = _noise(units, config, plain.sums)
    weights = [unit.weight for unit in units for _ in range(unit.pairs)]
    weights_Q = plain.sums.new_tensor(weights) if any(weight != 1.0 for weight in weights) else None
    return PassScores(
        plain,
        mirrored,
        reference_B,
        reference_mirrored_B,
        described,
        reference_D,
        targets_B,
        noise_B=noise_B,
        weights_Q=weights_Q,
    )


def reference_margins(reference: Reference, unit: Unit, config: TrainingConfig) -> Margins:
    """What the reference says of the pairs of one unit, in a pass of its own."""
    with torch.no_grad(), reference() as frozen:
        plain_B, mirrored_B, _ = _reference_margins(frozen, [unit], unit.policy, (), config)
    return _plain_numbers(plain_B, mirrored_B)


def with_margins(unit: Unit, scores: PassScores) -> Unit:
    """The unit with what the reference said of it in a pass of its own, so that it isn't asked again.

    A unit whose description is scored too stays as it is: the reference scores descriptions as well.
    """
    if unit.margins is not None or unit.described is not None or scores.reference_B is None:
        return unit
    return replace(unit, margins=_plain_numbers(scores.reference_B, scores.reference_mirrored_B))


def _plain_numbers(plain_B: Tensor, mirrored_B: Tensor | None) -> Margins:
    return Margins(tuple(plain_B.tolist()), None if mirrored_B is None else tuple(mirrored_B.tolist()))


def total_loss(scores: PassScores, config: TrainingConfig) -> Tensor:
    """The mean loss of the pairs, and that of the descriptions with its weight."""
    described = 0 if scores.described is None else len(scores.described.sums)
    pairs = len(scores.plain.sums) if scores.weights_Q is None else float(scores.weights_Q.sum())
    return partial_loss(scores, config, pairs=pairs, descriptions=described)


def partial_loss(scores: PassScores, config: TrainingConfig, *, pairs: float, descriptions: int) -> Tensor:
    """A pass's part of the loss of a step with so many pairs and descriptions; the parts of a step add up to it."""
    losses_Q = losses(scores, config)
    loss = (losses_Q if scores.weights_Q is None else losses_Q * scores.weights_Q).sum() / pairs
    if scores.described is None:
        return loss
    return loss + config.description_weight * description_losses(scores, config).sum() / descriptions


def description_losses(scores: PassScores, config: TrainingConfig) -> Tensor:
    """The loss of each description, shape [D]: likelihood of gold, or IPO between two drafts (arXiv 2502.19312, v2).

    Raises:
        ValueError: there are none.
    """
    if scores.described is None:
        raise ValueError("These scores hold no descriptions.")
    if scores.described.sums.shape[1] == 1:
        return objectives.pref_ft(scores.described.means[:, 0])
    return objectives.ipo(_description_margins(scores, config), config.description_beta)


def losses(scores: PassScores, config: TrainingConfig) -> Tensor:
    """The loss of each query, shape [Q]: the mean over its pairs and, with a mirror, over the mirrored ones."""
    losses_B = torch.zeros_like(scores.plain.sums[:, 0])
    weight = 1.0 if config.objective == "pref-ft" else config.pref_ft_weight
    if weight:
        losses_B = losses_B + weight * _likelihood(scores)
    if config.objective == "pref-ft":
        return losses_B
    h_B, mirrored_B = _margins(scores, config)
    if config.objective == "mirrored-contrast":
        return losses_B + _contrast(h_B, mirrored_B, scores.targets_B, config, queries=len(losses_B))
    h_B = _length_controlled(h_B, scores.plain, config)
    preference_B = _preference(h_B, config, scores.noise_B)
    if scores.mirrored is not None and mirrored_B is not None:
        # Under the mirrored shots the rejected response is the preferred one.
        mirrored_B = _length_controlled(mirrored_B, scores.mirrored, config)
        preference_B = (preference_B + _preference(-mirrored_B, config, scores.noise_B)) / 2
    return losses_B + preference_B


def figures(scores: PassScores, config: TrainingConfig) -> dict[str, float]:
    """Means over the labelled pairs of a pass, each pair with its weight.

    `nll` is that of the chosen response per token. Where both responses were scored: `margin` and `margin_accuracy`
    (how often it is positive); with a mirror also `effect`, `bias` (its size) and `direction_accuracy` (how often the
    effect is positive). Of descriptions `description_nll` a token and, between drafts, `description_accuracy`.
    """
    with torch.no_grad():
        means = {"nll": _likelihood(scores)}
        if scores.plain.sums.shape[1] >= 2:
            h_B, mirrored_B = _labelled(scores, *_margins(scores, config))
            right_B, margins_B = _rightness(h_B), h_B
            if mirrored_B is not None:
                right_B, margins_B = (right_B + _rightness(-mirrored_B)) / 2, (h_B - mirrored_B) / 2
                means["effect"] = effect_B = objectives.effect(h_B, mirrored_B)
                means["bias"] = objectives.bias(h_B, mirrored_B).abs()
                means["direction_accuracy"] = _rightness(effect_B)
            means |= {"margin": margins_B, "margin_accuracy": right_B}
        if scores.described is not None:
            means["description_nll"] = objectives.pref_ft(scores.described.means[:, 0])
            if scores.described.sums.shape[1] == 2:
                means["description_accuracy"] = _rightness(_description_margins(scores, config))
        return {
            name: _mean(values, None if name.startswith(_OF_DESCRIPTIONS) else scores.weights_Q)
            for name, values in means.items()
        }


def _mean(values: Tensor, weights: Tensor | None) -> float:
    return (values.mean() if weights is None else (values * weights).sum() / weights.sum()).item()


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


def add_figures(sums: dict[str, float], means: Mapping[str, float], units: Sequence[Unit], batch: StepBatch) -> None:
    """Add the means of a pass over `units` to those of the whole step, of which they are a part."""
    part = StepBatch((tuple(units),))
    for name, value in means.items():
        described = name.startswith(_OF_DESCRIPTIONS)
        weight = part.descriptions / batch.descriptions if described else part.pairs / batch.pairs
        sums[name] = sums.get(name, 0.0) + value * weight


def without_loss(scores: PassScores, units: Sequence[Unit], config: TrainingConfig) -> list[Unit]:
    """The units whose loss is not a number."""
    per_unit = torch.split(losses(scores, config).detach(), [unit.pairs for unit in units])
    return [unit for unit, own_B in zip(units, per_unit, strict=True) if not own_B.isfinite().all()]


def _rightness(margins_B: Tensor) -> Tensor:
    return ((margins_B > 0).double() + (margins_B >= 0).double()) / 2  # an exact tie is half right


def _likelihood(scores: PassScores) -> Tensor:
    nll_B = objectives.pref_ft(scores.plain.means[:, 0])
    if scores.mirrored is None:
        return nll_B
    # The mirrored person's choice is the second response: the rejected one, or the only one that was rendered.
    second = min(1, scores.mirrored.means.shape[1] - 1)
    return (nll_B + objectives.pref_ft(scores.mirrored.means[:, second])) / 2


def _noise(units: Sequence[Unit], config: TrainingConfig, like: Tensor) -> Tensor | None:
    """How probably each label is wrong: what the label itself says, or else the settings; None if no label does."""
    if all(unit.noise is None for unit in units):
        return None
    own = [value for unit in units for value in unit.noise or (0.0,) * unit.pairs]
    return like.new_tensor([value or config.label_smoothing for value in own])


def _preference(h_B: Tensor, config: TrainingConfig, noise_B: Tensor | None = None) -> Tensor:
    smoothing = config.label_smoothing if noise_B is None else noise_B
    match config.objective:
        case "ipo":
            return objectives.ipo(h_B, config.beta)
        case "robust-dpo":
            return objectives.robust_dpo(h_B, config.beta, smoothing)
        case "hinge":
            return objectives.hinge(h_B, config.beta)
        case "simpo":
            return objectives.simpo(h_B, config.beta, config.gamma, smoothing)
        case _:
            return objectives.dpo(h_B, config.beta, smoothing)


def _length_controlled(h_B: Tensor, logprobs: BranchLogprobs, config: TrainingConfig) -> Tensor:
    if not config.length_weight:
        return h_B
    chosen_B, rejected_B = logprobs.lengths.unbind(1)
    return objectives.length_controlled(h_B, chosen_B, rejected_B, beta=config.beta, weight=config.length_weight)


def _contrast(
    h_B: Tensor, mirrored_B: Tensor | None, odds_B: Tensor | None, config: TrainingConfig, queries: int
) -> Tensor:
    if mirrored_B is None:
        raise ValueError("The mirrored contrast needs the mirrored episodes' scores.")
    target: float | Tensor
    if config.target != "observer":
        target = config.target
    elif odds_B is None:
        raise ValueError("The observer's log-odds are missing.")
    else:
        target = config.observer_scale * odds_B
    weight = config.bias_weight
    if config.contrast == "direction" and isinstance(target, Tensor):
        effects_B, biases_B = objectives.effect(h_B, mirrored_B), objectives.bias(h_B, mirrored_B)
        return objectives.mirrored_contrast_direction(
            effects_B.view(queries, -1), target.view(queries, -1), biases_B.view(queries, -1), bias_weight=weight
        )
    if config.contrast == "logistic":
        contrast_B = objectives.mirrored_contrast_logistic(h_B, mirrored_B, scale=config.scale, bias_weight=weight)
    else:
        contrast_B = objectives.mirrored_contrast(h_B, mirrored_B, target=target, bias_weight=weight)
    return contrast_B.view(queries, -1).mean(dim=1)


def _margins(scores: PassScores, config: TrainingConfig) -> tuple[Tensor, Tensor | None]:
    h_B = _policy_margins(scores.plain, config)
    mirrored_B = None if scores.mirrored is None else _policy_margins(scores.mirrored, config)
    reference_B, other_B = scores.reference_B, scores.reference_mirrored_B
    if reference_B is None or not config.compares_pairs:
        return h_B, mirrored_B
    if mirrored_B is None or other_B is None:
        return h_B - reference_B, mirrored_B
    if config.objective == "mirrored-contrast":
        # The mirror is the reference of the effect; the reference model only says which bias is its own.
        reference_B = other_B = (reference_B + other_B) / 2
    return h_B - reference_B, mirrored_B - other_B


def _description_margins(scores: PassScores, config: TrainingConfig) -> Tensor:
    assert scores.described is not None
    margins_D = _policy_margins(scores.described, config)
    return margins_D if scores.reference_described_D is None else margins_D - scores.reference_described_D


def _labelled(scores: PassScores, *margins: Tensor | None) -> list[Any]:
    """Of the margins of all pairs those of the labelled ones, shape [Q]."""
    queries = len(scores.plain.sums)
    return [None if margins_B is None else margins_B.view(queries, -1)[:, 0] for margins_B in margins]


def _policy_margins(logprobs: BranchLogprobs, config: TrainingConfig) -> Tensor:
    logps_QR = logprobs.reduced(config.reduction)
    first, second = torch.triu_indices(logps_QR.shape[1], logps_QR.shape[1], offset=1)
    return objectives.margins(logps_QR[:, first], logps_QR[:, second]).flatten()


def _reference_margins(
    frozen: torch.nn.Module,
    units: Sequence[Unit],
    episodes: Sequence[TokenizedEpisode],
    drafts: Sequence[TokenizedEpisode],
    config: TrainingConfig,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The reference's margins of the pairs, of the mirrored pairs, and between drafts."""
    bare = [unit.reference for unit in units if unit.reference is not None]
    shown = bare or list(episodes)
    scored = branch_logprobs(frozen, [*shown, *drafts])
    between = scored[len(shown) :]
    margins_D = _policy_margins(_joined(between), config) if between and between[0].sums.shape[1] == 2 else None
    if not bare:
        plain, mirrored = _twins(scored[: len(shown)], units)
        mirrored_B = None if mirrored is None else _policy_margins(mirrored, config)
        return _policy_margins(plain, config), mirrored_B, margins_D
    margins_B = torch.cat(
        [
            _policy_margins(logprobs, config)
            .view(len(logprobs.sums), -1)[[b.query for b in unit.plain.branches]]
            .flatten()
            for logprobs, unit in zip(scored, units, strict=False)
        ]
    )
    return margins_B, None if units[0].mirrored is None else margins_B, margins_D


def _twins(scored: Sequence[BranchLogprobs], units: Sequence[Unit]) -> tuple[BranchLogprobs, BranchLogprobs | None]:
    if units[0].mirrored is None:
        return _joined(scored), None
    return _joined(scored[0::2]), _joined(scored[1::2])


def _joined(scored: Sequence[BranchLogprobs]) -> BranchLogprobs:
    return BranchLogprobs(
        torch.cat([one.sums for one in scored]),
        torch.cat([one.lengths for one in scored]),
        torch.cat([one.discounted for one in scored]),
    )
