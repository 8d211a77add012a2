"""ASLS: adapters of each user, tuned lightly and continually from the user's interactions (arXiv 2409.16973).

The source describes two parts beside a shared model: a profile of the user, and continual light fine-tuning from
interactions, so that the model follows the user over time. It has no code, and leaves undefined what the profile holds
and how it acts, the loss, the size and the number of the updates, what is done against forgetting, and its measures.

Defined here is therefore only the second part, with these choices of ours. Every user has low-rank adapters over the
shared policy. An interaction is a shot. They come one by one, oldest first; after each of them a few steps of a fresh
Adam are taken on it and on `replay` interactions before it, with DPO against the shared policy (arXiv 2305.18290,
equation 7) or the likelihood of the chosen response. Nothing of the user stands in the context: all that the policy
knows of the user is in the adapters. The state after k shots is the state after k - 1 shots, tuned on.

In contrast to `ttt`, the order matters, an interaction is not seen again after `replay` others, and the last ones weigh
most: without replay a user whose taste has changed is followed, and one whose interactions contradict each other is
taken for the last of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from fspo.methods.adaptation import Adaptation, AdaptationInput, AdaptationSettings, AdaptationWork, UserState
from fspo.methods.method import Method
from fspo.preferences.types import Episode, Preference

if TYPE_CHECKING:
    from torch import Tensor

    from fspo.modeling.rendering import EpisodeRenderer, TokenizedEpisode

__all__ = ["ROWS", "ContinualAdapters", "ContinualAdaptersSettings"]


class ContinualAdaptersSettings(AdaptationSettings):
    """Settings of continual adapters."""

    objective: Literal["dpo", "pref-ft"] = "dpo"
    """The loss of an interaction: the preference, or the likelihood of the chosen response per token."""
    beta: float = Field(default=0.1, gt=0)
    """dpo: scale of the reward in the loss."""
    steps: int = Field(default=2, ge=1)
    """Steps of Adam after each interaction."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Of Adam."""
    replay: int = Field(default=0, ge=0)
    """Earlier interactions that are seen again with each new one; without any, the last ones weigh most."""
    rank: int = Field(default=4, ge=1)
    """Of the adapters."""
    alpha: float = Field(default=8.0, gt=0)
    """The output of the adapters is scaled by alpha / rank."""
    last_layers: int | None = Field(default=None, ge=1)
    """Adapters on so many of the last layers only; the backward pass stops below them."""


class ContinualAdapters(Adaptation):
    """Adapters of each user, tuned on one interaction after the other."""

    Settings = ContinualAdaptersSettings
    continues: ClassVar[bool] = True

    def prepare(self) -> None:
        """Find the places of the adapters.

        Raises:
            ConfigError: the model has fewer layers than the settings say.
        """
        from fspo.methods.user_weights import LowRank

        own = self.settings
        self.places = LowRank(self.model, rank=own.rank, alpha=own.alpha, last_layers=own.last_layers)

    def adapt(self, shots: Sequence[Preference]) -> UserState:
        """The adapters after the last interaction, tuned on from those before it."""
        import torch

        from fspo.methods.user_weights import take_steps

        settings, before = self.settings, self.state(shots[:-1]).tensors
        weights = before or self.places.start(torch.Generator().manual_seed(settings.seed))
        loss = self.loss(_learned_from(settings, shots))
        return UserState(take_steps(weights, loss, steps=settings.steps, rate=settings.learning_rate))

    @classmethod
    def work(cls, given: AdaptationInput) -> AdaptationWork:
        """Every step reads the last interaction and those replayed; the shared policy reads them once."""
        tokens = _shown(given.renderer, _learned_from(given.settings, given.shots)).tokens
        return AdaptationWork(tokens, given.settings.steps * tokens)

    def loss(self, interactions: Sequence[Preference]) -> Callable[[Mapping[str, Tensor], int], Tensor]:
        """The mean loss of interactions as a function of the user's weights."""
        import torch

        from fspo.modeling.logprobs import branch_logprobs
        from fspo.training import objectives

        model, settings = self.model, self.settings
        shown = _shown(self.renderer, interactions)
        with torch.no_grad():
            (shared,) = branch_logprobs(model, [shown])

        def loss(weights: Mapping[str, Tensor], _: int) -> Tensor:
            with self.places.on(weights):
                (scored,) = branch_logprobs(model, [shown])
            if settings.objective == "pref-ft":
                return objectives.pref_ft(scored.means[:, 0]).mean()
            margins = objectives.margins(*scored.sums.unbind(1), *shared.sums.unbind(1))
            return objectives.dpo(margins, settings.beta).mean()

        return loss

    @contextmanager
    def using(self, state: UserState) -> Iterator[EpisodeRenderer]:
        """Lay the user's adapters over the model."""
        with self.places.on(state.tensors):
            yield self.renderer


def _learned_from(settings: ContinualAdaptersSettings, shots: Sequence[Preference]) -> Sequence[Preference]:
    """The last interaction, and those that are seen again with it."""
    return shots[-1 - settings.replay :]


def _shown(renderer: EpisodeRenderer, interactions: Sequence[Preference]) -> TokenizedEpisode:
    return renderer.render(Episode("", (), tuple(interactions)))


ROWS = (
    Method(
        "asls",
        "ASLS, continual adapters",
        "shots",
        (),
        None,
        "start",
        "Adapters of each user over the shared policy, tuned lightly on one shot after the other, which are then gone.",
        adaptation=ContinualAdapters,
    ),
)
