"""GPO: a transformer predicts the rewards of new responses from the shots as labelled points in its context."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from fspo.methods.reader import EpisodeBatch, EpisodicReader, EpisodicSettings, Heads, Pairs, TrainingUsers

__all__ = ["Gpo", "GpoSettings", "option_loss"]


class GpoSettings(EpisodicSettings):
    """Settings of GPO."""

    hidden: int = Field(default=128, ge=4, multiple_of=4)
    """Width of the points and of the feed-forward layers."""
    layers: int = Field(default=6, ge=1)
    """Transformer layers."""
    heads: Heads = 4
    """Attention heads; they divide `hidden`."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Of Adam; falls to 0 along a cosine."""


class Gpo(EpisodicReader):
    """Group preference optimization (arXiv 2310.11523) with one user as a group and each pair as a question.

    A point is a response with its share of the choice: the chosen response of a shot has 1, the rejected one 0, a
    response to be scored 0 as a place-holder. Points go through an MLP (four layers) and a transformer without
    positions, in which every point attends to the points of the shots alone. Each target gets a mean and a deviation.
    The means of a query's two responses go through a softmax, and the loss is -log N(share; mean, deviation). The
    reward is the mean before the softmax.

    Three things are ours. A learned point stands in the context, so that users without shots have one too. Norms
    come before each layer, and a linear map stands beside the MLP: without these, a thousand steps learn nothing.
    """

    title = "GPO"
    description = "A transformer reads the shots as labelled points and predicts the rewards of new ones."
    source = "arXiv 2310.11523"
    Settings = GpoSettings

    def __init__(self, settings: GpoSettings, width: int) -> None:
        """Make the layers."""
        super().__init__(settings, width)
        h = settings.hidden
        embed: list[nn.Module] = []
        for size in (width + 1, h, h, h):
            embed += [nn.Linear(size, h), nn.ReLU()]
        self.point, self.straight = nn.Sequential(*embed[:-1]), nn.Linear(width + 1, h)
        layer = nn.TransformerEncoderLayer(h, settings.heads, h, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, settings.layers, enable_nested_tensor=False)
        self.head = nn.Sequential(nn.Linear(h, h), nn.ReLU(), nn.Linear(h, 2))
        self.start = nn.Parameter(torch.zeros(h))

    @classmethod
    def most_shots(cls, settings: Any) -> int | None:
        """Those of its training."""
        return int(settings.shots)

    def fit(self, users: TrainingUsers) -> Mapping[str, float]:
        """Take steps on episodes with a random number of shots."""
        generator = torch.Generator().manual_seed(self.settings.seed)

        def loss(batch: EpisodeBatch, step: int) -> Tensor:
            points = _labelled(batch.shots_chosen, batch.shots_rejected)
            found = self.predict(points, torch.cat([batch.chosen, batch.rejected], dim=1))
            means, raw = torch.stack(found.chunk(2, dim=1), dim=2).unbind(-1)  # [B, q, 2] each
            shares = torch.tensor([1.0, 0.0]).expand_as(means)
            return option_loss(means, raw, shares).mean()

        return {"loss": self.learn(users, generator, loss)}

    def predict(self, context: Tensor, targets: Tensor) -> Tensor:
        """[B, C, 2]: mean and raw deviation of targets [B, C, d], given labelled points [B, n, d + 1]."""
        unlabelled = torch.cat([targets, torch.zeros(*targets.shape[:2], 1)], dim=-1)
        start = self.start.expand(len(targets), 1, -1)
        points = torch.cat([context, unlabelled], dim=1)
        rows = torch.cat([start, self.point(points) + self.straight(points)], dim=1)
        seen = 1 + context.shape[1]
        hidden = torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.bool)
        hidden[:, seen:] = True  # a target reaches its own output along the residual stream
        found: Tensor = self.head(self.layers(rows, mask=hidden)[:, seen:])
        return found

    def adapt(self, shots: Pairs) -> Tensor:
        """[2k, d + 1]: the shots as labelled points."""
        return _labelled(shots.chosen[None], shots.rejected[None])[0]

    def rewards(self, user: Tensor, candidates: Tensor) -> Tensor:
        """[C]: the predicted means."""
        return self.predict(user[None], candidates[None])[0, :, 0]


def option_loss(means: Tensor, raw: Tensor, shares: Tensor) -> Tensor:
    """-log N(share; softmax over options of the mean, 0.05 + 0.95 softplus(raw)), summed over options [..., o]."""
    deviation = 0.05 + 0.95 * nn.functional.softplus(raw)
    squares = ((shares - means.softmax(-1)) / deviation).square()
    return (squares / 2 + deviation.log() + math.log(2 * math.pi) / 2).sum(-1)


def _labelled(chosen: Tensor, rejected: Tensor) -> Tensor:
    """[B, 2k, d + 1]: chosen responses with the label 1, rejected ones with 0."""
    ones, zeros = torch.ones(*chosen.shape[:2], 1), torch.zeros(*chosen.shape[:2], 1)
    return torch.cat([torch.cat([chosen, ones], dim=-1), torch.cat([rejected, zeros], dim=-1)], dim=1)
