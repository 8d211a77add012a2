"""Ridge: a logistic regression on the shots' differences, with a Gaussian prior from the training users."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from fspo.methods.reader import Pairs, Reader, ReaderSettings, TrainingUsers, bradley_terry

__all__ = ["Ridge", "RidgeSettings", "posterior_mode"]


class RidgeSettings(ReaderSettings):
    """Settings of ridge."""

    prior: Literal["population", "none"] = "population"
    """A Gaussian of the training users' weights, or one around 0 that is the same in all directions."""
    user_penalty: float = Field(default=1.0, gt=0)
    """Lambda of the training users' own fits, which the prior is estimated from."""
    strengths: tuple[Annotated[float, Field(gt=0)], ...] = Field(default=(0.03, 0.1, 0.3, 1.0, 3.0, 10.0), min_length=1)
    """Factors of the prior's precision; episodes of the training users choose one."""
    shots: int = Field(default=8, ge=1)
    """Most shots of these episodes."""
    episodes: int = Field(default=64, ge=1)
    """How many of them for each number of shots 1, 2, 4 ... up to `shots`."""


class Ridge(Reader):
    """w = argmin sum over shots log(1 + exp(-w . (x_chosen - x_rejected))) + s/2 (w - m)' P (w - m).

    m and P are mean and precision of the weights that a fit of the same kind gives each training user; the factor s is
    the one with the smallest loss on queries of training users. The choice of this prior is ours. With no shots, w = m.
    """

    title = "Ridge"
    description = "Logistic regression on the shots' differences, with a Gaussian prior from the training users."
    Settings = RidgeSettings
    mean: Tensor
    precision: Tensor

    def __init__(self, settings: RidgeSettings, width: int) -> None:
        """Start with a standard Gaussian."""
        super().__init__(settings, width)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("precision", torch.eye(width))

    def fit(self, users: TrainingUsers) -> Mapping[str, float]:
        """Estimate the prior, and choose its strength."""
        if self.settings.prior == "population":
            own = torch.eye(self.width) * self.settings.user_penalty
            weights = torch.stack(
                [posterior_mode(users.pairs(n).differences, torch.zeros(self.width), own) for n in range(len(users))]
            )
            self.mean.copy_(weights.mean(0))
            centred = (weights - self.mean).double()
            covariance = centred.T @ centred / max(1, len(users) - 1)
            # Directions that no training user differs in keep a small variance, so that the precision is finite.
            least = 1e-2 * covariance.diagonal().mean() + 1e-8
            self.precision.copy_(torch.linalg.inv(covariance + least * torch.eye(self.width)).float())
        losses = {strength: self._loss(users, strength) for strength in self.settings.strengths}
        best = min(losses, key=lambda strength: losses[strength])
        self.precision.mul_(best)
        return {"strength": best, "query_loss": losses[best]}

    def adapt(self, shots: Pairs) -> Tensor:
        """[d]: the most probable weights."""
        return posterior_mode(shots.differences, self.mean, self.precision)

    def rewards(self, user: Tensor, candidates: Tensor) -> Tensor:
        """[C]: w . x."""
        return candidates @ user

    def _loss(self, users: TrainingUsers, strength: float) -> float:
        """Mean loss on queries of training users, the same episodes for every strength."""
        generator = torch.Generator().manual_seed(self.settings.seed)
        found, k = [], 1
        while k <= self.settings.shots:
            batch = users.episodes(generator, users=self.settings.episodes, shots=k, queries=4)
            for place in range(len(batch.users)):
                w = posterior_mode(batch.shots(place).differences, self.mean, self.precision * strength)
                found.append(bradley_terry(batch.chosen[place] @ w, batch.rejected[place] @ w).mean())
            k *= 2
        return float(torch.stack(found).mean())


def posterior_mode(differences: Tensor, mean: Tensor, precision: Tensor, *, steps: int = 30) -> Tensor:
    """[d]: argmin over w of sum log(1 + exp(-D w)) + (w - mean)' precision (w - mean) / 2, by Newton's method.

    The loss is strictly convex; each step is halved until it lowers it.

    Args:
        differences: D [n, d]; n may be 0.
        mean: [d].
        precision: [d, d], positive definite.
        steps: most Newton steps.
    """
    D, mean, precision = differences.double(), mean.double(), precision.double()

    def loss(w: Tensor) -> Tensor:
        return torch.nn.functional.softplus(-(D @ w)).sum() + (w - mean) @ precision @ (w - mean) / 2

    w = mean.clone()
    for _ in range(steps if len(D) else 0):
        wrong = torch.sigmoid(-(D @ w))
        gradient = precision @ (w - mean) - D.T @ wrong
        hessian = precision + (D * (wrong * (1 - wrong))[:, None]).T @ D
        step, before, size = torch.linalg.solve(hessian, gradient), loss(w), 1.0
        while loss(w - size * step) > before and size > 1e-6:
            size /= 2
        w = w - size * step
        if float(step.abs().max()) * size < 1e-7:
            break
    return w.float()
