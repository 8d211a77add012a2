"""Small worlds of users with a known structure, as features, for tests of readers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fspo.methods.reader import Pairs, Reader, TrainingUser, TrainingUsers
from fspo.methods.reader_table import reader_class

__all__ = [
    "WIDTH",
    "NewUser",
    "Utility",
    "accuracy",
    "camps",
    "fitted",
    "fitted_with_diagnostics",
    "liking",
    "near",
    "new_users",
    "training",
]

WIDTH = 6
_QUESTIONS, _RESPONSES, _PER_QUESTION = 24, 4, 3

Utility = Callable[[Tensor], Tensor]
"""The utilities [R] of responses [R, d]."""


def liking(*weights: float) -> Utility:
    """A linear taste."""
    w = torch.tensor([*weights, *[0.0] * (WIDTH - len(weights))])
    return lambda x: x @ w


def near(place: float) -> Utility:
    """Likes responses whose first feature is near `place`."""
    return lambda x: -(x[:, 0] - place).abs()


def camps(count: int, *tastes: Utility) -> list[Utility]:
    """So many users, each taste in turn."""
    return [tastes[number % len(tastes)] for number in range(count)]


def training(users: Sequence[Utility], *, seed: int = 0, mask: Sequence[float] = (1.0,) * WIDTH) -> TrainingUsers:
    """Users who prefer what they like more, on responses with standard normal features times `mask`."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(_QUESTIONS * _RESPONSES, WIDTH, generator=generator) * torch.tensor(mask)
    return TrainingUsers(features, [_user(str(n), taste, features, generator) for n, taste in enumerate(users)])


def _user(name: str, taste: Utility, features: Tensor, generator: torch.Generator) -> TrainingUser:
    liked = taste(features)
    first = torch.arange(_QUESTIONS).repeat_interleave(_PER_QUESTION) * _RESPONSES
    a = torch.randint(0, _RESPONSES, (len(first),), generator=generator)
    b = (a + torch.randint(1, _RESPONSES, (len(first),), generator=generator)) % _RESPONSES
    a, b = first + a, first + b
    better = liked[a] > liked[b]
    starts = torch.arange(_QUESTIONS + 1) * _PER_QUESTION
    return TrainingUser(name, torch.where(better, a, b), torch.where(better, b, a), starts)


@dataclass(frozen=True)
class NewUser:
    """Shots and queries of a user who is not among the training users."""

    shots: Pairs
    queries: Pairs


def new_users(users: Sequence[Utility], *, shots: int = 8, queries: int = 40, seed: int = 1) -> list[NewUser]:
    """Users with labelled pairs of responses that were never seen before."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for taste in users:
        a, b = torch.randn(2, shots + queries, WIDTH, generator=generator)
        better = (taste(a) > taste(b))[:, None]
        chosen, rejected = torch.where(better, a, b), torch.where(better, b, a)
        found.append(NewUser(Pairs(chosen, rejected).first(shots), Pairs(chosen[shots:], rejected[shots:])))
    return found


def fitted(name: str, users: TrainingUsers, **settings: Any) -> Reader:
    """A reader after its fit."""
    return fitted_with_diagnostics(name, users, **settings)[0]


def fitted_with_diagnostics(name: str, users: TrainingUsers, **settings: Any) -> tuple[Reader, dict[str, float]]:
    """A reader after its fit, and what that reported."""
    kind = reader_class(name)
    torch.manual_seed(0)
    reader = kind(kind.Settings(**settings), WIDTH)
    diagnostics = dict(reader.fit(users))
    return reader.eval(), diagnostics


@torch.no_grad()
def accuracy(reader: Reader, users: Sequence[NewUser], *, flipped: bool = False) -> float:
    """The share of queries ranked rightly, ties counting half; `flipped`: given shots with swapped labels."""
    right = []
    for user in users:
        shots = user.shots.mirror() if flipped else user.shots
        chosen, rejected = reader.scores(shots, torch.cat([user.queries.chosen, user.queries.rejected])).chunk(2)
        margins = chosen - rejected
        right.append((margins > 0).float() + (margins == 0).float() / 2)
    return float(torch.cat(right).mean())
