"""What an evaluation costs, before it is done: the tokens that are read and written, and the time that takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from fspo.errors import DataError
from fspo.evaluation.config import BASE, EvaluationConfig
from fspo.evaluation.judges.win_rates import asked_prompts
from fspo.evaluation.scoring.eval_episodes import Trial, build_trials
from fspo.evaluation.scoring.logprob_scores import render_pass, scored_passes, varied_passes
from fspo.evaluation.scoring.variations import build_probes
from fspo.methods.table import Method
from fspo.preferences.dataset import PreferenceDataset
from fspo.progress import duration
from fspo.runs.config import RunConfig, methods_of
from fspo.runs.training_plan import too_large

if TYPE_CHECKING:
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
    """Tokens that are scored, or read before an answer."""
    written: float
    """Tokens of answers and descriptions, at most: answers may end earlier. Guided answers count twice."""
    longest: TokenizedEpisode
    """The largest pass of the sample."""
    trial: Trial
    renderer: EpisodeRenderer
    batch: int
    """Answers that are written side by side."""

    def seconds(self) -> float:
        """How long it takes on this machine, from one pass and a few answers of the base model.

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

        with torch.inference_mode():
            score()  # the first pass also pays for what is made once
            read, written = _timed(score) / self.longest.tokens, 0.0
            if self.written:
                write(1)
                first = _timed(lambda: write(1))
                written = max(0.0, _timed(lambda: write(1 + _SHORT)) - first) / _SHORT / batch
        return self.read * read + self.written * written


def planned_evaluation(
    config: RunConfig, test: PreferenceDataset, model: str | Path, *, judged: bool
) -> PlannedEvaluation | None:
    """The work of a run's evaluation, without that of judges and optional measures; None where nothing can be read.

    Args:
        config: the run.
        test: the test part.
        model: the folder of its model, whose tokenizer counts.
        judged: whether answers are judged; if not, only a few are drawn for people to read.
    """
    rows, wanted = methods_of(config), config.evaluation
    rungs = {*_COLD, *(config.training[row.name].shots for row in rows if row.trains)}
    wanted = wanted.with_rungs(k for k in rungs if k <= wanted.shots)
    if not judged:
        wanted = wanted.for_reading()
    trials = build_trials(test, wanted)
    counted = _Counted(wanted, _renderers(wanted, model), test, trials)
    passes = {view: counted.passes(view[1]) for view in _views(rows)}
    longest = max((one for found in passes.values() for one in found), key=lambda one: one.tokens, default=None)
    if longest is None:
        return None
    read = sum(one.tokens for found in passes.values() for one in found) * counted.scale
    read += sum(counted.varied_tokens(context) for _, context in passes)
    prompts, written = counted.answers(rows, len(config.readers) + len(wanted.reward_models))
    context = next((row.context for row in rows if row.context in ("shots", "both")), "none")
    batch = max(1, min(wanted.answer_batch, len(asked_prompts(trials, wanted))))
    return PlannedEvaluation(
        config.model, wanted, read + prompts, written, longest, counted.sample[0], counted.renderers[context], batch
    )


def sentence(planned: PlannedEvaluation) -> str:
    """What the evaluation reads and writes, and about how long that takes here."""
    work = f"reads about {_rounded(planned.read):,} tokens and writes at most {_rounded(planned.written):,}"
    why = too_large(planned.model, planned.longest.tokens, 1, "evaluation takes")
    if why:
        return f"The evaluation {work}. {why}"
    return (
        f"The evaluation takes about {duration(planned.seconds())}, an estimate from a short measurement on this "
        f"machine: it {work}. Judges on servers, optional measures and adapting to users are not included."
    )


@dataclass(frozen=True)
class _Counted:
    """Counts tokens on a sample of the trials."""

    config: EvaluationConfig
    renderers: Mapping[str, EpisodeRenderer]
    test: PreferenceDataset
    trials: Sequence[Trial]

    @property
    def sample(self) -> Sequence[Trial]:
        """Some of the trials, from all over the list."""
        return self.trials[:: max(1, len(self.trials) // _SAMPLE)][:_SAMPLE]

    @property
    def scale(self) -> float:
        """Trials for each one of the sample."""
        return len(self.trials) / len(self.sample)

    def passes(self, context: str) -> list[TokenizedEpisode]:
        """What is scored in this context on the trials of the sample."""
        renderer, few = self.renderers[context], self.config.ladder_queries
        shown = (part for trial in self.sample for part in scored_passes(renderer, trial, self.config)[0])
        return list(_rendered(lambda part: render_pass(renderer, part, few), shown))

    def varied_tokens(self, context: str) -> float:
        """Tokens of the robustness measures in this context."""
        probes = build_probes(self.test, self.trials, self.config) if context in ("shots", "both") else []
        if not probes:
            return 0.0
        renderer = self.renderers[context]
        parts = varied_passes(renderer, probes[0], self.config)
        return len(probes) * sum(one.tokens for one in _rendered(lambda part: render_pass(renderer, part, None), parts))

    def answers(self, rows: Sequence[Method], choosing: int) -> tuple[float, float]:
        """Tokens that are read before all answers, and written as answers and descriptions.

        `choosing`: how many readers and reward models choose among answers of the base model.
        """
        if not self.config.answers:
            return 0.0, 0.0
        read = written = 0.0
        asked = len(asked_prompts(self.trials, self.config))
        if choosing and self.config.best_of:
            read += self.config.best_of * self._prompt_tokens("none") * self.scale
            read += choosing * asked * self.config.max_new_tokens
            written += self.config.best_of * asked * self.config.max_new_tokens
        for row in rows:
            shown = row.reads_shots
            samplings = (
                [one for one in self.config.samplings if one == "plain" or row.guides]
                if row.name != BASE
                else ["plain"]
            )
            streams = sum(2 if one == "guided" else 1 for one in samplings)
            streams += len([k for k in self.config.answer_ladder if k < self.config.shots]) if shown else 0
            read += streams * self._prompt_tokens(row.shown) * self.scale
            # The base model reads every answer once more, to measure how fluent it is.
            read += len(samplings) * asked * self.config.max_new_tokens
            written += streams * asked * self.config.max_new_tokens
            written += 2 * len(self.trials) * self.config.description_tokens * row.writes
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


def _views(rows: Sequence[Method]) -> set[tuple[str, str]]:
    """The weights by their method, and what they are shown: of methods, and of what their rewards are measured against.

    See `fspo.evaluation.scoring_stage.ScoringStage.wanted`.
    """
    found: set[tuple[str, str]] = set()
    for row in rows:
        own = row.policy or ""
        found.add((own, row.shown))
        start = row.trains and row.reward_reference == "start"
        found.add((row.starts_from or "", row.shown) if start else (own, "none"))
    return found


def _timed(work: Callable[[], object]) -> float:
    """Seconds that a piece of work takes."""
    started = time.monotonic()
    work()
    return time.monotonic() - started


def _rounded(tokens: float) -> int:
    """A number of tokens to two digits, which is all that a sample says."""
    return int(float(f"{tokens:.2g}"))
