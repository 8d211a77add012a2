"""PAL: a user's ideal point is a mixture of prototypes, and a response is liked the more, the nearer it lies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from fspo.methods.reader import Pairs, Reader, ReaderSettings, TrainingUsers, bradley_terry, fit_mixture, minimise

__all__ = ["Pal", "PalSettings"]


class PalSettings(ReaderSettings):
    """Settings of PAL."""

    prototypes: int = Field(default=8, ge=1)
    """How many; the paper uses two."""
    space: int = Field(default=64, ge=1)
    """Dimensions of the space of ideal points."""
    loss: Literal["hinge", "logistic"] = "hinge"
    """Of the difference of two distances; the paper's default for ideal points is the hinge."""
    largest_norm: float = Field(default=4.0, gt=0)
    """Prototypes are kept within this length."""
    steps: int = Field(default=400, ge=1)
    """Steps of Adam, each on a random part of the preferences."""
    batch: int = Field(default=1024, ge=1)
    """Preferences of a step."""
    learning_rate: float = Field(default=5e-3, gt=0)
    """Of prototypes, weights and projection; the paper trains the projection with 1e-4, along with a backbone."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Decoupled, as in AdamW."""
    new_user_steps: int = Field(default=100, ge=0)
    """Steps of Adam on the weights of a new user."""
    new_user_learning_rate: float = Field(default=0.05, gt=0)
    """Of these; the paper's 5e-3 is for many more preferences of a user."""


class Pal(Reader):
    """Pluralistic alignment by prototypes, with ideal points (model A; arXiv 2406.08469).

    A response lies at f(x), and a user's ideal point at f(P softmax(w_u)), where the columns of P [d, K] are prototypes
    and f(x) = A x + B relu(C x) is the shared projection. The reward is minus the squared distance, divided by the
    dimensions of the space. P, f and w_u are fitted together on the training users; a new user gets w alone, fitted on
    the shots from w = 0. The paper's projection has two layers with a residual connection; its widths here are ours.
    """

    title = "PAL"
    description = "A user's ideal point is a mixture of prototypes; a new user's weights alone are fitted on the shots."
    source = "arXiv 2406.08469"
    Settings = PalSettings

    def __init__(self, settings: PalSettings, width: int) -> None:
        """Make prototypes and projection."""
        super().__init__(settings, width)
        generator = torch.Generator().manual_seed(settings.seed)
        drawn = torch.randn(width, settings.prototypes, generator=generator)
        self.prototypes = nn.Parameter(drawn / drawn.norm(dim=0) * settings.largest_norm / 2)
        self.straight = nn.Linear(width, settings.space, bias=False)
        last = nn.Linear(settings.space, settings.space)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.bent = nn.Sequential(nn.Linear(width, settings.space), nn.ReLU(), last)

    def fit(self, users: TrainingUsers) -> Mapping[str, float]:
        """Fit prototypes, projection and weights on the training users."""
        settings, pooled = self.settings, users.pooled
        owner = users.owners
        generator = torch.Generator().manual_seed(settings.seed)
        logits = torch.randn(len(users), settings.prototypes, generator=generator).requires_grad_()

        def loss(step: int) -> Tensor:
            rows = torch.randint(0, len(owner), (settings.batch,), generator=generator)
            ideal = self.ideal(logits[owner[rows]].softmax(-1))
            return self._loss(
                *(_nearness(ideal, self.project(side[rows])) for side in (pooled.chosen, pooled.rejected))
            )

        final = minimise(
            [*self.parameters(), logits],
            loss,
            steps=settings.steps,
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
        )
        return {"loss": final, "weight_of_largest": float(logits.detach().softmax(-1).amax(-1).mean())}

    def project(self, features: Tensor) -> Tensor:
        """[..., s]: f of features [..., d]."""
        found: Tensor = self.straight(features) + self.bent(features)
        return found

    def ideal(self, weights: Tensor) -> Tensor:
        """[..., s]: the ideal points of weights [..., K] that sum to 1."""
        lengths = self.prototypes.norm(dim=0, keepdim=True).clamp(min=self.settings.largest_norm)
        return self.project(weights @ (self.prototypes / lengths * self.settings.largest_norm).T)

    def adapt(self, shots: Pairs) -> Tensor:
        """[K]: softmax(w), with w fitted on the shots."""
        sides, settings = [self.project(side).detach() for side in (shots.chosen, shots.rejected)], self.settings
        return fit_mixture(
            settings.prototypes,
            lambda weights: self._loss(*(_nearness(self.ideal(weights), side) for side in sides)),
            steps=settings.new_user_steps if len(shots) else 0,
            learning_rate=settings.new_user_learning_rate,
        )

    def rewards(self, user: Tensor, candidates: Tensor) -> Tensor:
        """[C]: minus the squared distances to the ideal point."""
        return _nearness(self.ideal(user), self.project(candidates))

    def _loss(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        if self.settings.loss == "hinge":
            return nn.functional.relu(1 - (chosen - rejected)).mean()
        return bradley_terry(chosen, rejected).mean()


def _nearness(ideal: Tensor, places: Tensor) -> Tensor:
    """[...]: minus the squared distance, divided by the dimensions of the space."""
    return -(places - ideal).square().mean(-1)
