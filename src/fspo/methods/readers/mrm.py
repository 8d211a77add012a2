"""MRM: a few base rewards, meta-learned so that one step on the shots adapts a user's weights of them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor, nn

from fspo.methods.reader import EpisodeBatch, EpisodicReader, EpisodicSettings, Pairs, TrainingUsers, bradley_terry

__all__ = ["Mrm", "MrmSettings", "adam_step", "robust_weights"]

_EPSILON = 1e-8
"""Of Adam."""


class MrmSettings(EpisodicSettings):
    """Settings of MRM."""

    shots: int = Field(default=8, ge=1)
    """Shots of every episode."""
    heads: int = Field(default=2, ge=1)
    """Base rewards."""
    inner_steps: int = Field(default=1, ge=0)
    """Steps of Adam on a user's weights; 0 adapts nothing."""
    inner_learning_rate: float = Field(default=1e-3, gt=0)
    """Of these steps. One step of the paper's 1e-3 changes a weight by at most 0.0005; see the class."""
    robust_temperature: float = Field(default=0.5, gt=0)
    """Of the weights that users with a larger loss get in the outer loss."""
    users_per_step: int = Field(default=8, ge=2)
    """Episodes of a step."""


class Mrm(EpisodicReader):
    """Meta reward modelling: base rewards are linear in x, a user's reward is their mean weighted by softmax(w).

    Inner loop: Adam on w, from a learned start, on the loss of the shots. Outer loop: Adam through the inner steps on
    the loss L of the queries, each user weighted by sigmoid((L - median) / temperature).

    With the published settings (two heads, one step of 0.001) a weight changes by at most 0.0005, whatever the shots
    say, so this row is all but a reward that knows no user. Before you quote it as a few-shot method, put a row with
    `inner_steps: 0` beside it, and one with a larger `inner_learning_rate`.
    """

    title = "MRM"
    description = "Base rewards whose weights one inner step on the shots adapts, meta-learned."
    Settings = MrmSettings

    def __init__(self, settings: MrmSettings, width: int) -> None:
        """Make heads and the start of the weights."""
        super().__init__(settings, width)
        self.heads = nn.Linear(width, settings.heads, bias=False)
        self.start = nn.Parameter(torch.zeros(settings.heads))

    def fit(self, users: TrainingUsers) -> Mapping[str, float]:
        """Take outer steps."""
        settings, generator = self.settings, torch.Generator().manual_seed(self.settings.seed)

        def loss(batch: EpisodeBatch, step: int) -> Tensor:
            w = self.adapted(self.heads(batch.shots_chosen - batch.shots_rejected), meta=True)
            margins = (self.heads(batch.chosen - batch.rejected) @ w.softmax(-1)[..., None])[..., 0]
            losses = bradley_terry(margins, torch.zeros_like(margins)).mean(1)
            return (robust_weights(losses.detach(), settings.robust_temperature) * losses).sum()

        final = self.learn(users, generator, loss, fewest=None)
        batch = users.episodes(generator, users=64, shots=settings.shots, queries=1)
        with torch.no_grad():
            w = self.adapted(self.heads(batch.shots_chosen - batch.shots_rejected))
            moved = (w.softmax(-1) - self.start.softmax(-1)).abs().amax()
        return {"loss": final, "largest_change_of_a_weight": float(moved)}

    def adapted(self, margins: Tensor, *, meta: bool = False) -> Tensor:
        """[B, H]: w after the inner steps on B users' shots, whose base rewards differ by `margins` [B, k, H].

        `meta`: whether gradients run through the steps, for the outer loop.
        """
        w = self.start.expand(len(margins), -1)
        moments = torch.zeros_like(w), torch.zeros_like(w)
        for step in range(self.settings.inner_steps if margins.shape[1] else 0):
            with torch.enable_grad():
                at = w if meta else w.detach().requires_grad_()
                found = (margins @ at.softmax(-1)[..., None])[..., 0]
                loss = bradley_terry(found, torch.zeros_like(found)).mean(1).sum()
                (gradient,) = torch.autograd.grad(loss, at, create_graph=meta)
            w, moments = adam_step(at, gradient, moments, step + 1, self.settings.inner_learning_rate)
        return w if meta else w.detach()

    def adapt(self, shots: Pairs) -> Tensor:
        """[H]: softmax of the adapted w."""
        return self.adapted(self.heads(shots.differences).detach()[None])[0].softmax(-1)

    def rewards(self, user: Tensor, candidates: Tensor) -> Tensor:
        """[C]."""
        found: Tensor = self.heads(candidates) @ user
        return found


def adam_step(
    w: Tensor, gradient: Tensor, moments: tuple[Tensor, Tensor], step: int, learning_rate: float
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """One step of Adam (Kingma and Ba, arXiv 1412.6980) that gradients can run through; `step` counts from 1."""
    first = 0.9 * moments[0] + 0.1 * gradient
    second = 0.999 * moments[1] + 0.001 * gradient.square()
    # The root has no gradient at 0; the small number below it keeps that finite.
    root = (second / (1 - 0.999**step) + _EPSILON**2).sqrt()
    return w - learning_rate * (first / (1 - 0.9**step)) / (root + _EPSILON), (first, second)


def robust_weights(losses: Tensor, temperature: float) -> Tensor:
    """[B]: sigmoid((L - median L) / temperature)."""
    return torch.sigmoid((losses - losses.median()) / temperature)
