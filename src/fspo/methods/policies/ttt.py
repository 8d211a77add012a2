"""Per-user test-time training: a few steps of a preference objective on the user's shots, thrown away afterwards.

A design of this project. From the k shots of a user, pairs are made that the user's small weights (low-rank adapters,
or factors on the norms) learn from:

- `prefix`: shot i after the shots before it, i = 1 .. k, all in one pass over the conversation;
- `leave-one-out`: each shot after the k - 1 others, k conversations;
- `bare`: each shot's pair without any shot.

With h = [log pi(y_w) - log pi_0(y_w)] - [log pi(y_l) - log pi_0(y_l)] of such a pair, where pi_0 is the shared policy
in the same context, the loss of a step is the mean over the pairs of -log sigmoid(beta h) (DPO, arXiv 2305.18290,
equation 7) or (h - 1/(2 beta))^2 (IPO, arXiv 2310.12036, equation 17), plus `pull` times the squared distance from the
start. Afterwards the model answers with the shots in its context, as without training: `few-shot`, or the method that
`start` names, is the same policy at the same data, and the difference to it is what the steps are worth.

With `mirror` every pair also counts under the mirrored context with the opposite label. The user and the mirrored user
then learn the same weights, so that these can only teach to follow the labels, and never hold a taste.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from fspo.methods.adaptation import Adaptation, AdaptationInput, AdaptationSettings, AdaptationWork, UserState
from fspo.methods.method import Method
from fspo.preferences.types import Episode, Preference

if TYPE_CHECKING:
    from torch import Tensor

    from fspo.methods.user_weights import UserWeights
    from fspo.modeling.rendering import Context, EpisodeRenderer, TokenizedEpisode

__all__ = ["ROWS", "TestTimeTraining", "TestTimeTrainingSettings"]


class TestTimeTrainingSettings(AdaptationSettings):
    """Settings of per-user test-time training."""

    __test__: ClassVar[bool] = False  # the name begins like that of a test

    steps: int = Field(default=5, ge=0)
    """Steps of Adam for each user; 0 leaves the shared policy with the shots in its context."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Of Adam."""
    episodes: Literal["prefix", "leave-one-out", "bare"] = "prefix"
    """What stands before each shot that is learned from: the shots before it, all others, or none. `leave-one-out`
    takes about k/2 times as long."""
    objective: Literal["dpo", "ipo"] = "dpo"
    """The loss of a pair."""
    beta: float = Field(default=0.1, gt=0)
    """Scale of the reward in the loss."""
    mirror: bool = False
    """Whether each pair also counts under the mirrored shots, with the opposite label. User and mirrored user then get
    the same weights."""
    weights: Literal["low-rank", "norms"] = "low-rank"
    """What learns: low-rank adapters on the linear layers, or factors on the norms."""
    rank: int = Field(default=4, ge=1)
    """Of low-rank adapters."""
    alpha: float = Field(default=8.0, gt=0)
    """The output of low-rank adapters is scaled by alpha / rank."""
    last_layers: int | None = Field(default=None, ge=1)
    """Only so many of the last layers learn; the backward pass stops below them."""
    pull: float = Field(default=0.0, ge=0)
    """Weight of the squared distance from the shared policy."""


class TestTimeTraining(Adaptation):
    """A few gradient steps on the user's shots."""

    __test__: ClassVar[bool] = False

    Settings = TestTimeTrainingSettings
    in_context: ClassVar[Context] = "shots"

    def prepare(self) -> None:
        """Find the places of the user's weights.

        Raises:
            ConfigError: the model has fewer layers than the settings say, or no norms.
        """
        from fspo.methods.user_weights import LowRank, NormScales

        own, last = self.settings, self.settings.last_layers
        self.places: UserWeights = (
            LowRank(self.model, rank=own.rank, alpha=own.alpha, last_layers=last)
            if own.weights == "low-rank"
            else NormScales(self.model, last_layers=last)
        )

    def adapt(self, shots: Sequence[Preference]) -> UserState:
        """The user's weights after the steps."""
        import torch

        from fspo.methods.user_weights import take_steps

        settings = self.settings
        start = self.places.start(torch.Generator().manual_seed(settings.seed))
        if not settings.steps:
            return UserState()
        return UserState(take_steps(start, self.loss(shots), steps=settings.steps, rate=settings.learning_rate))

    @classmethod
    def work(cls, given: AdaptationInput) -> AdaptationWork:
        """Every step reads all pairs; the shared policy reads them once."""
        if not given.settings.steps:
            return AdaptationWork()
        tokens = sum(one.tokens for one in _learned_from(given.settings, given.renderer, given.shots))
        return AdaptationWork(tokens, given.settings.steps * tokens)

    @contextmanager
    def using(self, state: UserState) -> Iterator[EpisodeRenderer]:
        """Lay the user's weights over the model."""
        with self.places.on(state.tensors):
            yield self.renderer

    def loss(self, shots: Sequence[Preference]) -> Callable[[Mapping[str, Tensor], int], Tensor]:
        """The loss of the user's weights on these shots, as a function of the weights and the number of the step."""
        import torch

        from fspo.methods.user_weights import pair_margins

        shown = _learned_from(self.settings, self.renderer, shots)
        with torch.no_grad():
            before = pair_margins(self.model, shown)

        def loss(weights: Mapping[str, Tensor], _: int) -> Tensor:
            with self.places.on(weights):
                margins = pair_margins(self.model, shown) - before
            far: Tensor = self.settings.pull * self.places.distance(weights)
            return self._losses(margins).mean() + far

        return loss

    def episodes(self, shots: Sequence[Preference]) -> list[TokenizedEpisode]:
        """The pairs that are learned from, each after the shots before it, all others, or none."""
        return _pairs(self.settings, self.renderer, shots)

    def _losses(self, margins: Tensor) -> Tensor:
        from fspo.training import objectives

        if self.settings.objective == "ipo":
            return objectives.ipo(margins, self.settings.beta)
        return objectives.dpo(margins, self.settings.beta)


def _learned_from(
    settings: TestTimeTrainingSettings, renderer: EpisodeRenderer, shots: Sequence[Preference]
) -> list[TokenizedEpisode]:
    """All pairs that are learned from, those under the mirrored shots too."""
    shown = _pairs(settings, renderer, shots)
    return shown + (_pairs(settings, renderer, [shot.swap() for shot in shots]) if settings.mirror else [])


def _pairs(
    settings: TestTimeTrainingSettings, renderer: EpisodeRenderer, shots: Sequence[Preference]
) -> list[TokenizedEpisode]:
    """The pair of each shot, after the shots before it, all others, or none."""
    own = tuple(shots)
    if settings.episodes == "leave-one-out":
        return [renderer.render(Episode("", own[:place] + own[place + 1 :], (shot,))) for place, shot in enumerate(own)]
    if settings.episodes == "bare":
        return [renderer.render(Episode("", (), own))]
    whole = renderer.render(Episode("", own[:-1], own), shots=range(len(own)))
    # The oldest shots may have no room; what came before them then stands without context.
    kept = {query: max(0, query - whole.dropped_shots) for query in range(len(own))}
    branches = tuple(branch for branch in whole.branches if branch.shots == kept[branch.query])
    return [replace(whole, branches=branches)]


ROWS = (
    Method(
        "ttt",
        "Test-time training",
        "shots",
        (),
        None,
        "start",
        "A few gradient steps on the user's own shots, which also stand in the context; thrown away afterwards.",
        adaptation=TestTimeTraining,
    ),
)
