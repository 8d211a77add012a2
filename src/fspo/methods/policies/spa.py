"""SPA: spread preference annotation, in which a few labels spread to the policy's own answers (arXiv 2406.04412).

Round 1 is DPO on the few labels of each user (`seeds`). Every later round i writes two answers to each of other
questions and labels them itself, by the implicit reward of its policy against the start of the whole training:

    r(y) = log pi_i-1(y | S, x) - log pi_start(y | S, x)

The labels of these questions in the data are not read. Some of the labels are wrong, so each is judged a second time,
by a policy that is extrapolated from the round before: its margin is

    m = (1 + lambda) (log pi_i-1 margin) - lambda (log pi_i-2 margin) - (log pi_start margin),

taken as positive in favour of the label. The `noisy_share` of the round's labels with the least m are trained on with
the label smoothing `noise`, all others as they are.

The paper finds the least confident labels again in each step, by the policy in training with extrapolated logits. On
whole responses extrapolation between the policy and its reference would not change their order, so here they are found
once a round, from the three policies above, which also makes a step independent of how it is cut into passes. The paper
has no users; here shots are a user's labelled preferences, and answers are written and labelled given these.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Self

from pydantic import Field, model_validator

from fspo.errors import DataError
from fspo.methods.method import Method
from fspo.methods.round_settings import RoundSettings, in_rounds
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.sampling import shots_beside
from fspo.preferences.types import Episode, Preference
from fspo.preferences.wording import wording
from fspo.training.config import SMOOTHED, Needs

if TYPE_CHECKING:
    from fspo.methods.one_round import Pairs, Round

__all__ = ["ROWS", "SpaSettings", "divided", "least_confident"]


class SpaSettings(RoundSettings):
    """Settings of SPA."""

    needs: ClassVar[Needs] = {
        **RoundSettings.needs,
        "noise": ("noisy_share above 0", lambda config: config.noisy_share > 0),
        "extrapolation": ("noisy_share above 0", lambda config: config.noisy_share > 0),
    }

    seeds: int = Field(
        default=8, ge=1, description="Labelled questions of each user; the labels of all others are not read."
    )
    noisy_share: float = Field(
        default=0.1, ge=0, le=1, description="Share of a round's labels, the least confident, that are smoothed."
    )
    noise: float = Field(default=0.1, ge=0, lt=0.5, description="Label smoothing of these labels.")
    extrapolation: float = Field(
        default=0.5, ge=0, description="lambda: how far the policy that measures confidence is extrapolated."
    )

    @model_validator(mode="after")
    def _smoothed(self) -> Self:
        """Only some objectives know of wrong labels."""
        if self.objective not in SMOOTHED:
            raise ValueError(f"objective: {self.objective} takes no noisy labels; choose {', '.join(sorted(SMOOTHED))}")
        if self.rounds < 2:
            raise ValueError("rounds: the first round trains on the seeds alone; set 2 or more")
        if self.seeds < (needed := self.shots + self.queries):
            raise ValueError(f"seeds: the first round shows {needed} labelled questions of a user; set as many or more")
        return self


def divided(dataset: PreferenceDataset, seeds: int, seed: int) -> tuple[PreferenceDataset, PreferenceDataset]:
    """The preferences on `seeds` questions of each user, drawn at random, and those on other questions.

    Raises:
        DataError: there is no other question.
    """
    labelled: list[Preference] = []
    rest: list[Preference] = []
    for user in dataset.users:
        own = dataset.of_user(user)
        rng = random.Random(f"{seed} seeds {user}")
        questions = sorted(dict.fromkeys(row.question_key for row in own), key=lambda _: rng.random())
        known = set(questions[:seeds])
        for row in own:
            (labelled if row.question_key in known else rest).append(row)
    if not rest:
        raise DataError(
            f"No user has more than {seeds} questions, so there is none for the policy to label; lower "
            "training.spa.seeds, or give the users more preferences."
        )
    return PreferenceDataset(dataset.users.values(), labelled), PreferenceDataset(dataset.users.values(), rest)


def least_confident(margins: Sequence[float], share: float) -> set[int]:
    """The places of the least margins: so many of them, rounded."""
    order = sorted(range(len(margins)), key=lambda place: (margins[place], place))
    return set(order[: round(share * len(order))])


def _spread(one: Round) -> Pairs:
    """The episodes of the seeds; later, pairs of the policy's own answers, labelled by its implicit reward."""
    from fspo.methods.one_round import Pairs

    config: SpaSettings = one.config
    labelled, rest = divided(one.dataset, config.seeds, config.seed)
    if one.number == 1:
        return Pairs.of(one.draw(labelled))
    asked = list(_asked(one, labelled, rest))
    answered = [
        replace(
            episode,
            queries=tuple(
                replace(query, chosen=first.text, rejected=second.text, source={"label": "implicit reward"})
                for query, (first, second) in zip(episode.queries, replies, strict=True)
            ),
        )
        for episode, replies in one.own_answers(asked, 2)
    ]
    written = Pairs.of(answered)
    own, start, before = (
        [margin for row in one.margins(written.episodes, place) for margin in row] for place in (-1, 0, -2)
    )
    rewards = [margin - other for margin, other in zip(own, start, strict=True)]
    confidence = [
        _sided(reward, (1 + config.extrapolation) * margin - config.extrapolation * older - other)
        for reward, margin, older, other in zip(rewards, own, before, start, strict=True)
    ]
    noisy = least_confident(confidence, config.noisy_share)
    places = iter(range(len(rewards)))

    def label(query: Preference, place: int) -> Preference:
        right = query if rewards[place] >= 0 else query.swap()
        return right.with_noise(config.noise) if place in noisy else right

    episodes = (
        replace(episode, queries=tuple(label(query, next(places)) for query in episode.queries))
        for episode in written.episodes
    )
    return replace(written, episodes=tuple(episodes))


def _asked(one: Round, labelled: PreferenceDataset, rest: PreferenceDataset) -> Iterator[Episode]:
    """Episodes with shots of the labelled preferences, and queries on other questions."""
    for number, episode in enumerate(one.draw(rest, shots=0, skip=True)):
        prompts, pairs = {wording(row.prompt) for row in episode.queries}, {row.pair for row in episode.queries}
        rng = random.Random(f"{one.seed('shots')} {number}")
        order = sorted(labelled.of_user(episode.user), key=lambda _: rng.random())
        others = [row for row in order if row.pair not in pairs and wording(row.prompt) not in prompts]
        yield replace(episode, shots=shots_beside("", others, one.config.shots))


def _sided(reward: float, margin: float) -> float:
    """A margin as positive in favour of the label that the reward gives."""
    return margin if reward >= 0 else -margin


ROWS = (
    Method(
        "spa",
        "SPA",
        "shots",
        ("dpo",),
        None,
        "start",
        "Few labels of each user, then rounds on the policy's own answers, labelled by its implicit reward.",
        {"beta": 0.1},
        settings=SpaSettings,
        train=in_rounds(_spread),
    ),
)
