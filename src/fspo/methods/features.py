"""From embeddings to features: centred, and whitened along the directions in which responses to one question differ."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["FeatureSpace"]

_RIDGE = 1e-3
"""Added to the variances, relative to their mean over the directions that are kept."""


class FeatureSpace(nn.Module):
    """x = (e - mean) V / sqrt(variance + ridge): V are the leading principal directions within questions.

    What all responses to one question share changes no preference between them, so the mean of each question's
    responses is removed before the directions are found. Rewards that are linear in x are whitened ones in e.
    """

    mean: Tensor
    projection: Tensor

    def __init__(self, embedding_width: int, components: int) -> None:
        """Hold place for the statistics; see `fit`."""
        super().__init__()
        self.register_buffer("mean", torch.zeros(embedding_width))
        self.register_buffer("projection", torch.zeros(embedding_width, components))

    @classmethod
    def fit(cls, embeddings: Tensor, questions: Sequence[str], components: int) -> FeatureSpace:
        """The space of these embeddings [R, e], each a response to the question of that name.

        It has at most `components` directions, and no more than the responses vary in.
        """
        numbers = {name: number for number, name in enumerate(dict.fromkeys(questions))}
        place = torch.tensor([numbers[name] for name in questions])
        rows = embeddings.double()
        sums = torch.zeros(len(numbers), rows.shape[1], dtype=torch.float64).index_add_(0, place, rows)
        counts = torch.bincount(place, minlength=len(numbers))
        within = rows - (sums / counts[:, None])[place]
        freedom = max(1, len(questions) - len(numbers))
        values, vectors = torch.linalg.eigh(within.T @ within / freedom)
        kept = min(components, freedom, rows.shape[1])
        values, vectors = values.flip(0)[:kept].clamp(min=0), vectors.flip(1)[:, :kept]
        scale = (values + _RIDGE * values.mean() + torch.finfo(torch.float32).tiny).rsqrt()
        # The sign of an eigenvector is arbitrary: the largest entry is made positive.
        signs = torch.sign(vectors.gather(0, vectors.abs().argmax(0, keepdim=True)))
        space = cls(rows.shape[1], kept)
        space.mean.copy_(rows.mean(0))
        space.projection.copy_(vectors * signs * scale)
        return space

    def forward(self, embeddings: Tensor) -> Tensor:
        """[..., d]: the features of embeddings [..., e]."""
        return (embeddings - self.mean) @ self.projection
