"""What an evaluation costs, before it is done: the tokens that are read and written, and the time that takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from fspo.errors import DataError
from fspo.evaluation.answering_stage import AnsweringStage
from fspo.evaluation.config import BASE, EvaluationConfig
from fspo.evaluation.context import Evaluation
from fspo.evaluation.judges.fluency import Fluency, fluency_key
from fspo.evaluation.judges.win_rates import Answer, Answerer, asked_prompts
from fspo.evaluation.provenance import read_provenance
from fspo.evaluation.scoring.descriptions import Described, Describer
from fspo.evaluation.scoring.eval_episodes import Pass, Trial
from fspo.evaluation.scoring.logprob_scores import ScoredEpisode, Scorer, render_pass
from fspo.evaluation.scoring.long_rows import measurable
from fspo.evaluation.scoring.weights import Source, Weights
from fspo.evaluation.scoring_stage import ScoringStage, View
from fspo.methods.adaptation import AdaptationInput, AdaptationWork
from fspo.methods.table import METHODS, Method, training_order
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.types import Episode, Preference
from fspo.printing import rounded
from fspo.progress import Silent, duration
from fspo.records import KeyedLog
from fspo.runs.adaptation_plan import PlannedAdaptation, ShownShots
from fspo.runs.config import RunConfig, methods_of
from fspo.runs.folder import RunFolder
from fspo.runs.training_plan import too_large

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from fspo.modeling.rendering import EpisodeRenderer, TokenizedEpisode

__all__ = ["PlannedEvaluation", "planned_evaluation", "sentence"]

S = TypeVar("S")
T = TypeVar("T")

_SAMPLE = 4
"""Trials that are rendered to count the tokens of all."""
_SEEN = 2
"""Shots in front of them; more change the time of a token little, and take long to read."""
_SHORT = 8
"""Tokens that are written to measure the time of one."""


@dataclass(frozen=True)
class PlannedEvaluation:
    """The work of one evaluation, counted on a sample of its trials."""

    model: str
    config: EvaluationConfig
    read: float
    """Tokens that are scored, or read before an answer or while a policy adapts to a user."""
    learned: float
    """Tokens that policies learn from while they adapt to users."""
    written: float
    """Tokens of answers and descriptions, at most: answers may end earlier. Guided answers count twice."""
    longest: TokenizedEpisode
    """The largest pass of the sample."""
    trial: Trial
    renderer: EpisodeRenderer
    batch: int
    """Answers that are written side by side."""
    adaptations: tuple[PlannedAdaptation, ...] = ()
    """Of methods that make something of a user's shots."""
    begun: bool = False
    """Whether an earlier call has done part of it, which is not counted."""

    @property
    def finished(self) -> bool:
        """Whether nothing is left to be scored or answered."""
        return not (self.read or self.learned or self.written)

    def seconds(self) -> float:
        """How long it takes on this machine, from one pass, a step on shots and a few answers of the base model.

        Raises:
            ModelError: the model can't be loaded, or can't be scored by trunk and branches.
        """
        import torch

        from fspo.modeling.answering import Prompt, answer
        from fspo.modeling.generation import Sampling
        from fspo.modeling.loading import load_model
        from fspo.modeling.logprobs import branch_logprobs

        config, model = self.config, load_model(self.model, dtype=self.config.dtype)
        shots, asked = self.trial.own.shots[:_SEEN], [query.messages for query in self.trial.own.queries]
        batch = self.batch
        prompts = [Prompt(asked[place % len(asked)], shots, seed=place) for place in range(batch)]

        def write(tokens: int) -> None:
            settings = Sampling(tokens, config.temperature)
            answer(model, self.renderer, prompts, replace(settings, end_ids=(-1,)), batch_size=batch)

        def score() -> None:
            branch_logprobs(model, [self.longest])

        learned = 0.0
        if self.learned:
            learn, tokens = _step(model, self.renderer.with_context("none"), self.trial.own.shots)
            learn()
            learned = _timed(learn) / tokens
        with torch.inference_mode():
            score()  # the first pass also pays for what is made once
            read, written = _timed(score) / self.longest.tokens, 0.0
            if self.written:
                write(1)
                first = _timed(lambda: write(1))
                written = max(0.0, _timed(lambda: write(1 + _SHORT)) - first) / _SHORT / batch
        return self.read * read + self.learned * learned + self.written * written


def planned_evaluation(
    config: RunConfig, test: PreferenceDataset, *, judged: bool, out: Path | None = None
) -> PlannedEvaluation | None:
    """The work of a run's evaluation, without that of judges and optional measures; None where nothing can be read.

    If answers are not judged, only a few are drawn for people to read. `out` has what an earlier call measured; None:
    everything is to be done.

    Raises:
        DataError: preferences are too long and refused, or a user has too few that are not.
        StorageError: what an earlier call has measured is damaged.
    """
    rows, weights = methods_of(config), _PlannedWeights(config)
    wanted = (config.evaluation if judged else config.evaluation.for_reading()).with_rungs(weights.shots())
    names = [row.name for row in rows]
    read = measurable(wanted, test, names, weights.renderer, say=lambda _: None)
    trials = read.trials
    evaluation = Evaluation(wanted, read.dataset, trials, names, weights, out or Path(), Silent())
    counted = _Counted(evaluation, ScoringStage(evaluation), AnsweringStage(evaluation, judged), begun=out is not None)
    scored = counted.scored(names)
    if not counted.seen:
        return None
    choosing = len(config.readers) + len(wanted.reward_models)
    answered = counted.answers([*rows, *([] if BASE in names else [METHODS[BASE]])], choosing)
    described = sum((counted.described(row) for row in rows if row.writes_ahead), _Work())
    adaptations = [counted.adaptation(config, row) for row in rows if row.adaptation or row.writes_ahead]
    adapted = sum((counted.adapted(one) for one in adaptations), _Work())
    shown = next((row for row in rows if row.context in ("shots", "both")), None)
    batch = max(1, min(wanted.answer_batch, len(asked_prompts(trials, wanted))))
    total = scored + answered + described + adapted
    return PlannedEvaluation(
        config.model, wanted, total.read, total.learned, total.written, counted.longest, counted.sample(trials)[0],
        weights.renderer(shown.context, shown.name) if shown else weights.renderer("none"), batch, tuple(adaptations),
        begun=counted.found,
    )  # fmt: skip


def sentence(planned: PlannedEvaluation) -> str:
    """What the evaluation reads and writes, and about how long that takes here."""
    if planned.finished:
        return "The evaluation is finished, except for judgements, reward models and optional measures that are new."
    work = f"reads about {rounded(planned.read):,} tokens and writes at most {rounded(planned.written):,}"
    if planned.learned:
        work += f", and learns from {rounded(planned.learned):,} to adapt to users"
    times = ", ".join(f"{one.method} {one.count:,} times" for one in planned.adaptations)
    often = f" Methods adapt to sets of shots: {times}." if times else ""
    if planned.begun:
        often = " This is what an earlier call has left to do."
    why = too_large(planned.model, planned.longest.tokens, 1, "evaluation takes")
    if why:
        return f"The evaluation {work}. {why}{often}"
    unknown = ", ".join(one.method for one in planned.adaptations if one.work is None)
    return (
        f"The evaluation takes about {duration(planned.seconds())}, an estimate from a short measurement on this "
        f"machine, as busy as it is now: it {work}. Judges on servers and optional measures are not included"
        + (f", nor is how {unknown} adapts." if unknown else ".")
        + often
    )


@dataclass(frozen=True)
class _Work:
    """Tokens."""

    read: float = 0.0
    written: float = 0.0
    learned: float = 0.0

    def __add__(self, other: _Work) -> _Work:
        return _Work(self.read + other.read, self.written + other.written, self.learned + other.learned)


class _PlannedWeights(Weights):
    """The weights of a run's methods, trained or still to be trained."""

    def __init__(self, config: RunConfig) -> None:
        """Take stock; nothing is loaded."""
        self.config, self._folder = config, RunFolder(config)
        self._rows = {row.name: row for row in methods_of(config)}
        settings = config.evaluation
        super().__init__(
            config.model,
            {name: self._folder.method(row.policy) if row.policy else None for name, row in self._rows.items()},
            dtype=settings.dtype,
            max_length=settings.max_length,
            layout=settings.layout,
            adaptations=config.adaptations,
        )

    def check(self, name: str, folder: Path | None) -> None:
        """A policy may be missing."""

    def start(self, name: str) -> Source:
        """As of `Weights`; of a policy that is still to be trained, where its training will start."""
        training = self._untrained(name)
        if training is None:
            return super().start(name)
        start = training.starts_from
        return self._folder.method(start).resolve() if start else None

    def reads_no_shots(self, name: str) -> bool:
        """As of `Weights`."""
        training = self._untrained(name)
        if training is None:
            return super().reads_no_shots(name)
        return self.config.training_of(training).reference == "none"

    def shots(self) -> Iterator[int]:
        """The shot counts that the policies are trained at."""
        for name in self._rows:
            training = self._untrained(name)
            if training is None:
                yield from read_provenance({name: self.source(name)})[name].shots
            else:
                settings = self.config.training_of(training)
                yield from settings.ladder or [settings.shots]

    def _untrained(self, name: str) -> Method | None:
        """The method whose training gives this one its policy, where that is still to be done."""
        row, source = self._rows[name], self.source(name)
        if row.policy is None or (source is not None and (source / "policy.json").is_file()):
            return None
        return next(one for one in training_order(self._rows.values()) if one.name == row.policy)


@dataclass
class _Counted:
    """Counts tokens on a sample of the trials; what the evaluation would find in its logs is not counted."""

    evaluation: Evaluation
    scoring: ScoringStage
    answering: AnsweringStage
    begun: bool
    """Whether there are logs."""
    found: bool = False
    """Whether something was found in them."""
    seen: list[TokenizedEpisode] = field(default_factory=list)
    """Passes that were counted."""
    _left: dict[str, float] = field(default_factory=dict)
    """Method -> the share of its scores that is left."""

    def __post_init__(self) -> None:
        """Descriptions may not be written yet: their keys are known without them."""
        config, weights = self.config, self.evaluation.weights
        for name in self.evaluation.methods:
            if METHODS[name].writes_ahead:
                self.scoring.describers[name] = Describer.unwritten(weights.of(name), config.description_tokens)

    @property
    def config(self) -> EvaluationConfig:
        """What is measured."""
        return self.evaluation.config

    @property
    def longest(self) -> TokenizedEpisode:
        """The largest pass that was counted."""
        return max(self.seen, key=lambda one: one.tokens)

    def left(self, path: Path, kind: type, wanted: Callable[[], Collection[str]], batch: int = 1) -> float:
        """The share of these results that the evaluation would compute; see `KeyedLog.left`."""
        if not self.begun:
            return 1.0
        share = KeyedLog(path, kind).left(wanted(), batch)
        self.found = self.found or share < 1
        return share

    def sample(self, trials: Sequence[Trial]) -> Sequence[Trial]:
        """Some of the trials, from all over the list."""
        return trials[:: max(1, len(trials) // _SAMPLE)][:_SAMPLE]

    @property
    def scale(self) -> float:
        """Trials for each one of the sample."""
        return len(self.evaluation.trials) / len(self.sample(self.evaluation.trials))

    @cached_property
    def shown(self) -> ShownShots:
        """The shots that the methods see which make something of them."""
        return ShownShots(self.config, self.evaluation.trials, self.answering.trials, self.evaluation.probes)

    def scored(self, methods: Sequence[str]) -> _Work:
        """What is read to score the methods and what they are measured against, also with corrupted descriptions."""
        read = 0.0
        for source, views in self.scoring.wanted(methods).items():
            for view, name in views.items():
                whole, left = self._scored(source, view, name)
                self._left[name] = left / whole if whole else 0.0
                read += left
        for name in methods:
            for source, view in self.scoring.corrupted_sides(name):
                for share in set(self.config.corruption) - {0.0}:
                    read += self._scored(source, view, name, share)[1]
        return _Work(read)

    def _scored(self, source: Source, view: View, name: str, corruption: float = 0.0) -> tuple[float, float]:
        """Tokens of the scores of these weights, and how many of them are left to be read."""
        scorer, trials = self.scoring.scorer(source, view, name, corruption)
        whole = self.scale * sum(self._tokens(scorer, scorer.scored(trial)[0]) for trial in self.sample(trials))
        left = whole * self.left(self.scoring.margins(name), ScoredEpisode, lambda: scorer.wanted(trials))
        probes = () if corruption else self.scoring.probes(view)
        if probes:
            varied = len(probes) * self._tokens(scorer, scorer.varied(probes[0]))
            log, whole = self.scoring.variations(name), whole + varied
            left += varied * self.left(log, ScoredEpisode, lambda: scorer.wanted_variations(probes))
        return whole, left

    def _tokens(self, scorer: Scorer, parts: Sequence[Pass]) -> float:
        """Tokens of passes; where something is made of the shots, every number of shots has a pass of its own."""
        few, renderer = self.config.ladder_queries, scorer.model.renderer
        if scorer.describer is not None or scorer.model.adaptation is not None:
            parts = [one for part in parts for one in part.by_rung(few)]
        if scorer.writes:
            parts = [
                replace(part, episode=replace(part.episode, description=self._text if part.episode.shots else ""))
                for part in parts
            ]
        rendered = list(_rendered(lambda part: render_pass(renderer, part, few), parts))
        self.seen += rendered
        return sum(one.tokens for one in rendered)

    @property
    def _text(self) -> str:
        """In the place of a text that is not written yet, as long as it can be."""
        return " a" * self.config.description_tokens

    def described(self, row: Method) -> _Work:
        """What is written ahead to describe users."""
        describer, sets = self.scoring.describers[row.name], sum(self.shown.described().values())
        log = self.scoring.descriptions(row.name)
        left = self.left(log, Described, lambda: describer.wanted(self.scoring.described(row.name)))
        self._left[row.name] = left
        return _Work(written=left * sets * self.config.description_tokens)

    def adaptation(self, config: RunConfig, row: Method) -> PlannedAdaptation:
        """How often a method makes something of a user's shots, and what that takes."""
        given, training = config.adaptations.get(row.name), config.training.get(row.name)
        kind = row.adaptation
        sets = self.shown.described() if kind is None or row.writes_ahead else self.shown.adapted(kind)
        renderer = self.evaluation.weights.renderer(row.shown, row.name)

        def work_of(shots: tuple[Preference, ...]) -> AdaptationWork | None:
            if kind is not None and given is not None:
                return kind.work(AdaptationInput(given.settings, renderer, shots, training))
            asked = renderer.render_describing(shots, reserve=self.config.description_tokens)
            return AdaptationWork(len(asked.trunk_ids) + len(asked.prompt_ids))

        trials = self.sample(self.evaluation.trials)
        return PlannedAdaptation(row.name, sets, self.shown.work(sets, trials, work_of))

    def adapted(self, planned: PlannedAdaptation) -> _Work:
        """What is left of an adaptation: the share that is left of the scores or descriptions that need it."""
        work, left = planned.work or AdaptationWork(), self._left[planned.method]
        return _Work(left * work.read, learned=left * work.learned)

    def answers(self, rows: Sequence[Method], choosing: int) -> _Work:
        """Tokens that are read before and after answers, and written as answers.

        `choosing`: how many readers and reward models choose among answers of the base model.
        """
        asked, room = len(asked_prompts(self.answering.trials, self.config)), self.config.max_new_tokens
        work = _Work()
        for answerer, path in self.answering.candidates() if choosing else ():
            left = self._unanswered(answerer, "plain", self.answering.trials, path)
            chosen = choosing * asked * room / self.config.best_of
            work += _Work(left * (self._prompt_tokens(answerer.model.renderer) + chosen), left * asked * room)
        for row in rows:
            answerer = self.answering.answerer(row.name, self.scoring.describers.get(row.name))
            log = self.answering.log(row.name)
            for sampling, trials in self.answering.wanted(row.name).items():
                left = self._unanswered(answerer, sampling, trials, log) * (2 if sampling == "guided" else 1)
                work += _Work(left * self._prompt_tokens(answerer.model.renderer), left * asked * room)
                work += _Work(self._unmeasured(log, answerer.wanted(trials, sampling)) * room)
        return work

    def _unanswered(self, answerer: Answerer, sampling: str, trials: Sequence[Trial], path: Path) -> float:
        """The share of these answers that is left to be drawn."""
        return self.left(path, Answer, lambda: answerer.wanted(trials, sampling), self.config.answer_batch)

    def _unmeasured(self, path: Path, wanted: Mapping[str, tuple[Trial, str, Preference]]) -> int:
        """How many of these answers are not read yet to measure how fluent they are."""
        if not self.begun:
            return len(wanted)
        base, answers = self.evaluation.weights.loadable(None, "none"), KeyedLog(path, Answer)
        fluency = KeyedLog(self.evaluation.out / "fluency.jsonl", Fluency)
        return sum(
            key not in answers or fluency_key(base, answers[key], query.turns) not in fluency
            for key, (_, _, query) in wanted.items()
        )

    def _prompt_tokens(self, renderer: EpisodeRenderer) -> float:
        """Tokens of the prompts that are answered; the shots of a user are read once."""
        trials = self.answering.trials
        some = self.sample(trials)
        return len(trials) / len(some) * sum(self._prompt_tokens_of(trial, renderer) for trial in some)

    def _prompt_tokens_of(self, trial: Trial, renderer: EpisodeRenderer) -> int:
        shots, described, room = trial.own.shots, trial.own.description, self.config.max_new_tokens
        prompts = [query.messages for _, _, query in asked_prompts([trial], self.config)]
        shown = list(_rendered(lambda prompt: renderer.render_prompt(shots, prompt, described, reserve=room), prompts))
        return sum(len(one.prompt_ids) for one in shown) + max((len(one.trunk_ids) for one in shown), default=0)


def _rendered(render: Callable[[S], T], parts: Iterable[S]) -> Iterator[T]:
    """What can be rendered; a text that is not written yet may be taken for too long."""
    for part in parts:
        try:
            yield render(part)
        except DataError:
            continue


def _step(
    model: PreTrainedModel, renderer: EpisodeRenderer, shots: Sequence[Preference]
) -> tuple[Callable[[], object], int]:
    """A step of small weights on the shots, as of a policy that adapts to a user, and the tokens that it reads."""
    import torch

    from fspo.methods.user_weights import LowRank, pair_margins, take_steps

    model.requires_grad_(False)
    shown, places = renderer.render(Episode("", (), tuple(shots))), LowRank(model, rank=1, alpha=1.0)
    start = places.start(torch.Generator())

    def loss(weights: Mapping[str, Tensor], _: int) -> Tensor:
        with places.on(weights):
            return pair_margins(model, [shown]).mean()

    return lambda: take_steps(start, loss, steps=1, rate=1e-3), shown.tokens


def _timed(work: Callable[[], object]) -> float:
    """Seconds that a piece of work takes."""
    started = time.monotonic()
    work()
    return time.monotonic() - started
