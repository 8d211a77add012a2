"""Preference objectives as pure functions of log-probabilities.

Tensors are named by their axes: B is the batch of queries. Log-probabilities are in nats; every objective returns one
loss per query, and the caller takes the mean.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn.functional import logsigmoid

__all__ = [
    "Reduction",
    "bias",
    "dpo",
    "effect",
    "ipo",
    "margins",
    "mirrored_contrast",
    "mirrored_contrast_logistic",
    "pref_ft",
    "reduce_logprobs",
]

Reduction = Literal["sum", "mean"]


def reduce_logprobs(sums: Tensor, lengths: Tensor, reduction: Reduction) -> Tensor:
    """Turn summed token log-probabilities of responses into the ones an objective sees.

    `sum` is the convention of the papers (arXiv 2305.18290, 2310.12036, 2502.19312); `mean`, per token, is what TRL
    takes for IPO. A beta does not carry over: beta for means is about beta for sums times the response length.

    Args:
        sums: summed log-probabilities, any shape.
        lengths: number of response tokens, same shape, at least 1.
        reduction: `sum` or `mean`.
    """
    return sums if reduction == "sum" else sums / lengths.clamp(min=1)


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


def dpo(margins_B: Tensor, beta: float) -> Tensor:
    """Direct preference optimisation, -log sigmoid(beta h), shape [B] (arXiv 2305.18290, equation 7)."""
    return -logsigmoid(beta * margins_B)


def effect(margins_B: Tensor, mirrored_margins_B: Tensor) -> Tensor:
    """What the labels of the shots do to a pair, e = (h - h')/2, shape [B].

    h' is the margin of the SAME ordered pair (chosen first) under the mirrored shots, whose labels are swapped.
    """
    return (margins_B - mirrored_margins_B) / 2


def bias(margins_B: Tensor, mirrored_margins_B: Tensor) -> Tensor:
    """What the contents of a pair do whatever the labels say, b = (h + h')/2, shape [B]."""
    return (margins_B + mirrored_margins_B) / 2


def mirrored_contrast(
    margins_B: Tensor, mirrored_margins_B: Tensor, *, target: float, bias_weight: float = 0.0
) -> Tensor:
    """Mirrored contrast, (e - c)^2 + w b^2, shape [B], with e and b as in `effect` and `bias`.

    At w = 1 and c = 1/(2 beta) it is the mean of IPO (arXiv 2310.12036, equation 17) on an episode and on its mirror:
    their sum is (e + b - c)^2 + (e - b - c)^2 = 2 (e - c)^2 + 2 b^2. At w = 0 no reference is needed, since the mirror
    is the reference.

    Args:
        margins_B: margins of the pairs under the shots.
        mirrored_margins_B: margins of the same ordered pairs under the mirrored shots.
        target: c, in nats.
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
