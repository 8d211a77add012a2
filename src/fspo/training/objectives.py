"""Preference objectives as pure functions of log-probabilities.

Tensors are named by their axes: B is the batch of queries. Log-probabilities are in nats; every objective returns one
loss per query, and the caller takes the mean.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, logsigmoid

__all__ = [
    "bias",
    "dpo",
    "effect",
    "hinge",
    "ipo",
    "length_controlled",
    "margins",
    "mirrored_contrast",
    "mirrored_contrast_direction",
    "mirrored_contrast_logistic",
    "pref_ft",
    "robust_dpo",
    "simpo",
]


def margins(
    chosen_logps_B: Tensor,
    rejected_logps_B: Tensor,
    reference_chosen_logps_B: Tensor | None = None,
    reference_rejected_logps_B: Tensor | None = None,
) -> Tensor:
    """Margin h = [log pi(y_w) - log pi_ref(y_w)] - [log pi(y_l) - log pi_ref(y_l)] of each query, shape [B].

    Without a reference it is the difference of the policy's own log-probabilities.
    """
    margins_B = chosen_logps_B - rejected_logps_B
    if reference_chosen_logps_B is not None and reference_rejected_logps_B is not None:
        margins_B = margins_B - (reference_chosen_logps_B - reference_rejected_logps_B)
    return margins_B


def pref_ft(chosen_logps_B: Tensor) -> Tensor:
    """Negative log-likelihood of the chosen response given shots and prompt, -log pi(y_w | S, x), shape [B].

    Stage one of FSPO (arXiv 2502.19312, section 4); the rejected response has no part in it.
    """
    return -chosen_logps_B


def ipo(margins_B: Tensor, beta: float) -> Tensor:
    """Identity preference optimisation, (h - 1/(2 beta))^2, shape [B] (arXiv 2310.12036, equation 17)."""
    return (margins_B - 1.0 / (2.0 * beta)) ** 2


def dpo(margins_B: Tensor, beta: float, label_smoothing: float | Tensor = 0.0) -> Tensor:
    """Direct preference optimisation, -log sigmoid(beta h), shape [B] (arXiv 2305.18290, equation 7).

    With a share s of labels taken for wrong (one number, or shape [B]) it is conservative DPO, -(1 - s) log
    sigmoid(beta h) - s log sigmoid(-beta h) (Mitchell 2023, "A note on DPO with noisy preferences and relationship to
    IPO"): it rests at a margin of log((1 - s)/s) / beta, where plain DPO pulls for ever.
    """
    return _smoothed(beta * margins_B, label_smoothing)


def robust_dpo(margins_B: Tensor, beta: float, label_smoothing: float | Tensor) -> Tensor:
    """Provably robust DPO, (-(1 - s) log sigmoid(beta h) + s log sigmoid(-beta h)) / (1 - 2s), shape [B].

    If each label was flipped with probability s < 1/2, its expectation is DPO's loss on the true labels (arXiv
    2403.00409). Unlike conservative DPO it pulls harder, not softer, and has no lower bound at s > 0.
    """
    right_B, wrong_B = -logsigmoid(beta * margins_B), -logsigmoid(-beta * margins_B)
    return ((1 - label_smoothing) * right_B - label_smoothing * wrong_B) / (1 - 2 * label_smoothing)


def hinge(margins_B: Tensor, beta: float) -> Tensor:
    """Rank calibration, max(0, 1 - beta h), shape [B]: pairs that are apart by 1/beta pull no more.

    The rank calibration of SLiC-HF (arXiv 2305.10425), with log-ratios to the reference in the place of
    log-probabilities as in RSO's hinge-norm (arXiv 2309.06657).
    """
    return torch.relu(1.0 - beta * margins_B)


def simpo(margins_B: Tensor, beta: float, gamma: float, label_smoothing: float | Tensor = 0.0) -> Tensor:
    """Simple preference optimisation, -log sigmoid(beta m - gamma), shape [B] (arXiv 2405.14734, equation 6).

    Args:
        margins_B: m, margins of mean log-probabilities per token, without a reference.
        beta: scale of the reward.
        gamma: how far apart the rewards of both responses are to be.
        label_smoothing: share of labels taken for wrong, as in `dpo`; one number, or one for each query.
    """
    return _smoothed(beta * margins_B - gamma, label_smoothing)


def length_controlled(
    margins_B: Tensor, chosen_lengths_B: Tensor, rejected_lengths_B: Tensor, *, beta: float, weight: float
) -> Tensor:
    """Margins with a reward for brevity taken out, h + (a / beta) (|y_w| - |y_l|), shape [B].

    Regularised DPO (arXiv 2403.19159): the policy that is best for the reward r - a |y| has r = beta log(pi / pi_ref) +
    a |y| up to a constant, so that a longer chosen response has to be pulled up less. DPO of it is R-DPO.

    Args:
        margins_B: h.
        chosen_lengths_B: tokens of the chosen responses.
        rejected_lengths_B: tokens of the rejected responses.
        beta: the objective's beta.
        weight: a, reward per token.
    """
    return margins_B + (weight / beta) * (chosen_lengths_B - rejected_lengths_B)


def effect(margins_B: Tensor, mirrored_margins_B: Tensor) -> Tensor:
    """What the labels of the shots do to a pair, e = (h - h')/2, shape [B].

    h' is the margin of the SAME ordered pair (chosen first) under the mirrored shots, whose labels are swapped.
    """
    return (margins_B - mirrored_margins_B) / 2


def bias(margins_B: Tensor, mirrored_margins_B: Tensor) -> Tensor:
    """What the contents of a pair do whatever the labels say, b = (h + h')/2, shape [B]."""
    return (margins_B + mirrored_margins_B) / 2


def mirrored_contrast(
    margins_B: Tensor, mirrored_margins_B: Tensor, *, target: float | Tensor, bias_weight: float = 0.0
) -> Tensor:
    """Mirrored contrast, (e - c)^2 + w b^2, shape [B], with e and b as in `effect` and `bias`.

    At w = 1 and c = 1/(2 beta) it is the mean of IPO (arXiv 2310.12036, equation 17) on an episode and on its mirror:
    their sum is (e + b - c)^2 + (e - b - c)^2 = 2 (e - c)^2 + 2 b^2. At w = 0 no reference is needed, since the mirror
    is the reference.

    Args:
        margins_B: margins of the pairs under the shots.
        mirrored_margins_B: margins of the same ordered pairs under the mirrored shots.
        target: c, in nats; one for all pairs, or one for each.
        bias_weight: w, at least 0.
    """
    effect_B, bias_B = effect(margins_B, mirrored_margins_B), bias(margins_B, mirrored_margins_B)
    return (effect_B - target) ** 2 + bias_weight * bias_B**2


def mirrored_contrast_logistic(
    margins_B: Tensor, mirrored_margins_B: Tensor, *, scale: float, bias_weight: float = 0.0
) -> Tensor:
    """Mirrored contrast with a logistic pull on the effect, -log sigmoid(s e) + w b^2, shape [B].

    It is DPO (arXiv 2305.18290, equation 7) with the mirror in the reference's place: confident pairs stop pulling.

    Args:
        margins_B: margins of the pairs under the shots.
        mirrored_margins_B: margins of the same ordered pairs under the mirrored shots.
        scale: s, per nat.
        bias_weight: w, at least 0.
    """
    effect_B, bias_B = effect(margins_B, mirrored_margins_B), bias(margins_B, mirrored_margins_B)
    return -logsigmoid(scale * effect_B) + bias_weight * bias_B**2


def mirrored_contrast_direction(
    effects_QP: Tensor, targets_QP: Tensor, biases_QP: Tensor | None = None, *, bias_weight: float = 0.0
) -> Tensor:
    """Mirrored contrast on the direction of the effects alone, |c| (1 - cos) / sqrt(P), shape [Q].

    cos = <e, c> / (|c| sqrt(|e|^2 + w |b|^2)). The size of the effects is free, so nothing is gained by shrinking all
    of them. A query counts by the size of its targets: small ones mean that the shots say little. At w = 1 it is the
    direction of the margins under the shots and under the mirrored shots, (e + b, b - e), against (c, -c), so that the
    reward against the reference is trained too. A design of this project.

    Args:
        effects_QP: e, effects of the P pairs of each query's responses, in nats.
        targets_QP: c, the effects to aim at, such as an ideal observer's log-odds.
        biases_QP: b, biases of the same pairs, in nats.
        bias_weight: w, at least 0.
    """
    size_Q = targets_QP.square().mean(dim=1).sqrt()
    if biases_QP is not None and bias_weight:
        effects_QP = torch.cat((effects_QP, bias_weight**0.5 * biases_QP), dim=1)
        targets_QP = torch.cat((targets_QP, torch.zeros_like(biases_QP)), dim=1)
    cosine_Q: Tensor = cosine_similarity(effects_QP, targets_QP, dim=1)
    return size_Q * (1 - cosine_Q)


def _smoothed(rewards_B: Tensor, label_smoothing: float | Tensor) -> Tensor:
    return -(1 - label_smoothing) * logsigmoid(rewards_B) - label_smoothing * logsigmoid(-rewards_B)
