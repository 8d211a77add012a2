"""VPL: a variational encoder of the shots, and a reward model conditioned on its latent."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor, nn

from fspo.methods.reader import EpisodeBatch, EpisodicReader, EpisodicSettings, Pairs, TrainingUsers, bradley_terry

__all__ = ["Vpl", "VplSettings", "annealed", "standard_kl"]

_ACTIVE = 0.01
"""Variance of a latent's mean over users above which the unit counts as active (Burda et al., arXiv 1509.00519)."""
_MEASURED = 256
"""Episodes that the diagnostics are measured on."""


class VplSettings(EpisodicSettings):
    """Settings of VPL."""

    shots: int = Field(default=8, ge=1)
    """Most shots of an episode; every step draws a number from 1 to this."""
    hidden: int = Field(default=512, ge=1)
    """Width of the layers."""
    latent: int = Field(default=512, ge=1)
    """Length of z."""
    kl_weight: float = Field(default=3e-6, ge=0)
    """Weight of the KL divergence to the prior, at the top of its cycle."""
    cycle: int = Field(default=500, ge=1)
    """Steps of one cycle of that weight, from a tenth of it to the whole along a cosine."""
    learning_rate: float = Field(default=3e-4, gt=0)
    """Of Adam; falls to 0 along a cosine."""
    weight_decay: float = Field(default=1e-3, ge=0)
    """Decoupled, as in AdamW."""


class Vpl(EpisodicReader):
    """Variational preference learning (arXiv 2408.10075).

    A shot is [x_chosen; x_rejected] -> MLP; one head of self-attention among the shots, whose mean gives mean and
    log-variance of z, the latter clamped to [-1, 1]. In training z is drawn and scaled to the length sqrt(L); for a new
    user it is the mean. The reward is an MLP of [x; z]. Loss: -log sigmoid of the queries' differences plus
    w KL(q || N(0, I)), with w annealed in cycles. A user without shots has z = 0, the mean of the prior; that is ours.

    The fit reports whether the latent collapsed: the KL divergence, the share of active units, and how much accuracy on
    training users is lost with the latent of another user.
    """

    title = "VPL"
    description = "A variational encoder of the shots conditions the reward; reports whether its latent collapsed."
    source = "arXiv 2408.10075"
    Settings = VplSettings

    def __init__(self, settings: VplSettings, width: int) -> None:
        """Make encoder and decoder."""
        super().__init__(settings, width)
        h, z = settings.hidden, settings.latent
        act = nn.LeakyReLU(0.2)
        self.pair = nn.Sequential(nn.Linear(2 * width, h), act, nn.Linear(h, h), act, nn.Linear(h, z))
        self.query, self.key, self.value = (nn.Linear(z, z) for _ in range(3))
        self.mean, self.log_variance = nn.Linear(z, z), nn.Linear(z, z)
        self.decoder = nn.Sequential(nn.Linear(width + z, h), act, nn.Linear(h, h), act, nn.Linear(h, 1))

    def fit(self, users: TrainingUsers) -> Mapping[str, float]:
        """Take steps on episodes with at least one shot, then look whether the latent is used."""
        settings, generator = self.settings, torch.Generator().manual_seed(self.settings.seed)

        def loss(batch: EpisodeBatch, step: int) -> Tensor:
            mean, log_variance = self.encode(batch.shots_chosen, batch.shots_rejected)
            z = mean + (log_variance / 2).exp() * torch.randn(mean.shape, generator=generator)
            z = nn.functional.normalize(z, dim=-1) * math.sqrt(settings.latent)
            reward_loss = bradley_terry(self.decode(z, batch.chosen), self.decode(z, batch.rejected)).mean()
            weight = settings.kl_weight * annealed(step, settings.cycle)
            total: Tensor = reward_loss + weight * standard_kl(mean, log_variance).mean()
            return total

        final = self.learn(users, generator, loss, fewest=1)
        batch = users.episodes(generator, users=_MEASURED, shots=settings.shots, queries=settings.queries)
        return {"loss": final, **self.collapse(batch)}

    @torch.no_grad()
    def collapse(self, batch: EpisodeBatch) -> dict[str, float]:
        """`kl` in nats, `active_units` (share), `latent_use` (accuracy lost with the latent of the next user)."""
        mean, log_variance = self.encode(batch.shots_chosen, batch.shots_rejected)
        own, other = (
            float((self.decode(z, batch.chosen) > self.decode(z, batch.rejected)).float().mean())
            for z in (mean, mean.roll(1, 0))
        )
        return {
            "kl": float(standard_kl(mean, log_variance).mean()),
            "active_units": float((mean.var(0) > _ACTIVE).float().mean()),
            "latent_use": own - other,
        }

    def encode(self, chosen: Tensor, rejected: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance [B, L] from B users' pairs [B, k, d], k at least 1."""
        pairs = self.pair(torch.cat([chosen, rejected], dim=-1))
        scores = self.query(pairs) @ self.key(pairs).mT / math.sqrt(pairs.shape[-1])
        pooled = (scores.softmax(-1) @ self.value(pairs)).mean(1)
        return self.mean(pooled), self.log_variance(pooled).clamp(-1, 1)

    def decode(self, users: Tensor, responses: Tensor) -> Tensor:
        """[B, C]: rewards of responses [B, C, d] for latents [B, L]."""
        beside = users[:, None].expand(*responses.shape[:2], users.shape[-1])
        found: Tensor = self.decoder(torch.cat([responses, beside], dim=-1))[..., 0]
        return found

    def adapt(self, shots: Pairs) -> Tensor:
        """[L]: the mean of z."""
        if not len(shots):
            return torch.zeros(self.settings.latent)
        return self.encode(shots.chosen[None], shots.rejected[None])[0][0]

    def rewards(self, user: Tensor, candidates: Tensor) -> Tensor:
        """[C]."""
        return self.decode(user[None], candidates[None])[0]


def annealed(step: int, cycle: int) -> float:
    """The factor of the KL weight: 0.1 at the start of each cycle, 1 at its end, along half a cosine."""
    return 0.1 + 0.9 * (1 - math.cos(math.pi * (step % cycle) / cycle)) / 2


def standard_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """[...]: KL(N(mean, exp(log_variance)) || N(0, I)) in nats, summed over the last dimension."""
    return (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1) / 2
