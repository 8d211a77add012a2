"""Every method's answers to held-out prompts, by every sampling, and their measures without a judge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

from fspo.evaluation.config import BASE, EvaluationConfig, Sampling
from fspo.evaluation.context import Evaluation
from fspo.evaluation.judges.answer_quality import Closeness, Quality, measure_quality
from fspo.evaluation.judges.win_rates import Answer, Answerer, AnswerKey, asked_prompts, folder_name
from fspo.evaluation.scoring.descriptions import Describer
from fspo.evaluation.scoring.eval_episodes import Trial, texts_of
from fspo.evaluation.scoring.reward_models.loading import ExternalRewardModel
from fspo.evaluation.scoring.reward_models.protocol import Failed, RewardRequest, blind
from fspo.evaluation.scoring.reward_models.scoring import scores_of
from fspo.identity import digest
from fspo.methods.table import METHODS
from fspo.records import KeyedLog

__all__ = ["AnsweringStage"]

_READ_USERS = 8
"""Users whose prompts are answered where nobody judges the answers."""


@dataclass
class AnsweringStage:
    """The answers of one evaluation, gathered one set of weights after the other."""

    evaluation: Evaluation
    judged: bool = True
    """Whether anybody judges the answers; if not, a few are enough to be read."""
    answers: dict[AnswerKey, list[Answer]] = field(default_factory=dict)
    _candidates: list[tuple[Answer, ...]] = field(default_factory=list)
    """For each prompt, the answers that reward models choose from."""

    def answer(self, method: str, describer: Describer | None) -> None:
        """Let a method answer by every sampling, once; nothing where no answers are asked for."""
        if any(name == method for name, _ in self.answers):
            return
        for sampling, trials in self.wanted(method).items():
            answerer = self.answerer(method, describer)
            self.answers[method, sampling] = answerer.answer(trials, sampling, self.log(method))

    def wanted(self, method: str) -> dict[str, Sequence[Trial]]:
        """Sampling -> whose prompts a method answers by it; nothing where no answers are asked for."""
        config, row = self.evaluation.config, METHODS[method]
        if not config.answers:
            return {}
        samplings = [one for one in config.samplings if row.guides or one == "plain"] if method != BASE else ["plain"]
        headline = config.headline_sampling if config.headline_sampling in samplings else "plain"
        fewer = [k for k in config.answer_ladder if k < config.shots] if row.reads_shots else []
        few = {f"{headline}@{k}": [trial.first(k) for trial in self.trials] for k in fewer}
        return {**dict.fromkeys(samplings, self.trials), **few}

    def answerer(self, method: str, describer: Describer | None) -> Answerer:
        """What draws a method's answers."""
        evaluation = self.evaluation
        return Answerer(evaluation.weights.of(method), evaluation.config, method, describer, evaluation.progress)

    def log(self, method: str) -> Path:
        """The log of a method's answers."""
        return self.evaluation.out / method / "answers.jsonl"

    @property
    def draws_candidates(self) -> bool:
        """Whether reward models answer too, by choosing from candidates."""
        return bool(self.evaluation.config.answers and self.evaluation.config.best_of)

    def candidates(self) -> Iterator[tuple[Answerer, Path]]:
        """What draws each candidate of `draw_candidates`, and its log; nothing where none are asked for."""
        evaluation, config = self.evaluation, self.evaluation.config
        if not self.draws_candidates:
            return
        base = evaluation.weights.loadable(evaluation.weights.source(BASE), "none")
        for number in range(1, config.best_of + 1):
            answerer = Answerer(base, config, f"candidate {number}", progress=evaluation.progress)
            yield answerer, evaluation.out / BASE / f"candidates-{number}.jsonl"

    def draw_candidates(self) -> None:
        """Let the base model draw the answers that reward models choose from; nothing where none are asked for."""
        drawn = [answerer.answer(self.trials, "plain", path) for answerer, path in self.candidates()]
        self._candidates = list(zip(*drawn, strict=True))

    def choose(self, model: ExternalRewardModel) -> None:
        """Let a reward model answer: its answer is the candidate with the highest reward given the user's shots."""
        if not self._candidates:
            return
        shots = {trial.id: blind(trial.own.shots) if model.shots else () for trial in self.trials}
        failed: set[Answer] = set()
        """Chosen although a score was missing, so that the next evaluation chooses again."""
        path = self.evaluation.out / folder_name(model.name) / "answers.jsonl"
        log = KeyedLog(path, Answer, lasting=lambda answer: answer not in failed)
        wanted = {
            digest([model.fingerprint, texts_of(shots[_trial_of(row)]), [asdict(one) for one in row]]): row
            for row in self._candidates
        }

        def pick(rows: Sequence[tuple[Answer, ...]]) -> Iterator[Answer]:
            for row in rows:
                seen = shots[_trial_of(row)]
                scores = scores_of(model, [RewardRequest(seen, one.prompt, one.text) for one in row], row[0].user)
                best = replace(row[_best(scores)], method=model.name)
                if Failed.FAILED in scores:
                    failed.add(best)
                yield best

        title = f"Answering, {model.name} best of {self.evaluation.config.best_of}"
        self.answers[model.name, "plain"] = log.complete(wanted, pick, title=title, progress=self.evaluation.progress)

    def headline_sampling(self, method: str) -> Sampling:
        """The sampling that a method's win rate is of."""
        wanted = self.evaluation.config.headline_sampling
        return wanted if (method, wanted) in self.answers else "plain"

    @property
    def samplings(self) -> dict[str, Sampling]:
        """Method -> the sampling of its win rate."""
        names = dict.fromkeys((*self.evaluation.methods, *(name for name, _ in self.answers)))
        return {name: self.headline_sampling(name) for name in names if name != BASE}

    def qualities(self) -> dict[AnswerKey, dict[str, Quality]]:
        """The judge-free measures of every answer, by item id; word rarities are counted over all prompts."""
        if not self.answers:
            return {}
        everything = [answer for answers in self.answers.values() for answer in answers]
        log_probs = iter(self.evaluation.log_probs(everything))
        closeness = Closeness({preference.prompt for preference in self.evaluation.dataset})
        return {
            key: {a.item: measure_quality(a.prompt, a.text, next(log_probs), closeness) for a in answers}
            for key, answers in self.answers.items()
        }

    @cached_property
    def trials(self) -> Sequence[Trial]:
        """Whose prompts are answered."""
        return _answered_trials(self.evaluation.trials, self.evaluation.config, judged=self.judged)


def _answered_trials(trials: Sequence[Trial], config: EvaluationConfig, *, judged: bool) -> Sequence[Trial]:
    """Whose prompts are answered; without a judge, users whose prompt most others have too."""
    if judged:
        return trials
    prompts = {trial.user: query.prompt for trial, _, query in asked_prompts(trials, config)}
    often = Counter(prompts.values())
    users = sorted(prompts, key=lambda user: (-often[prompts[user]], prompts[user], user))[:_READ_USERS]
    return [trial for trial in trials if trial.user in users]


def _trial_of(row: Sequence[Answer]) -> str:
    """The id of the trial that answers to one prompt belong to."""
    return row[0].item.rpartition("/")[0]


def _best(scores: Sequence[float | Failed | None]) -> int:
    """The place of the highest score; the first of equals, and one without a score only if all are."""
    values = [score if isinstance(score, float) else float("-inf") for score in scores]
    return max(range(len(values)), key=lambda place: (values[place], -place))
