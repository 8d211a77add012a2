"""Small worlds of users with a known taste in texts, and how rightly an adaptation ranks and answers for them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fspo.methods.adaptation import Adaptation
from fspo.modeling.loading import load_model, load_tokenizer
from fspo.modeling.logprobs import branch_logprobs
from fspo.modeling.rendering import Context, EpisodeRenderer
from fspo.preferences.types import Episode, Preference

__all__ = ["PLAIN", "SHORT", "Taste", "accuracy", "adaptation", "by_prompt", "likes", "users"]

PLAIN = ["wonderful", "brilliant", "beautiful"]
SHORT = ["dull", "terrible", "boring"]
_FILLING = ["film", "book", "cast", "plot", "music", "ending", "story", "scene"]

Taste = Callable[[str, int], bool]
"""Whether a user likes the warm response to a prompt; the number is that of the question."""


def likes(warm: bool) -> Taste:
    """The same taste everywhere."""
    return lambda prompt, number: warm


def by_prompt(warm: bool) -> Taste:
    """Likes warm responses to every second question, and cold ones to the others: nothing on average."""
    return lambda prompt, number: warm == (number % 2 == 0)


def users(tastes: Sequence[Taste], *, shots: int, queries: int, seed: int = 0) -> list[Episode]:
    """An episode of each user: a warm and a cold response to each question."""
    rng = random.Random(seed)
    return [_episode(str(place), taste, shots, queries, rng) for place, taste in enumerate(tastes)]


def _episode(user: str, taste: Taste, shots: int, queries: int, rng: random.Random) -> Episode:
    rows = []
    for number in range(shots + queries):
        prompt = f"What about film {rng.randrange(1000)}?"
        warm, cold = (" ".join([*rng.sample(_FILLING, 2), *rng.sample(words, 2)]) for words in (PLAIN, SHORT))
        pair = (warm, cold) if taste(prompt, number) else (cold, warm)
        rows.append(Preference(user, prompt, *pair))
    return Episode(user, tuple(rows[:shots]), tuple(rows[shots:]))


def adaptation(
    kind: type[Adaptation], model: Path, context: Context, folder: Path | None = None, **settings: Any
) -> Adaptation:
    """An adaptation of a model."""
    renderer = EpisodeRenderer(load_tokenizer(model), context=context, layout="conversation")
    return kind(kind.Settings.model_validate(settings), load_model(model), renderer, folder)


def accuracy(own: Adaptation, episodes: Sequence[Episode], *, flipped: bool = False) -> float:
    """How often the query's chosen response has the higher reward over the model without a user."""
    return float((rewards(own, episodes, flipped=flipped) > 0).double().mean())


def rewards(own: Adaptation, episodes: Sequence[Episode], *, flipped: bool = False) -> torch.Tensor:
    """[users, queries]: how much higher the reward of the chosen response is, in nats."""
    found = []
    for episode in episodes:
        shown = episode.flip_shots() if flipped else episode
        with torch.no_grad():
            with own.for_user(shown.shots) as user:
                told = replace(shown, description=user.text)
                (policy,) = branch_logprobs(user.model, [user.renderer.render(told)])
            (reference,) = branch_logprobs(own.model, [own.renderer.render(shown.first_shots(0))])
        margins = policy.sums - reference.sums
        found.append(margins[:, 0] - margins[:, 1])
    return torch.stack(found)
