"""Does a method come to fit a user in the course of a conversation? AL(k) by turn, and its slope (arXiv 2410.03642).

Every method answers the same scripted users, and sees what they have let be known in the turns before. A method that
sees no shots is the line that the others must cross: its level doesn't rise but by what the questions are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

from fspo.errors import DataError
from fspo.evaluation.config import ConversationConfig
from fspo.evaluation.context import Evaluation, OptionalMeasure
from fspo.evaluation.scoring.descriptions import Describer
from fspo.evaluation.scoring.eval_episodes import pick_users, texts_of
from fspo.evaluation.scoring.weights import LoadableModel
from fspo.evaluation.statistics.intervals import Estimate, clustered_mean
from fspo.identity import digest
from fspo.judging.judge import Judge, JudgeOfSome
from fspo.methods.conversations import (
    HIGHEST,
    LOWEST,
    Conversation,
    alignment_level,
    alignment_slope,
    hold,
    normalised,
)
from fspo.methods.table import METHODS
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.sampling import EpisodeSampler
from fspo.preferences.types import Preference
from fspo.records import KeyedLog

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


class Conversations(OptionalMeasure):
    """AL(k) of every method that answers; does nothing where the configuration asks for no conversations."""

    def __init__(self, evaluation: Evaluation) -> None:
        """Get ready; nothing is answered yet."""
        super().__init__(evaluation)
        self._levels: dict[str, dict[str, list[float]]] = {}
        self._left_out: list[str] = []

    def use_weights(self, method: str, describer: Describer | None) -> None:
        """Hold a method's conversations, once."""
        evaluation, settings = self.evaluation, self.evaluation.config.conversations
        if settings is None or evaluation.answer_judge is None or method in self._levels:
            return
        if METHODS[method].describes:  # a description of every prefix of every conversation would have to be written
            self._left_out.append(method)
            return
        conversations = self._people(settings, evaluation.answer_judge)
        speaker = _Speaker(evaluation, evaluation.weights.of(method), method)
        hold(conversations, settings.turns, speaker, evaluation.answer_judge)
        self._levels[method] = {one.user.id: self._levels_of(one, settings) for one in conversations}

    def estimates(self, method: str) -> dict[str, Estimate]:
        """AL(k) of each turn, the slope, the normalised slope and how well the line fits; empty without any."""
        levels = self._levels.get(method)
        if not levels:
            return {}
        users, rows = list(levels), list(levels.values())
        turns, people = len(rows[0]), len(users)
        curve = [fmean(row[k] for row in rows) for k in range(turns)]
        found = {
            f"alignment@{k + 1}": clustered_mean([row[k] for row in rows], users, bounds=(LOWEST, HIGHEST))
            for k in range(turns)
        }
        if turns > 1:
            found["alignment_slope"] = clustered_mean([alignment_slope(row).slope for row in rows], users, bounds=None)
            line = alignment_slope(normalised(curve))
            values = {"alignment_slope_normalised": line.slope, "alignment_fit": line.r2}
            found |= {name: Estimate(value, None, None, people, people, _CURVE) for name, value in values.items()}
        return found

    def notes(self) -> list[str]:
        """Which methods hold no conversations."""
        names = ", ".join(self._left_out)
        return [f"Conversations are not measured for {names}, which describe users themselves."] if names else []

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
        return sorted(self._responses[prompt], key=lambda text: _digest(self.evaluation.config.seed, text))[:count]

    @cached_property
    def _responses(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for row in self.evaluation.dataset:
            found.setdefault(row.prompt, set()).update((row.chosen, row.rejected))
        return found

    def _people(self, settings: ConversationConfig, judge: Judge) -> list[Conversation]:
        """Users with enough questions, each about to ask the first.

        Raises:
            DataError: nobody has enough.
        """
        evaluation = self.evaluation
        dataset, seed = evaluation.dataset, evaluation.config.seed
        trials = {trial.user for trial in evaluation.trials if _judges_for(judge, trial.own.queries[0], dataset)}
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
            digest([settings, turn, one.user.id, texts_of(one.shots), one.questions[turn - 1].prompt]): one
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
                one.questions[turn - 1].messages,
                tuple(one.shots),
                one.user.description,
                seed=int(_digest(config.seed, one.user.id, turn)[:8], 16) % 2**31,
            )
            for one in some
        ]
        replies = self.model.answer(prompts, sampling)
        return [
            Spoken(one.user.id, turn, one.questions[turn - 1].prompt, len(one.shots), reply.text)
            for one, reply in zip(some, replies, strict=True)
        ]


def _judges_for(judge: Judge, row: Preference, dataset: PreferenceDataset) -> bool:
    return not isinstance(judge, JudgeOfSome) or judge.has_weights(dataset.users[row.user], row.prompt)


def _digest(*parts: object) -> str:
    return hashlib.sha256("\x1f".join(map(str, parts)).encode()).hexdigest()
