"""What a policy makes of whole episodes outside a training step."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import torch

from fspo.training.config import TrainingConfig
from fspo.training.losses import Reference, figures, score
from fspo.training.steps import Unit

__all__ = ["mean_figures", "means"]


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
