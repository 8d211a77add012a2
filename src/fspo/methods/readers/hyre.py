"""HyRe: many reward heads of the population that disagree, reweighted by how well they explain the shots."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor, nn

from fspo.methods.reader import Pairs, Reader, ReaderSettings, TrainingUsers, bradley_terry, minimise

__all__ = ["Hyre", "HyreSettings"]


class HyreSettings(ReaderSettings):
    """Settings of HyRe."""

    heads: int = Field(default=100, ge=1)
    """Reward heads."""
    prior_scale: float = Field(default=0.3, ge=0)
    """Standard deviation of the entries of the fixed random priors."""
    temperature: float = Field(default=1.0, gt=0)
    """Divides the losses of the shots in the weights of the heads."""
    steps: int = Field(default=300, ge=1)
    """Steps of Adam, each on a random part of the preferences."""
    batch: int = Field(default=256, ge=1)
    """Preferences of a step, drawn for each head alone."""
    learning_rate: float = Field(default=3e-3, gt=0)
    """Falls to 0 along a cosine."""


class Hyre(Reader):
    """Hypothesis reweighting (arXiv 2412.08812), with linear heads on frozen features.

    Head h has the reward (w_h + p_h) . x, where p_h is drawn once and stays, and w_h is fitted on the preferences of
    all training users together; each head draws its own. For a new user the weight of head h is softmax(-loss of h on
    the shots / temperature), so that a user without shots has the mean of all heads. The heads differ only where the
    pooled preferences leave the reward open. Where training users contradict one another, all heads learn the mean.
    """

    title = "HyRe"
    description = "An ensemble of population rewards with random priors, reweighted by their losses on the shots."
    source = "arXiv 2412.08812"
    Settings = HyreSettings
    priors: Tensor

    def __init__(self, settings: HyreSettings, width: int) -> None:
        """Draw the priors."""
        super().__init__(settings, width)
        generator = torch.Generator().manual_seed(settings.seed)
        drawn = torch.randn(settings.heads, width, generator=generator)
        self.register_buffer("priors", drawn * settings.prior_scale)
        self.heads = nn.Parameter(torch.zeros(settings.heads, width))

    def fit(self, users: TrainingUsers) -> Mapping[str, float]:
        """Fit all heads on the pooled preferences."""
        settings, pooled = self.settings, users.pooled.differences
        generator = torch.Generator().manual_seed(settings.seed)

        def loss(step: int) -> Tensor:
            rows = torch.randint(0, len(pooled), (settings.heads, settings.batch), generator=generator)
            margins = (pooled[rows] * (self.heads + self.priors)[:, None]).sum(-1)
            return bradley_terry(margins, torch.zeros_like(margins)).mean(1).sum()

        final = minimise([self.heads], loss, steps=settings.steps, learning_rate=settings.learning_rate, clip=1e9)
        with torch.no_grad():
            votes = (pooled @ (self.heads + self.priors).T > 0).float().mean(1)
            agreement = float((2 * votes - 1).abs().mean())
        return {"loss": final / settings.heads, "agreement_of_heads": agreement}

    def adapt(self, shots: Pairs) -> Tensor:
        """[H]: the weights of the heads."""
        margins = shots.differences @ (self.heads.detach() + self.priors).T
        losses = bradley_terry(margins, torch.zeros_like(margins)).sum(0)
        weights: Tensor = (-losses / self.settings.temperature).softmax(-1)
        return weights

    def rewards(self, user: Tensor, candidates: Tensor) -> Tensor:
        """[C]: the weighted mean of the heads."""
        return candidates @ ((self.heads + self.priors).T @ user)
