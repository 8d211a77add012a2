"""NP-BTL: a neural process encodes the shots, and a Bradley-Terry reward model is conditioned on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from pydantic import Field
from torch import Tensor, nn

from fspo.methods.reader import (
    EpisodeBatch,
    EpisodicReader,
    EpisodicSettings,
    Heads,
    Pairs,
    TrainingUsers,
    bradley_terry,
)

__all__ = ["NpBtl", "NpBtlSettings", "PairEncoder", "encode_pairs", "gaussian_kl"]


class NpBtlSettings(EpisodicSettings):
    """Settings of NP-BTL."""

    learning_rate: float = Field(default=3e-4, gt=0)
    """Of Adam; falls to 0 along a cosine. The shots are summed, so larger rates train badly."""
    hidden: int = Field(default=256, ge=8, multiple_of=8)
    """Width of the encodings of pairs, users and responses."""
    heads: Heads = 8
    """Heads of the attention among the shots; they divide `hidden`."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Of the attention, in training."""
    beta_kl: float = Field(default=0.0, ge=0)
    """Weight of the KL divergence; 0: the latent is a point, as in the paper's runs on text."""


class NpBtl(EpisodicReader):
    """The neural process of few-shot steerable alignment (arXiv 2412.13998), with its Bradley-Terry reward.

    A shot is [x_chosen; x_rejected] -> linear -> self-attention among the shots; their sum -> MLP -> z. The reward is
    an MLP of [encoding of x; z]. Loss: -log sigmoid of the queries' differences, and with `beta_kl` the divergence
    beta KL(q(z | shots) || q(z | queries)), where q is Gaussian and z is drawn in training. The decoder here has no
    batch normalisation, which would let the queries of a batch see one another. Since the shots are summed, it takes
    no more of them than it was trained on.
    """

    title = "NP-BTL"
    description = "A neural process over the shots conditions a Bradley-Terry reward."
    source = "arXiv 2412.13998"
    Settings = NpBtlSettings

    def __init__(self, settings: NpBtlSettings, width: int) -> None:
        """Make the encoders and the decoder."""
        super().__init__(settings, width)
        h = settings.hidden
        self.pair = nn.Linear(2 * width, h)
        self.attention = nn.MultiheadAttention(h, settings.heads, settings.dropout, batch_first=True)
        self.latent = nn.Sequential(nn.Linear(h, h), nn.ReLU(), nn.Linear(h, 2 * h if settings.beta_kl else h))
        self.response = nn.Sequential(nn.Linear(width, h), nn.ReLU(), nn.Linear(h, h))
        self.decoder = nn.Sequential(nn.Linear(2 * h, h), nn.ReLU(), nn.Linear(h, 1))

    @classmethod
    def most_shots(cls, settings: Any) -> int | None:
        """Those of its training."""
        return int(settings.shots)

    def fit(self, users: TrainingUsers) -> Mapping[str, float]:
        """Take steps on episodes with a random number of shots."""
        settings, generator = self.settings, torch.Generator().manual_seed(self.settings.seed)
        self.train()

        def loss(batch: EpisodeBatch, step: int) -> Tensor:
            encoded = self.encode(batch.shots_chosen, batch.shots_rejected)
            divergence = torch.zeros(())
            if settings.beta_kl:
                divergence = gaussian_kl(encoded, self.encode(batch.chosen, batch.rejected)).mean()
                mean, log_variance = encoded.chunk(2, dim=-1)
                encoded = mean + torch.randn(mean.shape, generator=generator) * (log_variance / 2).exp()
            margins = bradley_terry(self.decode(encoded, batch.chosen), self.decode(encoded, batch.rejected))
            total: Tensor = margins.mean() + settings.beta_kl * divergence
            return total

        return {"loss": self.learn(users, generator, loss)}

    def encode(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        """[B, h] from B users' pairs [B, k, d]: z, or mean and log-variance of a Gaussian side by side."""
        return encode_pairs(self, chosen, rejected)

    def decode(self, users: Tensor, responses: Tensor) -> Tensor:
        """[B, C]: rewards of responses [B, C, d] for users [B, h]."""
        encoded = self.response(responses)
        beside = users[:, None].expand(*encoded.shape[:2], users.shape[-1])
        found: Tensor = self.decoder(torch.cat([encoded, beside], dim=-1))[..., 0]
        return found

    def adapt(self, shots: Pairs) -> Tensor:
        """[h]: z, or its mean."""
        encoded = self.encode(shots.chosen[None], shots.rejected[None])[0]
        return encoded.chunk(2)[0] if self.settings.beta_kl else encoded

    def rewards(self, user: Tensor, candidates: Tensor) -> Tensor:
        """[C]."""
        return self.decode(user[None], candidates[None])[0]


class PairEncoder(Protocol):
    """The weights of a neural process over pairs."""

    pair: nn.Linear
    attention: nn.MultiheadAttention
    latent: nn.Sequential


def encode_pairs(encoder: PairEncoder, chosen: Tensor, rejected: Tensor) -> Tensor:
    """[B, h] from pairs [B, k, d]: each pair [x_chosen; x_rejected] -> linear -> attention among them; sum -> MLP."""
    pairs = encoder.pair(torch.cat([chosen, rejected], dim=-1))
    if pairs.shape[1]:
        pairs, _ = encoder.attention(pairs, pairs, pairs, need_weights=False)
    found: Tensor = encoder.latent(pairs.sum(1))
    return found


def gaussian_kl(first: Tensor, second: Tensor) -> Tensor:
    """[...]: KL(N1 || N2) in nats of diagonal Gaussians, each given as mean and log-variance side by side [..., 2h].

    The sum over dimensions of (v1 / v2 + (m1 - m2)^2 / v2 - 1 + log v2 - log v1) / 2.
    """
    (m1, l1), (m2, l2) = first.chunk(2, dim=-1), second.chunk(2, dim=-1)
    terms = (l1 - l2).exp() + (m1 - m2).square() * (-l2).exp() - 1 + l2 - l1
    return terms.sum(-1) / 2
