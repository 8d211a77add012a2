"""Readers: methods that score responses from a user's shots, on frozen embeddings.

A reader is one class in a file of `fspo.methods.readers`. It is fitted on the training users, turns the shots of a new
user into a small state (`adapt`), and gives responses their rewards from that state (`rewards`). Responses are features
[d]: the embedding of prompt and response, centred and whitened (`fspo.methods.features`).
"""

from __future__ import annotations

import statistics
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import torch
from pydantic import AfterValidator, Field, ValidationInfo
from torch import Tensor, nn

from fspo.errors import DataError
from fspo.preferences.types import Preference
from fspo.printing import counted
from fspo.pydantic_errors import Section

__all__ = [
    "EpisodeBatch",
    "EpisodicReader",
    "EpisodicSettings",
    "Heads",
    "Pairs",
    "Reader",
    "ReaderSettings",
    "TrainingUser",
    "TrainingUsers",
    "bradley_terry",
    "fit_mixture",
    "index_users",
    "minimise",
]


class ReaderSettings(Section):
    """Settings of every reader."""

    embedding: Literal["backbone", "sentence"] = "backbone"
    """What embeds a response: the run's model, from its hidden states, or the sentence embedder."""
    pooling: Literal["mean", "last"] = "mean"
    """Of the backbone: the mean over the tokens of the response, or its last token."""
    layer: int | None = None
    """Of the backbone: which hidden states; 0 are the embeddings of the tokens, -1 the last ones, null those after two
    thirds of the layers."""
    components: int = Field(default=64, ge=1)
    """Features of a response: the directions in which responses to one question differ most."""
    seed: int = Field(default=0, ge=0)
    """Draws initial weights and episodes; by default the run's seed."""


class EpisodicSettings(ReaderSettings):
    """Settings of a reader that learns from episodes of the training users."""

    shots: int = Field(default=8, ge=1)
    """Most shots of an episode; every step draws a number from 0 to this."""
    queries: int = Field(default=4, ge=1)
    """Queries of an episode."""
    users_per_step: int = Field(default=32, ge=1)
    """Episodes of a step, each of another user where there are enough."""
    steps: int = Field(default=2000, ge=1)
    """Steps of Adam."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Of Adam; falls to 0 along a cosine."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled, as in AdamW."""
    mirror: bool = False
    """Whether half of the episodes have all their labels swapped, in shots and queries alike."""


def _dividing(heads: int, info: ValidationInfo) -> int:
    hidden = info.data.get("hidden", 0)
    if hidden % heads:
        raise ValueError(f"attention heads must divide hidden, which is {hidden}")
    return heads


Heads: TypeAlias = Annotated[int, Field(ge=1), AfterValidator(_dividing)]
"""A number of attention heads, which divides the setting `hidden` above it."""


@dataclass(frozen=True)
class Pairs:
    """Labelled preferences of one user as features."""

    chosen: Tensor
    """[n, d]"""
    rejected: Tensor
    """[n, d]"""

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def differences(self) -> Tensor:
        """[n, d]: chosen minus rejected."""
        return self.chosen - self.rejected

    def first(self, count: int) -> Pairs:
        """The first ones."""
        return Pairs(self.chosen[:count], self.rejected[:count])

    def mirror(self) -> Pairs:
        """The same with every label swapped."""
        return Pairs(self.rejected, self.chosen)


@dataclass(frozen=True)
class TrainingUser:
    """The preferences of one training user, by the places of the responses, sorted by question."""

    id: str
    chosen: Tensor
    """[n], int64"""
    rejected: Tensor
    """[n], int64"""
    starts: Tensor
    """[q + 1]: where the preferences of each question begin, and where the last ones end."""

    @property
    def questions(self) -> int:
        """How many there are."""
        return len(self.starts) - 1


@dataclass(frozen=True)
class EpisodeBatch:
    """Episodes of B users, each with k shots and q queries on different questions."""

    users: Tensor
    """[B]: the places of the users."""
    shots_chosen: Tensor
    """[B, k, d]"""
    shots_rejected: Tensor
    """[B, k, d]"""
    chosen: Tensor
    """[B, q, d]: of the queries."""
    rejected: Tensor
    """[B, q, d]"""

    def shots(self, place: int) -> Pairs:
        """The shots of one episode."""
        return Pairs(self.shots_chosen[place], self.shots_rejected[place])


@dataclass(frozen=True)
class TrainingUsers:
    """The training part: the features of all responses, and who prefers which."""

    features: Tensor
    """[R, d]"""
    users: Sequence[TrainingUser]

    def __len__(self) -> int:
        return len(self.users)

    def pairs(self, place: int) -> Pairs:
        """All preferences of one user."""
        user = self.users[place]
        return Pairs(self.features[user.chosen], self.features[user.rejected])

    @property
    def owners(self) -> Tensor:
        """The place of the user of each of the pooled preferences."""
        return torch.cat([torch.full((len(user.chosen),), place) for place, user in enumerate(self.users)])

    @cached_property
    def pooled(self) -> Pairs:
        """The preferences of all users."""
        chosen, rejected = (torch.cat([getattr(user, side) for user in self.users]) for side in ("chosen", "rejected"))
        return Pairs(self.features[chosen], self.features[rejected])

    def able(self, questions: int) -> list[int]:
        """The places of the users with at least so many questions.

        Raises:
            DataError: there are none.
        """
        found = [place for place, user in enumerate(self.users) if user.questions >= questions]
        if not found:
            most = max((user.questions for user in self.users), default=0)
            raise DataError(
                f"A reader trains on episodes of {counted(questions, 'questions')}, shots and queries together, and "
                f"the users have at most {most}; lower its setting shots, or give the users more questions."
            )
        return found

    def episodes(
        self, generator: torch.Generator, *, users: int, shots: int, queries: int, mirror: bool = False
    ) -> EpisodeBatch:
        """Draw an episode of each of so many users; with `mirror`, the second half with all labels swapped.

        Raises:
            DataError: nobody has enough questions.
        """
        able = torch.tensor(self.able(shots + queries))
        rounds = [torch.randperm(len(able), generator=generator) for _ in range(-(-users // len(able)))]
        places = able[torch.cat(rounds)[:users]]
        chosen, rejected = self._draw(places, shots + queries, generator)
        if mirror:
            half = len(places) // 2
            chosen, rejected = (
                torch.cat([chosen[:half], rejected[half:]]),
                torch.cat([rejected[:half], chosen[half:]]),
            )
        liked, disliked = self.features[chosen], self.features[rejected]
        return EpisodeBatch(places, liked[:, :shots], disliked[:, :shots], liked[:, shots:], disliked[:, shots:])

    def _draw(self, places: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The chosen and the rejected responses [B, count] of preferences on different questions."""
        chosen, rejected, starts, questions = (table[places] for table in self._tables)
        keys = torch.rand(len(places), starts.shape[1] - 1, generator=generator)
        keys = keys.masked_fill(torch.arange(keys.shape[1]) >= questions[:, None], -1.0)
        drawn = keys.topk(count, dim=1).indices
        start, end = starts.gather(1, drawn), starts.gather(1, drawn + 1)
        rows = start + (torch.rand(drawn.shape, generator=generator) * (end - start)).long()
        return chosen.gather(1, rows), rejected.gather(1, rows)

    @cached_property
    def _tables(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Chosen and rejected responses [U, n], the starts of questions [U, q + 1], and how many there are [U]."""
        chosen, rejected, starts = (
            nn.utils.rnn.pad_sequence([getattr(user, part) for user in self.users], batch_first=True)
            for part in ("chosen", "rejected", "starts")
        )
        return chosen, rejected, starts, torch.tensor([user.questions for user in self.users])


def index_users(preferences: Iterable[Preference]) -> tuple[list[TrainingUser], list[tuple[str, str]], list[str]]:
    """The training users, the responses (prompt, text) that their places refer to, and the question of each."""
    places: dict[tuple[str, str], int] = {}
    questions: list[str] = []
    rows: dict[str, list[tuple[str, int, int]]] = {}
    for row in preferences:
        for text in (row.chosen, row.rejected):
            if (row.prompt, text) not in places:
                places[row.prompt, text] = len(places)
                questions.append(row.question_key)
        pair = (row.question_key, places[row.prompt, row.chosen], places[row.prompt, row.rejected])
        rows.setdefault(row.user, []).append(pair)
    users = [_indexed(user, sorted(own, key=lambda pair: pair[0])) for user, own in rows.items()]
    return users, list(places), questions


def _indexed(user: str, rows: Sequence[tuple[str, int, int]]) -> TrainingUser:
    starts = [place for place, row in enumerate(rows) if place == 0 or row[0] != rows[place - 1][0]]
    chosen, rejected = torch.tensor([row[1] for row in rows]), torch.tensor([row[2] for row in rows])
    return TrainingUser(user, chosen, rejected, torch.tensor([*starts, len(rows)]))


class Reader(nn.Module, ABC):
    """A method that scores responses from a user's shots. Parameters and buffers are what is saved."""

    title: ClassVar[str]
    """Its name in words."""
    description: ClassVar[str]
    """What it does, in a sentence."""
    source: ClassVar[str] = ""
    """The paper, with its arXiv id."""
    Settings: ClassVar[type[ReaderSettings]] = ReaderSettings
    """Its settings in a run's YAML."""
    least_shots: ClassVar[int] = 0
    """With fewer shots it can't tell any two responses apart."""

    def __init__(self, settings: Any, width: int) -> None:
        """Make the weights, before the fit or to load them: `width` is the number of features."""
        super().__init__()
        self.settings, self.width = settings, width

    @classmethod
    def most_shots(cls, settings: Any) -> int | None:
        """Most shots that it takes with these settings; None: any number."""
        return None

    @abstractmethod
    def fit(self, users: TrainingUsers) -> Mapping[str, float]:
        """Learn from the training users, and return diagnostics by name."""

    @abstractmethod
    def adapt(self, shots: Pairs) -> Tensor:
        """What is remembered of a user who gave these shots (maybe none), as one float32 tensor of any shape."""

    @abstractmethod
    def rewards(self, user: Tensor, candidates: Tensor) -> Tensor:
        """[C]: the rewards of candidates [C, d] for a user, from what `adapt` gave."""

    def scores(self, shots: Pairs, candidates: Tensor) -> Tensor:
        """[C]: the rewards of candidates [C, d] for the user who gave the shots; all 0 below `least_shots`.

        Raises:
            DataError: these are more shots than the reader takes.
        """
        most = self.most_shots(self.settings)
        if most is not None and len(shots) > most:
            raise DataError(
                f"{self.title} was fitted on up to {most} shots and gets {len(shots)}; show it fewer, or fit it with a "
                "higher setting `shots`."
            )
        if len(shots) < self.least_shots:
            return torch.zeros(len(candidates))
        return self.rewards(self.adapt(shots), candidates)

    @property
    def parameters_count(self) -> int:
        """How many numbers the fit leaves behind."""
        return sum(tensor.numel() for tensor in self.state_dict().values())


def bradley_terry(chosen: Tensor, rejected: Tensor) -> Tensor:
    """-log sigmoid(chosen - rejected), of the shape of both (Bradley and Terry 1952)."""
    return nn.functional.softplus(rejected - chosen)


def minimise(
    parameters: Iterable[Tensor],
    loss: Callable[[int], Tensor],
    *,
    steps: int,
    learning_rate: float,
    weight_decay: float = 0.0,
    cosine: bool = True,
    clip: float = 1.0,
) -> float:
    """Take steps of AdamW on `loss`, which gets the number of the step; returns the mean of the last tenth."""
    parameters = list(parameters)
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps) if cosine else None
    losses = []
    for step in range(steps):
        optimizer.zero_grad()
        value = loss(step)
        torch.autograd.backward(value)
        nn.utils.clip_grad_norm_(parameters, clip)
        optimizer.step()
        if schedule is not None:
            schedule.step()
        losses.append(float(value.detach()))
    return statistics.fmean(losses[-max(1, steps // 10) :])


class EpisodicReader(Reader):
    """A reader that learns from episodes of the training users; its settings are `EpisodicSettings`."""

    def learn(
        self,
        users: TrainingUsers,
        generator: torch.Generator,
        loss: Callable[[EpisodeBatch, int], Tensor],
        *,
        fewest: int | None = 0,
    ) -> float:
        """Take steps of Adam on the loss of a batch and the number of its step; returns the mean of the last tenth.

        Each step draws a number of shots, from `fewest` to that of the settings; None: always as many as the latter.
        """
        settings = self.settings

        def of_step(step: int) -> Tensor:
            k = settings.shots
            if fewest is not None:
                k = int(torch.randint(fewest, k + 1, (1,), generator=generator))
            batch = users.episodes(
                generator, users=settings.users_per_step, shots=k, queries=settings.queries, mirror=settings.mirror
            )
            return loss(batch, step)

        return minimise(
            self.parameters(),
            of_step,
            steps=settings.steps,
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
        )


def fit_mixture(count: int, loss: Callable[[Tensor], Tensor], *, steps: int, learning_rate: float) -> Tensor:
    """[count]: softmax(w), with w fitted from 0 by steps of Adam on the loss of softmax(w)."""
    with torch.enable_grad():
        w = torch.zeros(count, requires_grad=True)
        if steps:
            minimise([w], lambda _: loss(w.softmax(-1)), steps=steps, learning_rate=learning_rate, cosine=False)
    return w.detach().softmax(-1)
