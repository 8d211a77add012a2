"""What is measured after a round, on answers to questions of held-out people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from fspo.errors import DataError
from fspo.identity import seed_by
from fspo.judging.judge import Judge, can_judge
from fspo.judging.verdicts import SCORES
from fspo.methods.one_round import Pairs
from fspo.methods.round_setup import ROUNDS_FOLDER, RoundSetup
from fspo.modeling.answering import Prompt, Reply
from fspo.modeling.fitting import Room, fitted
from fspo.preferences.types import Episode, Preference
from fspo.printing import counted
from fspo.records import KeyedLog
from fspo.training.processes import joined

__all__ = ["FIGURES_FILE", "Measurement", "RoundFigures"]

FIGURES_FILE = "rounds.jsonl"
"""What was measured after each round, beside the policy."""


@dataclass(frozen=True)
class RoundFigures:
    """What is measured after a round; round 0 is the start."""

    round: int
    pairs: int = 0
    """Pairs that the round was trained on."""
    same: int = 0
    """Pairs that were left out because both responses are equal."""
    empty: int = 0
    """Pairs that were left out because a response is empty."""
    right_labels: float | None = None
    """Share of the round's labels that the judge of the data agrees with, of those that are no tie to it."""
    probes: int = 0
    """Questions that were answered."""
    answer_words: float | None = None
    """Words of an answer, on average."""
    chosen_words: float | None = None
    """Words of the chosen responses to the same questions."""
    unfinished: float | None = None
    """Share of answers that ran into `max_new_tokens`."""
    win_over_start: float | None = None
    """Win rate over the answers of the start, by the judge of the data; a tie counts a half."""
    win_over_chosen: float | None = None
    """Win rate over the chosen responses."""

    @property
    def said(self) -> str:
        """The figures in a sentence."""
        left_out = [f"{n} {what}" for n, what in ((self.same, "equal"), (self.empty, "empty")) if n]
        more = f" (left out: {', '.join(left_out)})" if left_out else ""
        parts = [counted(self.pairs, "pairs") + more] if self.round else []
        if self.answer_words is not None:
            parts.append(f"answers of {self.answer_words:.1f} words (chosen: {self.chosen_words:.1f})")
        parts += [] if self.right_labels is None else [f"{100 * self.right_labels:.1f}% of the labels right"]
        for name, value in (("the start", self.win_over_start), ("the chosen responses", self.win_over_chosen)):
            parts += [] if value is None else [f"{100 * value:.1f}% wins over {name}"]
        return ", ".join(parts)


@dataclass(frozen=True)
class Measurement:
    """Measures each round of a training once."""

    setup: RoundSetup
    log: KeyedLog[RoundFigures]
    """Has the figures by the number of the round."""

    def measure(self, number: int, policy: str | Path, pairs: Pairs) -> None:
        """Let a round's policy answer the probes, and add what that says to the log; once for each round."""
        setup, figures = self.setup, RoundFigures(number, pairs.count, pairs.same, pairs.empty)
        if str(figures.round) not in self.log:
            figures = replace(figures, right_labels=self._right_labels(pairs))
            answered = self._probed(figures.round, policy)
            if answered:
                figures = replace(figures, **self._compared(answered))
            if joined().is_main_process:
                self.log.put(str(figures.round), figures)
            joined().wait_for_everyone()
        else:
            figures = self.log[str(figures.round)]
        title = f"round {figures.round} of {setup.config.rounds}" if figures.round else "the start"
        if figures.said:
            setup.job.progress.say(f"{setup.job.method.name}, {title}: {figures.said}.")

    @cached_property
    def _probes(self) -> list[Episode]:
        """Held-out questions with the shots of their users; the same in every round."""
        setup, job, config = self.setup, self.setup.job, self.setup.config
        if not config.probes:
            return []
        room = Room(setup.renderer, answer=config.room)
        part = job.validation or setup.read.dataset
        readable = fitted(part, [room], "leave-out", setting="long_rows", file="The validation part").dataset
        try:
            sampler = setup.sampler(readable, seed_by("rounds", config.seed, "probes"), 1, skip=True)
        except DataError as error:
            job.progress.say(f"{job.method.name}: rounds are not measured on held-out questions. {error}")
            return []
        return [sampler.episode(number) for number in range(config.probes)]

    def _probed(self, number: int, policy: str | Path) -> list[Reply]:
        """The answers of a round's policy to the probes."""
        setup, job = self.setup, self.setup.job
        prompts = {
            str(place): Prompt(
                episode.queries[0].messages, episode.shots, seed=seed_by("rounds", setup.config.seed, "probe", place)
            )
            for place, episode in enumerate(self._probes)
        }
        if not prompts:
            return []
        path = job.out / ROUNDS_FOLDER / str(number) / "probes.jsonl"
        title = f"{job.method.name}: measuring round {number}"
        return list(setup.written(prompts, path, policy, setup.renderer, title).values())

    def _compared(self, replies: Sequence[Reply]) -> dict[str, Any]:
        """The figures of answers to the probes."""
        queries = [episode.queries[0] for episode in self._probes]
        first = self._probed(0, self.setup.job.model)
        texts, chosen = [reply.text for reply in replies], [query.chosen for query in queries]
        return {
            "probes": len(queries),
            "answer_words": fmean(len(text.split()) for text in texts),
            "chosen_words": fmean(len(text.split()) for text in chosen),
            "unfinished": fmean(not reply.finished for reply in replies),
            "win_over_start": self._wins(queries, texts, [reply.text for reply in first]),
            "win_over_chosen": self._wins(queries, texts, chosen),
        }

    def _right_labels(self, pairs: Pairs) -> float | None:
        """How often the judge agrees with the labels; None where nobody judges."""
        queries = [query for episode in pairs.episodes for query in episode.queries]
        scores = self._scores(queries, [query.chosen for query in queries], [query.rejected for query in queries])
        decided = [score for score in scores if score != SCORES["tie"]]
        return fmean(decided) if decided else None

    @cached_property
    def _judge(self) -> Judge | None:
        return self.setup.job.judge()

    def _wins(self, queries: Sequence[Preference], texts: Sequence[str], others: Sequence[str]) -> float | None:
        """The share of wins; None where nobody judges."""
        scores = self._scores(queries, texts, others)
        return fmean(scores) if scores else None

    def _scores(self, queries: Sequence[Preference], texts: Sequence[str], others: Sequence[str]) -> list[float]:
        """1, 0.5 or 0 for each query that the judge can judge."""
        judge, job = self._judge, self.setup.job
        people = {**job.dataset.users, **(job.validation.users if job.validation else {})}
        return [
            SCORES[judge.compare(people[query.user], query.prompt, text, other)]
            for query, text, other in zip(queries, texts, others, strict=True)
            if judge is not None and can_judge(judge, people[query.user], query.prompt)
        ]
