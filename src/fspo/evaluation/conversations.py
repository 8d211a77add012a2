"""Does a method come to fit a user in the course of a conversation? AL(k) by turn, and its slope (arXiv 2410.03642).

Every method answers the same scripted users, and sees what they have let be known in the turns before. A method that
sees no shots is the line that the others must cross: its level doesn't rise but by what the questions are.

With an endpoint, a language model plays the users and rates the answers, and every method sees the conversation alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from statistics import fmean
from typing import Any

from fspo.errors import DataError
from fspo.evaluation.config import ConversationConfig
from fspo.evaluation.context import Evaluation, OptionalMeasure
from fspo.evaluation.metrics.rewards import Rewards
from fspo.evaluation.scoring.descriptions import Describer
from fspo.evaluation.scoring.eval_episodes import pick_users, texts_of
from fspo.evaluation.scoring.weights import LoadableModel
from fspo.evaluation.statistics.intervals import Estimate, clustered_mean
from fspo.identity import digest, draw_by
from fspo.judging.judge import can_judge
from fspo.llm.endpoint_config import need_client
from fspo.methods.conversations import (
    HIGHEST,
    LOWEST,
    Conversation,
    ScriptedUsers,
    alignment_level,
    alignment_slope,
    hold,
    normalised,
    with_room,
)
from fspo.methods.played_users import PlayedUsers, wording_of_prompts
from fspo.methods.table import METHODS
from fspo.preferences.sampling import EpisodeSampler
from fspo.preferences.types import Turn, User, transcript
from fspo.records import KeyedLog, write_records

__all__ = ["Conversations"]

_CURVE = "a property of the mean over users"


@dataclass(frozen=True)
class Spoken:
    """One answer in a conversation, as `conversations.jsonl` has it."""

    user: str
    turn: int
    prompt: str
    shots: int
    text: str


@dataclass(frozen=True)
class PlayedTurn:
    """One turn of a played user, as `played-users.jsonl` has it."""

    user: str
    turn: int
    message: str
    failure: str
    """Why the message of the model could not be used; `message` is then the question of the data."""
    level: float | None
    unread: str
    """Why there is no level."""


@dataclass(frozen=True)
class PlayedRecord:
    """How many replies of the model that plays users could be used."""

    messages: int
    unusable: dict[str, int]
    """Why a message could not be used -> how many."""
    answers: int
    unread: dict[str, int]
    """Why an answer has no level -> how many."""
    wording: str
    """Distinguishes what the model was asked."""

    @classmethod
    def of(cls, rows: Sequence[PlayedTurn]) -> PlayedRecord:
        """Of all turns of one method."""
        unusable, unread = (
            Counter(filter(None, reasons)) for reasons in zip(*((r.failure, r.unread) for r in rows), strict=True)
        )
        return cls(len(rows), dict(unusable), len(rows), dict(unread), wording_of_prompts())


class Conversations(OptionalMeasure):
    """AL(k) of every method that answers; does nothing where the configuration asks for no conversations."""

    def __init__(self, evaluation: Evaluation) -> None:
        """Get ready; nothing is answered yet.

        Raises:
            DataError: no user has enough questions; or a language model is to play the users, and one has no
                description.
        """
        super().__init__(evaluation)
        self._levels: dict[str, dict[str, list[float | None]]] = {}
        self._played: dict[str, list[PlayedTurn]] = {}
        self._left_out: list[str] = []
        settings = evaluation.config.conversations
        if settings is None or (settings.endpoint is None and evaluation.answer_judge is None):
            return
        people = self._people(settings)
        if settings.endpoint is not None:
            need_client()
            bare = [one.user.id for one in people if not one.user.description.strip()]
            if bare:
                raise DataError(
                    f"evaluation.conversations.endpoint plays users by their descriptions, and user '{bare[0]}' has "
                    "none; describe the users in the data, or leave out the endpoint."
                )

    def use_weights(self, method: str, describer: Describer | None) -> None:
        """Hold a method's conversations, once."""
        settings = self.evaluation.config.conversations
        if settings is None or method in self._levels or method in self._left_out:
            return
        judge, row = self.evaluation.answer_judge, METHODS[method]
        if judge is None and settings.endpoint is None:
            return
        if row.writes_ahead or (settings.endpoint is not None and row.adaptation is not None):
            self._left_out.append(method)
            return
        conversations = self._people(settings)
        speaker = _Speaker(self.evaluation, self.evaluation.weights.of(method), method)
        if settings.endpoint is not None:
            self._levels[method] = self._with_played_users(method, conversations, speaker, settings)
            return
        hold(conversations, settings.turns, speaker, ScriptedUsers(judge))
        self._levels[method] = {one.user.id: [*self._levels_of(one, settings)] for one in conversations}

    def estimates(self, method: str) -> dict[str, Estimate]:
        """AL(k) of each turn, the slope, the normalised slope and how well the line fits; empty without any."""
        found: dict[str, Estimate] = {}
        levels = self._levels.get(method)
        if not levels:
            return found
        turns, people = len(next(iter(levels.values()))), len(levels)
        curve = []
        for k in range(turns):
            known = {user: level for user, row in levels.items() if (level := row[k]) is not None}
            if known:
                curve.append(fmean(known.values()))
                found[f"alignment@{k + 1}"] = clustered_mean([*known.values()], [*known], bounds=(LOWEST, HIGHEST))
        rated = {user: row for user, row in levels.items() if len(row) - row.count(None) > 1}
        slopes = {user: alignment_slope(row).slope for user, row in rated.items()}
        if slopes:
            found["alignment_slope"] = clustered_mean([*slopes.values()], [*slopes], bounds=None)
        if len(curve) == turns:
            line = alignment_slope(normalised(curve))
            values = {"alignment_slope_normalised": line.slope, "alignment_fit": line.r2}
            found |= {name: Estimate(value, None, None, people, people, _CURVE) for name, value in values.items()}
        return found

    def notes(self) -> list[str]:
        """Which methods hold no conversations, and which replies of the model that plays users could not be used."""
        settings, names = self.evaluation.config.conversations, ", ".join(self._left_out)
        played = settings is not None and settings.endpoint is not None
        why = "write a text about the user first" + (", or learn from labels alone" if played else "")
        found = [f"Conversations are not measured for {names}: they {why}."] if names else []
        for method, record in self._records.items():
            if record.unusable or record.unread:
                found.append(
                    f"Conversations of {method}: {_counted(record.unusable)} of {record.messages:,} messages of played "
                    "users could not be used, so that the question of the data was asked as it is, and "
                    f"{_counted(record.unread)} of {record.answers:,} answers have no level."
                )
        return found

    def files(self, rewards: Mapping[str, Rewards]) -> dict[str, dict[str, Any]]:
        """Of played users: method -> how many of the model's replies could be used; nothing otherwise."""
        return {"conversations.json": self._records} if self._played else {}

    def _with_played_users(
        self, method: str, conversations: Sequence[Conversation], speaker: _Speaker, settings: ConversationConfig
    ) -> dict[str, list[float | None]]:
        """User -> the level of each answer; what was said and rated is written beside the answers."""
        evaluation, endpoint = self.evaluation, settings.endpoint
        assert endpoint is not None and evaluation.endpoints is not None
        users = PlayedUsers(
            partial(evaluation.endpoints.open, endpoint),
            seed=evaluation.config.seed,
            max_tokens=settings.message_tokens,
            progress=evaluation.progress,
        )
        hold(conversations, settings.turns, speaker, users)
        said = {(one.user, one.turn): one for one in users.messages}
        levels: dict[str, list[float | None]] = {one.user.id: [] for one in conversations}
        rows = []
        for rating in users.rate(conversations):
            message = said[rating.user, rating.turn]
            levels[rating.user].append(rating.level)
            rows.append(
                PlayedTurn(rating.user, rating.turn, message.text, message.failure, rating.level, rating.failure)
            )
        self._played[method] = rows
        write_records(evaluation.out / method / "played-users.jsonl", rows)
        return levels

    @property
    def _records(self) -> dict[str, PlayedRecord]:
        return {method: PlayedRecord.of(rows) for method, rows in self._played.items()}

    def _levels_of(self, one: Conversation, settings: ConversationConfig) -> list[float]:
        judge = self.evaluation.answer_judge
        assert judge is not None
        pairs = zip(one.questions, one.answers, strict=True)
        return [
            alignment_level(judge, one.user, question.prompt, text, self._others(question.prompt, settings.responses))
            for question, text in pairs
        ]

    def _others(self, prompt: str, count: int) -> list[str]:
        """At most so many responses to a prompt, the same ones for every user and method."""
        return sorted(self._responses[prompt], key=lambda text: draw_by(self.evaluation.config.seed, text))[:count]

    @cached_property
    def _responses(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for row in self.evaluation.dataset:
            found.setdefault(row.prompt, set()).update((row.chosen, row.rejected))
        return found

    def _people(self, settings: ConversationConfig) -> list[Conversation]:
        """Users with enough questions, each about to ask the first.

        Raises:
            DataError: nobody has enough.
        """
        evaluation = self.evaluation
        dataset, seed = evaluation.dataset, evaluation.config.seed
        judge = evaluation.answer_judge if settings.endpoint is None else None
        trials = {
            trial.user
            for trial in evaluation.trials
            if can_judge(judge, dataset.users[trial.user], trial.own.queries[0].prompt)
        }
        users = [user.id for user in pick_users(dataset, settings.users, seed, trials)]
        try:
            sampler = EpisodeSampler(
                dataset, shots=0, queries=settings.turns, seed=seed, users=users, skip_short_users=True
            )
        except DataError as error:
            raise DataError(
                f"evaluation.conversations: no evaluated user has {settings.turns} questions to ask; set fewer turns, "
                "or null."
            ) from error
        episodes = [sampler.fixed(user, 1)[0] for user in sampler.users]
        return [Conversation(dataset.users[episode.user], episode.queries) for episode in episodes]


@dataclass(frozen=True)
class _Speaker:
    """Lets a method answer the next question of every conversation; what its log has is not answered again."""

    evaluation: Evaluation
    model: LoadableModel
    method: str

    def __call__(self, turn: int, conversations: Sequence[Conversation]) -> list[str]:
        config = self.evaluation.config
        drawn = [config.max_new_tokens, config.temperature, config.top_p, config.answer_batch, config.seed]
        settings = digest([self.model.key, self.model.renderer.context, *drawn])
        wanted = {
            digest([settings, turn, self._person(one.user), texts_of(one.shown), transcript(one.prompt)]): one
            for one in conversations
        }

        def speak(some: Sequence[Conversation]) -> list[Spoken]:
            return self._speak(turn, some)

        return [
            row.text
            for row in KeyedLog(self.evaluation.out / self.method / "conversations.jsonl", Spoken).complete(
                wanted,
                speak,
                batch=config.answer_batch,
                title=f"Conversations, {self.method}, turn {turn}",
                progress=self.evaluation.progress,
            )
        ]

    def _speak(self, turn: int, some: Sequence[Conversation]) -> list[Spoken]:
        from fspo.modeling.answering import Prompt
        from fspo.modeling.generation import Sampling

        config = self.evaluation.config
        sampling = Sampling(config.max_new_tokens, config.temperature, config.top_p)
        prompts = [
            Prompt(
                self._prompt(one),
                one.shown,
                one.user.description,
                seed=int(draw_by(config.seed, one.user.id, turn)[:8], 16) % 2**31,
            )
            for one in some
        ]
        replies = self.model.answer(prompts, sampling)
        return [
            Spoken(one.user.id, turn, transcript(one.prompt), len(one.shown), reply.text)
            for one, reply in zip(some, replies, strict=True)
        ]

    def _person(self, user: User) -> str | list[str]:
        """The user, with the description where the model reads it."""
        return [user.id, user.description] if self.model.renderer.context in ("description", "both") else user.id

    def _prompt(self, one: Conversation) -> tuple[Turn, ...]:
        """What is answered, without the oldest turns for which there is no room."""
        if self.evaluation.config.conversations is None or self.evaluation.config.conversations.endpoint is None:
            return one.prompt
        reserve = self.evaluation.config.max_new_tokens
        return with_room(self.model.renderer, one.prompt, one.user.description, reserve=reserve)


def _counted(reasons: Mapping[str, int]) -> str:
    """How many there are, and why."""
    why = ", ".join(f"{reason} {count:,}" for reason, count in reasons.items())
    return f"{sum(reasons.values()):,}" + (f" ({why})" if why else "")
