"""P-RLHF: soft tokens of each user in front of the prompt, learned together with the policy (arXiv 2402.05133).

A user model gives every user T soft tokens e_u. The generic user, of whom nothing is known, has e_0.

- `individual`: e_u = e_0 + o_u, with an offset o_u [T, d] for each training user;
- `clusters`: e_u = e_0 + sum over k of softmax(w_u)_k c_k, with K shared offsets c_k [T, d] and K weights of each user.

The policy (low-rank adapters) and the user model learn together by P-DPO: for a pair of user u it is

    alpha * -log sigmoid(beta h(e_u)) + (1 - alpha) * -log sigmoid(beta h(e_0)),
    h(e) = [log pi(y_w | e, x) - log pi_0(y_w | x)] - [log pi(y_l | e, x) - log pi_0(y_l | x)],

with pi_0 the model that training starts from, without soft tokens. For a user who was not in the training the paper
falls back to e_0. Its natural extension, which is ours: model, adapters, e_0 and c_k stay as they are, and o_u (or w_u)
alone is fitted on the shots by the first term; `fit_steps: 0` is the paper's fallback. The model reads no shots.

The paper leaves open, and we chose: soft tokens start at the embeddings of random tokens, offsets at 0 (c_k at random
ones of a tenth of the embeddings' spread); cluster weights are a softmax; one learning rate for all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from fspo.methods.adaptation import Adaptation, AdaptationInput, AdaptationSettings, AdaptationWork, UserState
from fspo.methods.method import Job, Method, train_once
from fspo.modeling.virtual_tokens import first_virtual_id, virtual_tokens
from fspo.preferences.types import Episode, Preference
from fspo.training.companion import COMPANION, Companion
from fspo.training.config import Needs, TrainingConfig

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from fspo.modeling.rendering import EpisodeRenderer
    from fspo.training.steps import StepCollator, Unit

__all__ = ["ROWS", "SoftTokens", "SoftTokensSettings", "SoftTokensTraining", "UserTokens", "user_table"]


class SoftTokensTraining(TrainingConfig):
    """How P-RLHF is trained."""

    needs: ClassVar[Needs] = {
        **TrainingConfig.needs,
        "clusters": ("users clusters", lambda config: config.users == "clusters"),
    }

    reference: Literal["shots", "none"] = Field(
        default="none", description="The reference model has no soft tokens and sees the bare prompt: `none`."
    )
    tokens: int = Field(default=8, ge=1, description="T, soft tokens of a user.")
    users: Literal["individual", "clusters"] = Field(
        default="individual",
        description="The user model: an offset of each user's own, or a mixture of shared offsets.",
    )
    clusters: int = Field(default=5, ge=2, description="K, shared offsets of the user model `clusters`.")
    alpha: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Share of the loss with the user's soft tokens; the rest is with the generic user's.",
    )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.lora is None:
            raise ValueError("lora: the soft tokens learn beside low-rank adapters; give their settings")
        if self.reference != "none":
            raise ValueError("reference: the reference model has no soft tokens; set none, or leave it out")
        if self.objective == "mirrored-contrast" or self.mirror:
            raise ValueError("mirror: no shots are shown, so there are no labels to swap; choose dpo or ipo")
        return self


class SoftTokensSettings(AdaptationSettings):
    """How the soft tokens of a new user are fitted."""

    fit_steps: int = Field(default=20, ge=0)
    """Steps of Adam on the shots; 0 keeps the generic user's tokens, as in the paper."""
    learning_rate: float = Field(default=1e-2, gt=0)
    """Of Adam."""
    beta: float = Field(default=0.1, gt=0)
    """Scale of the reward in the loss."""
    pull: float = Field(default=0.0, ge=0)
    """Weight of the squared distance from the generic user, or of the cluster weights."""


class UserTokens(Companion):
    """The soft tokens of all training users, as weights beside a policy."""

    def __init__(self, config: SoftTokensTraining, people: Sequence[str]) -> None:
        """`people` are the training users."""
        self.config, self.people = config, tuple(people)
        self.places = {user: number for number, user in enumerate(self.people, 1)}
        """Their rows; the generic user has row 0."""
        self.first = 0
        """The id of the first virtual token, once the policy is known."""

    def identity(self) -> Mapping[str, Any]:
        """Settings and data say it all."""
        return {"kind": "user tokens"}

    def record(self) -> Mapping[str, Any]:
        """What the files of the weights don't say."""
        return {"users": self.config.users, "tokens": self.config.tokens, "people": list(self.people)}

    def build(self, policy: Any) -> torch.nn.Module:
        """Generic tokens at embeddings of random tokens, and offsets that leave everybody at these."""
        import torch

        self.first = first_virtual_id(policy)
        config, count = self.config, len(self.people)
        embeddings = policy.get_input_embeddings().weight.detach().float()
        shape = (config.tokens, embeddings.shape[1])
        drawn = torch.randint(len(embeddings), (config.tokens,))
        tensors = {"generic": embeddings[drawn.to(embeddings.device)].clone()}
        if config.users == "individual":
            tensors["offsets"] = torch.zeros(count, *shape)
        else:
            tensors["clusters"] = 0.1 * float(embeddings.std()) * torch.randn(config.clusters, *shape)
            tensors["weights"] = torch.zeros(count, config.clusters)
        module = torch.nn.Module()
        for name, value in tensors.items():
            module.register_parameter(name, torch.nn.Parameter(value))
        return module

    def units(self, collator: StepCollator, index: int, episode: Episode) -> Sequence[Unit]:
        """The episode with the user's soft tokens, and with the generic user's; of others the generic ones alone."""
        alpha = self.config.alpha if episode.user in self.places else 0.0
        place = self.places.get(episode.user, 0)
        shares = [(place, alpha), (0, 1.0 - alpha)]
        bare = collator.unit(index, episode)
        found = []
        for row, share in shares:
            if share:
                renderer = collator.renderer.with_prefix(self.ids(row))
                unit = replace(collator, renderer=renderer).unit(index, episode)
                found.append(replace(unit, reference=bare.reference, weight=share))
        return found

    def ids(self, row: int) -> tuple[int, ...]:
        """The virtual tokens of a user by the place in the table."""
        start = self.first + row * self.config.tokens
        return tuple(range(start, start + self.config.tokens))

    @contextmanager
    def enter(self, policy: torch.nn.Module, units: Sequence[Unit]) -> Iterator[None]:
        """Give the virtual tokens of all users their embeddings."""
        inner: Any = getattr(policy, "module", policy)  # without what several processes put around it
        tensors = dict(inner.get_submodule(COMPANION).named_parameters())
        with virtual_tokens(inner, user_table(tensors).flatten(0, 1)):
            yield


def user_table(tensors: Mapping[str, Tensor]) -> Tensor:
    """[1 + U, T, d]: the soft tokens of the generic user and of all training users."""
    import torch

    generic = tensors["generic"]
    if "offsets" in tensors:
        offsets = tensors["offsets"]
    else:
        offsets = torch.einsum("uk,ktd->utd", torch.softmax(tensors["weights"], dim=1), tensors["clusters"])
    return torch.cat([generic[None], generic + offsets])


def train(job: Job) -> Path:
    """Train adapters and soft tokens together by P-DPO.

    Raises:
        FspoError: see `fspo.training.train.train_policy`.
    """
    config = job.config
    assert isinstance(config, SoftTokensTraining)
    return train_once(job, UserTokens(config, sorted({row.user for row in job.dataset})))


class SoftTokens(Adaptation):
    """Soft tokens of a new user, fitted on the shots in front of a policy that stays as it is."""

    Settings = SoftTokensSettings
    keeps_adapters: ClassVar[bool] = True

    def prepare(self) -> None:
        """Read the generic user's tokens and the shared offsets.

        Raises:
            ModelError: the policy has none.
        """
        from fspo.training.companion import load_companion

        assert self.folder is not None, "it trains a policy"
        tensors, _ = load_companion(self.folder)
        device = next(self.model.parameters()).device
        self.generic = tensors["generic"].to(device)
        self.clusters = tensors["clusters"].to(device) if "clusters" in tensors else None
        first = first_virtual_id(self.model)
        self.personal = self.renderer.with_prefix(tuple(range(first, first + len(self.generic))))

    def adapt(self, shots: Sequence[Preference]) -> UserState:
        """The user's offset, or weights of the clusters."""
        from fspo.methods.user_weights import take_steps

        if not self.settings.fit_steps:
            return UserState()
        return UserState(
            take_steps(self.start(), self.loss(shots), steps=self.settings.fit_steps, rate=self.settings.learning_rate)
        )

    @classmethod
    def work(cls, given: AdaptationInput) -> AdaptationWork:
        """Every step reads all pairs after the soft tokens; the reference reads them once without."""
        steps, training = given.settings.fit_steps, given.training
        if not steps:
            return AdaptationWork()
        tokens = given.renderer.render(Episode("", (), tuple(given.shots))).tokens
        soft = training.tokens if isinstance(training, SoftTokensTraining) else 0
        return AdaptationWork(tokens, steps * (tokens + soft))

    def start(self) -> dict[str, Tensor]:
        """Zeros: those of a training user before the first step."""
        import torch

        if self.clusters is None:
            return {"offset": torch.zeros_like(self.generic)}
        return {"weights": self.generic.new_zeros(len(self.clusters))}

    def loss(self, shots: Sequence[Preference]) -> Callable[[Mapping[str, Tensor], int], Tensor]:
        """DPO of the user's tokens on the pairs of the shots, against the model that training started from."""
        import torch

        from fspo.methods.user_weights import pair_margins
        from fspo.training import objectives

        episode = Episode("", (), tuple(shots))
        model: Any = self.model
        bare, shown = self.renderer.render(episode), self.personal.render(episode)
        with torch.no_grad(), model.disable_adapter():
            reference = pair_margins(model, [bare])

        def loss(weights: Mapping[str, Tensor], _: int) -> Tensor:
            with virtual_tokens(model, self.tokens(weights)):
                margins = pair_margins(model, [shown]) - reference
            far: Tensor = self.settings.pull * torch.stack([one.square().sum() for one in weights.values()]).sum()
            return objectives.dpo(margins, self.settings.beta).mean() + far

        return loss

    def tokens(self, weights: Mapping[str, Tensor]) -> Tensor:
        """The soft tokens [T, d] of a user; the generic user's where there is nothing."""
        import torch

        if "weights" in weights and self.clusters is not None:
            return self.generic + torch.einsum("k,ktd->td", torch.softmax(weights["weights"], dim=0), self.clusters)
        return self.generic + weights["offset"] if weights else self.generic

    @contextmanager
    def using(self, state: UserState) -> Iterator[EpisodeRenderer]:
        """Put the user's soft tokens in front of every prompt."""
        with virtual_tokens(self.model, self.tokens(state.tensors)):
            yield self.personal


ROWS = (
    Method(
        "p-rlhf",
        "P-RLHF",
        "shots",
        ("dpo",),
        None,
        "start",
        "Soft tokens of each user in front of the prompt, learned with the policy and fitted on a new user's shots.",
        {"beta": 0.1, "shots": 0},
        settings=SoftTokensTraining,
        train=train,
        adaptation=SoftTokens,
    ),
)
