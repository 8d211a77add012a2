"""Win rates of a method's answers over the base model's, judged for the user in both orders.

Two samplings: `plain`, from the weights given the user's context; `guided`, pushed away from what the same weights
would say to the mirrored user. Answers and judgements are kept line by line, so that a killed run goes on where it
stopped.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fspo.evaluation.config import EvaluationConfig, Floors
from fspo.evaluation.judges.answer_quality import Quality, broken_floors
from fspo.evaluation.judges.judgement_store import judged
from fspo.evaluation.scoring.descriptions import Describer
from fspo.evaluation.scoring.eval_episodes import Item, Trial
from fspo.evaluation.scoring.weights import LoadableModel
from fspo.identity import draw_by
from fspo.judging.judge import Judge
from fspo.judging.verdicts import SCORES, Comparison, Judgement, Preferred
from fspo.preferences.types import Preference, User
from fspo.preferences.wording import wording
from fspo.progress import Progress
from fspo.records import KeyedLog

__all__ = ["Answer", "AnswerKey", "Answerer", "JudgedAnswer", "asked_prompts", "decide", "folder_name", "judge_answers"]


AnswerKey = tuple[str, str]
"""A method and how its answers were drawn: a sampling, with `@k` behind it where only the first k shots were shown."""


@dataclass(frozen=True)
class Answer:
    """One answer to one prompt of one trial."""

    method: str
    sampling: str
    item: str
    user: str
    prompt: str
    text: str
    dropped_shots: int = 0
    """Shots left out of the context because they and the answer had no room."""
    finished: bool = True
    """Whether the model ended its answer, rather than running into `max_new_tokens`."""

    @property
    def key(self) -> Item:
        """The user and the item."""
        return self.user, self.item


@dataclass(frozen=True)
class JudgedAnswer:
    """A method's answer, judged against the base model's as the second, and what the floors make of it."""

    answer: Answer
    base: Answer
    judgement: Judgement
    broken: tuple[str, ...] = ()
    """The floors that the method's answer falls below."""
    base_broken: tuple[str, ...] = ()

    @property
    def preferred(self) -> Preferred:
        """The judge's preference after the floors."""
        return decide(self.judgement.preferred, self.broken, self.base_broken)

    @property
    def decided(self) -> bool:
        """Whether the preference counts: it is the judge's, or that of the floors."""
        return not self.judgement.failure or bool(self.broken) != bool(self.base_broken)

    @property
    def score(self) -> float | None:
        """1 for a win, 0.5 for a tie, 0 for a loss, after the floors; None where nothing is decided."""
        return SCORES[self.preferred] if self.decided else None

    @property
    def degree(self) -> float | None:
        """How far the answer is preferred: the probability if the judge weighs, else the score; None for a failure.

        Where a floor is broken, that decides.
        """
        if self.judgement.probability is not None and not self.broken and not self.base_broken:
            return self.judgement.probability
        return self.score


def decide(preferred: Preferred, broken: Sequence[str], base_broken: Sequence[str]) -> Preferred:
    """The preference after the floors: the only answer below one loses; if both are, it is a tie."""
    if broken and base_broken:
        return "tie"
    if broken:
        return "second"
    return "first" if base_broken else preferred


def folder_name(name: str) -> str:
    """The folder of a method's files; a name that could be a path, or that of another file, gets a digest."""
    if re.fullmatch(r"\w[\w.-]{0,99}", name, re.ASCII) and not name.endswith((".json", ".jsonl")):
        return name
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:60]
    return f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def judge_answers(
    judge: Judge,
    users: Mapping[str, User],
    answers: Sequence[Answer],
    base_answers: Mapping[str, Answer],
    qualities: Mapping[str, Quality],
    base_qualities: Mapping[str, Quality],
    floors: Floors,
    *,
    path: Path,
    name: str = "",
    progress: Progress | None = None,
) -> list[JudgedAnswer]:
    """Judge every answer against the base model's answer to the same item; all mappings are by item id.

    The judgements are stored in `path` for this judge and these users as they are; the floors are applied again each
    time. See `judged` for what is raised.
    """
    pairs = [(a.item, Comparison(users[a.user], a.prompt, a.text, base_answers[a.item].text)) for a in answers]
    judgements = judged(judge, pairs, path=path, name=name, progress=progress)
    return [
        JudgedAnswer(
            answer,
            base_answers[answer.item],
            judgement,
            broken_floors(qualities[answer.item], floors),
            broken_floors(base_qualities[answer.item], floors),
        )
        for answer, judgement in zip(answers, judgements, strict=True)
    ]


_Asked = tuple[Trial, str, Preference]
"""A trial, the id of an item and its query."""

_DRAWN = ("seed", "max_new_tokens", "temperature", "top_p", "answer_batch", "max_length")
"""Settings that an answer depends on."""


@dataclass(frozen=True)
class Answerer:
    """Lets a method answer held-out prompts; what a log has already is not answered again.

    Batches are the same however often the run was interrupted, and each answer has its own seed: so are the answers.
    """

    model: LoadableModel
    config: EvaluationConfig
    method: str
    describer: Describer | None = None
    """Gives the description that stands beside shots, in the place of the user's own."""
    progress: Progress | None = None

    def answer(self, trials: Sequence[Trial], sampling: str, path: Path) -> list[Answer]:
        """Answer the first held-out prompts of every trial; `path` is `answers.jsonl`.

        A `sampling` may say by `@k` how many shots the trials hold; its random numbers are those of the full one.
        """
        config, guided = self.config, _is_guided(sampling)

        def generate(batch: Sequence[_Asked]) -> list[Answer]:
            return self._generate(batch, sampling, config.guidance if guided else 0.0)

        title, wanted = f"Answering, {self.method} {sampling}", self.wanted(trials, sampling)
        return KeyedLog(path, Answer).complete(
            wanted, generate, batch=config.answer_batch, title=title, progress=self.progress
        )

    def wanted(self, trials: Sequence[Trial], sampling: str) -> dict[str, _Asked]:
        """The key of each answer in its log -> what it answers."""
        config, guided = self.config, _is_guided(sampling)
        drawn = [getattr(config, name) for name in _DRAWN]
        drawn += [config.guidance, config.plausibility] if guided else []
        settings = json.dumps([self.model.key, self.model.renderer.context, sampling, *drawn])
        settings += self.describer.key if self.describer else ""
        return {
            draw_by(settings, trial.key, item, query.prompt, place // config.answer_batch)[:16]: (trial, item, query)
            for place, (trial, item, query) in enumerate(asked_prompts(trials, config))
        }

    def _generate(self, batch: Sequence[_Asked], sampling: str, guidance: float) -> list[Answer]:
        from fspo.modeling.answering import Prompt
        from fspo.modeling.generation import Sampling

        prompts, model, config = [], self.model, self.config
        salt = f"{self.method}/{sampling.partition('@')[0]}"
        for trial, item, query in batch:
            shots, described, mirrored = trial.own.shots, trial.own.description, None
            if self.describer is not None:
                described, mirrored = self.describer(shots), self.describer([shot.swap() for shot in shots])
            seed = int(draw_by(salt, item)[:16], 16) % 2**31
            prompts.append(Prompt(query.messages, shots, described, mirrored, seed=seed))
        settings = Sampling(config.max_new_tokens, config.temperature, config.top_p, guidance, config.plausibility)
        replies = model.answer(prompts, settings, seed=config.seed)
        return [
            Answer(
                self.method, sampling, item, trial.user, query.prompt, reply.text, reply.dropped_shots, reply.finished
            )
            for (trial, item, query), reply in zip(batch, replies, strict=True)
        ]


def _is_guided(sampling: str) -> bool:
    return sampling.partition("@")[0] == "guided"


def asked_prompts(trials: Iterable[Trial], config: EvaluationConfig) -> list[_Asked]:
    """Prompts of each user, chosen by a digest, so that users answer the same ones where they can."""
    chosen: list[_Asked] = []
    seen: dict[str, set[str]] = {}
    for trial in trials:
        prompts = seen.setdefault(trial.user, set())
        for number, query in sorted(enumerate(trial.own.queries), key=lambda q: draw_by(config.seed, q[1].prompt)):
            if len(prompts) < config.answers and wording(query.prompt) not in prompts:
                prompts.add(wording(query.prompt))
                chosen.append((trial, trial.item(number), query))
    return chosen
