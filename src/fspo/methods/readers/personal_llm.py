"""PersonalLLM's retrieval: the preferences of similar training users help with those of a new one."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor

from fspo.methods.reader import Pairs, Reader, ReaderSettings, TrainingUsers

__all__ = ["PersonalLlm", "PersonalLlmSettings"]


class PersonalLlmSettings(ReaderSettings):
    """Settings of the retrieval."""

    neighbours: int = Field(default=8, ge=1)
    """Similar users that are retrieved."""
    own: float = Field(default=8.0, ge=0)
    """Preferences of the retrieved users, taken together, count as so many of the user's own."""


class PersonalLlm(Reader):
    """Retrieval over similar users, as in the meta-learning baseline of PersonalLLM (arXiv 2409.20296).

    A user is the mean of chosen minus rejected over the preferences that are known, and training users with the largest
    cosines are retrieved. The paper puts their preferences into a prompt; here they are averaged, weighted by the
    cosine, and added to the user's own mean, which the more counts the more shots there are. That reading is ours. A
    user without shots retrieves all training users.
    """

    title = "PersonalLLM retrieval"
    description = "The mean differences of similar training users are added to that of the user's shots."
    source = "arXiv 2409.20296"
    Settings = PersonalLlmSettings
    library: Tensor

    def __init__(self, settings: PersonalLlmSettings, width: int) -> None:
        """Hold place for the training users."""
        super().__init__(settings, width)
        self.register_buffer("library", torch.zeros(0, width))

    def fit(self, users: TrainingUsers) -> Mapping[str, float]:
        """Store the mean difference of every training user."""
        self.library = torch.stack([users.pairs(place).differences.mean(0) for place in range(len(users))])
        return {"users": float(len(users))}

    def adapt(self, shots: Pairs) -> Tensor:
        """[d]: the direction of the reward."""
        if not len(shots):
            return self.library.mean(0)
        own = shots.differences.mean(0)
        cosines = torch.cosine_similarity(self.library, own[None], dim=1)
        best = cosines.topk(min(self.settings.neighbours, len(self.library)))
        weights = best.values.clamp(min=0)
        others = (weights[:, None] * self.library[best.indices]).sum(0) / weights.sum().clamp(min=1e-9)
        known = len(shots) / (len(shots) + self.settings.own)
        direction: Tensor = known * own + (1 - known) * others
        return direction

    def rewards(self, user: Tensor, candidates: Tensor) -> Tensor:
        """[C]: the product with the direction."""
        return candidates @ user
