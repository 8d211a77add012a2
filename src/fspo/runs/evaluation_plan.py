"""What an evaluation costs, before it is done: the tokens that are read and written, and the time that takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from fspo.errors import DataError
from fspo.evaluation.answering_stage import answered_trials
from fspo.evaluation.config import BASE, REFERENCE, EvaluationConfig
from fspo.evaluation.judges.win_rates import asked_prompts
from fspo.evaluation.scoring.eval_episodes import Pass, Trial, build_trials
from fspo.evaluation.scoring.logprob_scores import render_pass, scored_passes, varied_passes
from fspo.evaluation.scoring.variations import Probe, build_probes
from fspo.evaluation.scoring_stage import UNWRITTEN
from fspo.files import log_lines
from fspo.methods.adaptation import AdaptationWork
from fspo.methods.table import METHODS, Method, MethodContext
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.types import Episode, Preference
from fspo.progress import duration
from fspo.runs.adaptation_plan import PlannedAdaptation, ShownShots
from fspo.runs.config import RunConfig, methods_of
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
_COLD = (0, 1)
"""Shot counts that every evaluation measures."""
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
    config: RunConfig, test: PreferenceDataset, model: str | Path, *, judged: bool, out: Path | None = None
) -> PlannedEvaluation | None:
    """The work of a run's evaluation, without that of judges and optional measures; None where nothing can be read.

    Args:
        config: the run.
        test: the test part.
        model: the folder of its model, whose tokenizer counts.
        judged: whether answers are judged; if not, only a few are drawn for people to read.
        out: folder with what an earlier call has measured; None: everything is to be done.
    """
    rows, wanted = methods_of(config), config.evaluation
    rungs = {*_COLD, *(config.training[row.name].shots for row in rows if row.trains)}
    wanted = wanted.with_rungs(k for k in rungs if k <= wanted.shots)
    if not judged:
        wanted = wanted.for_reading()
    trials = build_trials(test, wanted)
    counted = _Counted(wanted, _renderers(wanted, model), test, trials, judged, out)
    passes = {view: counted.passes(view) for view in _views(rows)}
    longest = max((one for found in passes.values() for one in found), key=lambda one: one.tokens, default=None)
    if longest is None:
        return None
    read = sum(one.tokens for found in passes.values() for one in found) * counted.scale
    read += sum(counted.varied_tokens(view) for view in passes)
    logs = [f"{row.name}{side}/margins.jsonl" for row in rows for side in ("", REFERENCE)]
    left = counted.left(len(passes) * len(trials), logs)
    prompts, written = counted.answers(rows, len(config.readers) + len(wanted.reward_models))
    adaptations = tuple(counted.adaptation(config, row) for row in rows if row.adaptation or row.writes_ahead)
    work = sum((one.work for one in adaptations if one.work), AdaptationWork())
    ahead = sum(one.count for one in adaptations if METHODS[one.method].writes_ahead)
    written += left * wanted.description_tokens * ahead
    context = next((row.context for row in rows if row.context in ("shots", "both")), "none")
    batch = max(1, min(wanted.answer_batch, len(asked_prompts(trials, wanted))))
    return PlannedEvaluation(
        config.model, wanted, left * (read + work.read) + prompts, left * work.learned, written, longest,
        counted.sample[0], counted.renderers[context], batch, adaptations, begun=left < 1,
    )  # fmt: skip


def sentence(planned: PlannedEvaluation) -> str:
    """What the evaluation reads and writes, and about how long that takes here."""
    if planned.finished:
        return "The evaluation is finished, except for judgements and optional measures that are new."
    work = f"reads about {_rounded(planned.read):,} tokens and writes at most {_rounded(planned.written):,}"
    if planned.learned:
        work += f", and learns from {_rounded(planned.learned):,} to adapt to users"
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
        f"machine: it {work}. Judges on servers and optional measures are not included"
        + (f", nor is how {unknown} adapts." if unknown else ".")
        + often
    )


@dataclass(frozen=True)
class _Counted:
    """Counts tokens on a sample of the trials."""

    config: EvaluationConfig
    renderers: Mapping[str, EpisodeRenderer]
    test: PreferenceDataset
    trials: Sequence[Trial]
    judged: bool
    out: Path | None
    """Folder with what an earlier call has measured."""

    def left(self, wanted: int, logs: Iterable[str]) -> float:
        """The share of so many results that these logs do not have yet."""
        done = sum(1 for log in logs for _ in log_lines(self.out / log)) if self.out is not None else 0
        return max(0.0, 1 - done / wanted) if wanted else 0.0

    @property
    def sample(self) -> Sequence[Trial]:
        """Some of the trials, from all over the list."""
        return self.trials[:: max(1, len(self.trials) // _SAMPLE)][:_SAMPLE]

    @property
    def scale(self) -> float:
        """Trials for each one of the sample."""
        return len(self.trials) / len(self.sample)

    @cached_property
    def probes(self) -> list[Probe]:
        """The trials that are measured under variations of their shots."""
        return build_probes(self.test, self.trials, self.config)

    @cached_property
    def answered(self) -> Sequence[Trial]:
        """The trials whose prompts are answered."""
        return answered_trials(self.trials, self.config, judged=self.judged)

    @cached_property
    def shown(self) -> ShownShots:
        """The shots that the methods see which make something of them."""
        return ShownShots(self.config, self.trials, self.answered, self.probes)

    def passes(self, view: _View) -> list[TokenizedEpisode]:
        """What is scored under this view on the trials of the sample."""
        renderer = self.renderers[view.shown]
        found = (
            scored_passes(renderer, trial, self.config, described=view.writes, context=view.context)[0]
            for trial in self.sample
        )
        return self._rendered(view, (part for parts in found for part in parts), self.config.ladder_queries)

    def varied_tokens(self, view: _View) -> float:
        """Tokens of the robustness measures under this view."""
        if view.context not in ("shots", "both") or not self.probes:
            return 0.0
        parts = varied_passes(self.renderers[view.shown], self.probes[0], self.config, described=view.writes)
        return len(self.probes) * sum(one.tokens for one in self._rendered(view, iter(parts), None))

    @property
    def _text(self) -> str:
        """In the place of a text that is not written yet, as long as it can be."""
        return " a" * self.config.description_tokens

    def _rendered(self, view: _View, parts: Iterator[Pass], few: int | None) -> list[TokenizedEpisode]:
        """Passes as tokens; where a method makes something of the shots, every number of shots has one of its own."""
        renderer = self.renderers[view.shown]
        if view.maker:
            parts = (one for part in parts for one in part.by_rung(few))
        if view.writes:
            parts = (
                replace(part, episode=replace(part.episode, description=self._text if part.episode.shots else ""))
                for part in parts
            )
        return list(_rendered(lambda part: render_pass(renderer, part, few), parts))

    def adaptation(self, config: RunConfig, row: Method) -> PlannedAdaptation:
        """How often a method makes something of a user's shots, and what that takes."""
        given, training = config.adaptations.get(row.name), config.training.get(row.name)
        kind = row.adaptation
        sets = self.shown.described() if kind is None or row.writes_ahead else self.shown.adapted(kind)
        renderer = self.renderers[row.shown]

        def work_of(shots: tuple[Preference, ...]) -> AdaptationWork | None:
            if kind is not None and given is not None:
                return kind.work(given.settings, renderer, shots, training=training)
            asked = renderer.render_describing(shots, reserve=self.config.description_tokens)
            return AdaptationWork(len(asked.trunk_ids) + len(asked.prompt_ids))

        return PlannedAdaptation(row.name, sets, self.shown.work(sets, self.sample, work_of))

    def answers(self, rows: Sequence[Method], choosing: int) -> tuple[float, float]:
        """Tokens that are read before all answers, and written as answers.

        `choosing`: how many readers and reward models choose among answers of the base model.
        """
        if not self.config.answers:
            return 0.0, 0.0
        read = written = 0.0
        asked = len(asked_prompts(self.answered, self.config))
        if choosing and (drawn := self.config.best_of):
            left = self.left(drawn * asked, (f"{BASE}/candidates-{number + 1}.jsonl" for number in range(drawn)))
            read += left * drawn * self._prompt_tokens("none") * self.scale
            read += left * choosing * asked * self.config.max_new_tokens
            written += left * drawn * asked * self.config.max_new_tokens
        for row in rows:
            shown = row.reads_shots
            samplings = (
                [one for one in self.config.samplings if one == "plain" or row.guides]
                if row.name != BASE
                else ["plain"]
            )
            few = len([k for k in self.config.answer_ladder if k < self.config.shots]) if shown else 0
            streams = few + sum(2 if one == "guided" else 1 for one in samplings)
            left = self.left((few + len(samplings)) * asked, [f"{row.name}/answers.jsonl"])
            read += left * streams * self._prompt_tokens(row.shown) * self.scale
            # The base model reads every answer once more, to measure how fluent it is.
            read += left * len(samplings) * asked * self.config.max_new_tokens
            written += left * streams * asked * self.config.max_new_tokens
        return read, written

    def _prompt_tokens(self, context: str) -> int:
        """Tokens of the prompts of the sample; the shots of a user are read once."""
        return sum(self._prompt_tokens_of(trial, self.renderers[context]) for trial in self.sample)

    def _prompt_tokens_of(self, trial: Trial, renderer: EpisodeRenderer) -> int:
        shots, described, room = trial.own.shots, trial.own.description, self.config.max_new_tokens
        prompts = [query.messages for _, _, query in asked_prompts([trial], self.config)]
        shown = list(_rendered(lambda prompt: renderer.render_prompt(shots, prompt, described, reserve=room), prompts))
        return sum(len(one.prompt_ids) for one in shown) + max((len(one.trunk_ids) for one in shown), default=0)


def _rendered(render: Callable[[S], T], parts: Iterator[S] | Sequence[S]) -> Iterator[T]:
    """What can be rendered; the others are too long, and left out of the evaluation."""
    for part in parts:
        try:
            yield render(part)
        except DataError:
            continue


def _renderers(config: EvaluationConfig, model: str | Path) -> dict[str, EpisodeRenderer]:
    from fspo.modeling.loading import context_length, load_tokenizer
    from fspo.modeling.rendering import EpisodeRenderer

    tokenizer, limit = load_tokenizer(model), config.max_length or context_length(model)
    return {
        context: EpisodeRenderer(tokenizer, context=context, max_length=limit, layout=config.layout)
        for context in ("none", "shots", "description", "both")
    }


@dataclass(frozen=True)
class _View:
    """Some weights, and what they are shown."""

    weights: str
    """The method that trained them; empty for the base model."""
    shown: MethodContext
    """What stands in the context."""
    context: MethodContext
    """What they get from the user, in the context or by an adaptation."""
    maker: str = ""
    """The method that makes something of the shots, so that every number of shots is scored alone."""
    writes: bool = False
    """Whether a text that the method has written stands in the context."""


def _views(rows: Sequence[Method]) -> set[_View]:
    """The weights and what they are shown: of methods, and of what their rewards are measured against.

    See `fspo.evaluation.scoring_stage.ScoringStage.wanted`.
    """
    found: set[_View] = set()
    for row in rows:
        own, made = row.policy or "", row.describes or row.adaptation is not None
        gets = row.context if row.adaptation is not None else row.shown
        view = _View(own, row.shown, gets, row.name if made else "", row.writes)
        found.add(view)
        bare = _View(own, "none", "none")
        if row.reward_reference == "start" and own:
            start = (row if row.trains else METHODS[own]).starts_from or ""
            if row.adaptation is None:
                found.add(replace(view, weights=start))
            else:
                shown = UNWRITTEN.get(row.shown, row.shown)
                found.add(_View(start, shown, shown))
        else:
            found.add(bare)
    return found


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


def _rounded(tokens: float) -> int:
    """A number of tokens to two digits, which is all that a sample says."""
    return int(float(f"{tokens:.2g}"))
