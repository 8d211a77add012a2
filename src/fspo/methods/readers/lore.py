"""LoRe: rewards in a low-rank basis that all users share; a new user gets weights of the basis alone."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor, nn

from fspo.methods.reader import Pairs, Reader, ReaderSettings, TrainingUsers, bradley_terry, fit_mixture, minimise

__all__ = ["Lore", "LoreSettings"]


class LoreSettings(ReaderSettings):
    """Settings of LoRe."""

    rank: int = Field(default=16, ge=1)
    """Reward functions in the basis."""
    temperature: float = Field(default=1.0, gt=0)
    """Divides rewards; the paper divides embeddings of a reward model by 100, and features here have variance 1."""
    steps: int = Field(default=500, ge=1)
    """Steps of Adam on basis and weights together."""
    learning_rate: float = Field(default=0.05, gt=0)
    """Of these; the paper's 0.5 is for embeddings that are not whitened."""
    regularisation: float = Field(default=1e-3, ge=0)
    """Weight of the squared entries of the basis."""
    new_user_steps: int = Field(default=100, ge=0)
    """Steps of Adam on the weights of a new user."""
    new_user_learning_rate: float = Field(default=0.1, gt=0)
    """Of these."""


class Lore(Reader):
    """Low-rank reward modelling (arXiv 2504.14439).

    The logit of a pair is (x_chosen - x_rejected) V softmax(w_u) / temperature: V [d, K] is shared, w_u [K] is the
    user's. Both are fitted together on the training users, with the loss averaged per user. A new user gets w alone,
    fitted on the shots from w = 0, so that one without shots has the mean of the basis. Where the paper pulls V towards
    a reward model's last layer, there is none here, and V is pulled towards 0.
    """

    title = "LoRe"
    description = "Rewards in a low-rank basis shared by all users; a new user's weights alone are fitted on the shots."
    source = "arXiv 2504.14439"
    Settings = LoreSettings

    def __init__(self, settings: LoreSettings, width: int) -> None:
        """Make a basis."""
        super().__init__(settings, width)
        generator = torch.Generator().manual_seed(settings.seed)
        self.basis = nn.Parameter(torch.randn(width, settings.rank, generator=generator) * 0.1)

    def fit(self, users: TrainingUsers) -> Mapping[str, float]:
        """Fit basis and weights on all preferences of the training users."""
        settings, pooled = self.settings, users.pooled.differences
        owner = users.owners
        share = 1 / (torch.bincount(owner).float()[owner] * len(users))
        generator = torch.Generator().manual_seed(settings.seed)
        logits = torch.randn(len(users), settings.rank, generator=generator).requires_grad_()

        def loss(step: int) -> Tensor:
            margins = ((pooled @ self.basis) * logits.softmax(-1)[owner]).sum(-1) / settings.temperature
            fitted = (bradley_terry(margins, torch.zeros_like(margins)) * share).sum()
            total: Tensor = fitted + settings.regularisation * self.basis.square().sum()
            return total

        final = minimise([self.basis, logits], loss, steps=settings.steps, learning_rate=settings.learning_rate)
        return {"loss": final, "weight_of_largest": float(logits.detach().softmax(-1).amax(-1).mean())}

    def adapt(self, shots: Pairs) -> Tensor:
        """[K]: softmax(w), with w fitted on the shots."""
        inputs = (shots.differences @ self.basis.detach()) / self.settings.temperature
        zeros, settings = torch.zeros(len(shots)), self.settings
        return fit_mixture(
            settings.rank,
            lambda weights: bradley_terry(inputs @ weights, zeros).mean(),
            steps=settings.new_user_steps if len(shots) else 0,
            learning_rate=settings.new_user_learning_rate,
        )

    def rewards(self, user: Tensor, candidates: Tensor) -> Tensor:
        """[C]: x V softmax(w)."""
        return candidates @ self.basis @ user
