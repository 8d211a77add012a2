"""Which response a method ranks higher: log-probs of every query under every condition, once, and margins from them.

Each pair of weights and context is scored once per user, with all its shot counts in one pass over the trunk; accuracy,
the curve over k, the label-flip rate, the user-swap drop and what is measured under variations are all read off the
same table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from fspo.errors import ModelError
from fspo.evaluation.config import EvaluationConfig
from fspo.evaluation.scoring.descriptions import Describer
from fspo.evaluation.scoring.eval_episodes import Condition, Pass, Trial
from fspo.evaluation.scoring.variations import Probe, Trim
from fspo.evaluation.scoring.weights import LoadableModel
from fspo.modeling.fitting import AROUND_DESCRIPTION
from fspo.modeling.reduction import Reduction
from fspo.modeling.rendering import Context
from fspo.preferences.types import Episode
from fspo.progress import Progress
from fspo.records import KeyedLog

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from fspo.modeling.rendering import EpisodeRenderer, TokenizedEpisode

__all__ = [
    "ROUNDING",
    "Score",
    "ScoredEpisode",
    "Scorer",
    "Scores",
    "passes",
    "render_pass",
    "scored_passes",
    "varied_passes",
]

T = TypeVar("T")

ROUNDING = 1e-3
"""Nats, of a sum over the tokens of a response, below which a margin is rounding and no decision."""


@dataclass(frozen=True)
class Score:
    """Log-probs in nats, summed over the tokens of the chosen and of the rejected response of one query."""

    item: str
    k: int
    condition: Condition
    chosen: float
    rejected: float
    chosen_tokens: int
    rejected_tokens: int
    discounted: float | None = None
    """How much likelier the chosen response is by the reduction of this name; None of a reward model's own score, which
    is not made of tokens."""

    def margin(self, reduction: Reduction = "sum") -> float:
        """How much likelier the chosen response is, by a reduction."""
        if reduction == "discounted" and self.discounted is not None:
            return self.discounted
        if reduction == "mean":
            return self.chosen / self.chosen_tokens - self.rejected / self.rejected_tokens
        return self.chosen - self.rejected


@dataclass(frozen=True)
class ScoredEpisode:
    """The scores of one episode under all its conditions, as a log has them."""

    user: str
    rows: tuple[Score, ...]
    donor: str = ""
    """The user whose shots were swapped in."""
    dropped_shots: int = 0
    unread: int = 0
    """Pairs without a score of the reward model."""
    failed: bool = False
    """Whether a request to a reward model failed, so that the next call scores the episode again."""


class Scores:
    """The scores of one pair of weights and context, looked up by item, shot count and condition.

    A context without shots is the same at every k, and flipping labels leaves it alone; one without anything is the
    same for every other user that is swapped in. Such look-ups find the one score there is.
    """

    def __init__(
        self,
        context: Context,
        rows: Iterable[Score],
        *,
        dropped_shots: int = 0,
        described: bool = False,
        unread: int = 0,
    ) -> None:
        self.context: Context = context
        self.unread = unread
        """Pairs without a usable score of an external reward model."""
        self.bare_at_none = context == "shots" or described
        """Whether nothing is shown where there are no shots: a description of the user's own would be."""
        self.dropped_shots = dropped_shots
        self._rows = {(row.item, row.k, row.condition): row for row in rows}

    def __len__(self) -> int:
        return len(self._rows)

    def joined(self, rows: Iterable[Score]) -> Scores:
        """These scores and more of the same weights and context, under other conditions."""
        described = self.context == "both" and self.bare_at_none
        return Scores(
            self.context, [*self._rows.values(), *rows], dropped_shots=self.dropped_shots, described=described
        )

    def get(self, item: str, k: int, condition: Condition = "own") -> Score | None:
        """The score, or None where it was not measured."""
        if self.context == "none":
            return self._rows.get((item, 0, "own"))
        if self.context == "description":
            return self._rows.get((item, 0, "swapped" if condition.startswith("swapped") else "own"))
        if k == 0 and self.bare_at_none:
            condition = "own"
        return self._rows.get((item, k, condition))

    def margin(self, item: str, k: int, condition: Condition = "own", reduction: Reduction = "sum") -> float | None:
        """Log pi(y_w | S, x) - log pi(y_l | S, x); None where it was not measured."""
        score = self.get(item, k, condition)
        return None if score is None else score.margin(reduction)


@dataclass(frozen=True)
class Scorer:
    """Scores trials by the log-probs of some weights; what a log has already is not scored again."""

    model: LoadableModel
    config: EvaluationConfig
    name: str
    """The method, for the progress display and errors."""
    describer: Describer | None = None
    """Gives the description that stands beside shots, in the place of the user's own."""
    progress: Progress | None = None

    def score(self, trials: Sequence[Trial], path: Path) -> Scores:
        """Score every trial under every condition asked for; `path` is `margins.jsonl`, and gains a line for each.

        Raises:
            ModelError: a log-prob is not a finite number.
        """

        def plan(trial: Trial) -> tuple[Trial, list[Pass], int]:
            return trial, *self.scored(trial)

        scored = self._complete(self.wanted(trials), plan, path, "Scoring")
        rows, dropped = (row for one in scored for row in one.rows), sum(one.dropped_shots for one in scored)
        return Scores(self.model.context, rows, dropped_shots=dropped, described=self.writes)

    def vary(self, probes: Sequence[Probe], path: Path) -> list[Score]:
        """Score every probe at the full shot count under its variations; `path` is `variations.jsonl`.

        Raises:
            ModelError: a log-prob is not a finite number.
        """

        def plan(probe: Probe) -> tuple[Trial, list[Pass], int]:
            return probe.trial, self.varied(probe), 0

        scored = self._complete(self.wanted_variations(probes), plan, path, "Varying the shots for")
        return [row for one in scored for row in one.rows]

    def wanted(self, trials: Sequence[Trial]) -> dict[str, Trial]:
        """The key of each result of `score` in its log -> the trial."""
        config, context = self.config, self.model.context
        depth = (config.rungs, config.ladder_queries, config.mirrored_ladder, config.max_length)
        key = self._key(f"{context}/{depth}/{_conditions(context, config)}")
        return {f"{trial.key}/{key}": trial for trial in trials}

    def wanted_variations(self, probes: Sequence[Probe]) -> dict[str, Probe]:
        """The key of each result of `vary` in its log -> the probe."""
        key = self._key(f"{self.model.context}/{self.config.shots}/{self.config.max_length}")
        return {f"{probe.key(self.config)}/{key}": probe for probe in probes}

    def scored(self, trial: Trial) -> tuple[list[Pass], int]:
        """What a trial is scored under, and how many shots are left out for that; see `scored_passes`."""
        context, renderer = self.model.context, self.model.renderer
        return scored_passes(renderer, trial, self.config, described=self.writes, context=context)

    def varied(self, probe: Probe) -> list[Pass]:
        """What a probe is scored under; see `varied_passes`."""
        return varied_passes(self.model.renderer, probe, self.config, described=self.writes)

    @property
    def writes(self) -> bool:
        """Whether a description stands in the context that is not the user's own."""
        return self.describer is not None or self.model.describes

    def _key(self, settings: str) -> str:
        # Scores of earlier versions do not have it.
        reduced = "/discounted" if self.config.reduction == "discounted" else ""
        return f"{self.model.key}/{settings}{reduced}" + (self.describer.key if self.describer else "")

    def _complete(
        self, wanted: Mapping[str, T], plan: Callable[[T], tuple[Trial, list[Pass], int]], path: Path, doing: str
    ) -> list[ScoredEpisode]:
        """`plan` gives a trial, what it is scored under, and how many shots were left out for that."""

        def score(some: Sequence[T]) -> Iterator[ScoredEpisode]:
            for one in some:
                trial, wanted_passes, dropped = plan(one)
                rows = tuple(row for shown in wanted_passes for row in self._rows(trial, shown))
                yield ScoredEpisode(trial.user, rows, trial.donor, dropped)

        title = f"{doing} {self.name}"
        return KeyedLog(path, ScoredEpisode).complete(wanted, score, title=title, progress=self.progress)

    def _rows(self, trial: Trial, shown: Pass) -> Iterator[Score]:
        parts, few = [shown], self.config.ladder_queries
        if self.describer is not None:
            # A description follows from the shots that are shown, so every shot count has a trunk of its own.
            parts = [_told(part, self.describer(part.episode.shots)) for part in shown.by_rung(few)]
        elif self.model.adaptation is not None:
            parts = shown.by_rung(few)  # and a policy of its own
        for part in parts:
            with self.model.for_user(part.episode.shots) as user:
                if user is None:
                    rows = _one_pass(self.model.load(), self.model.renderer, trial, part, few)
                else:
                    rows = _one_pass(user.model, user.renderer, trial, _told(part, user.text), few)
            for row in rows:
                if not (math.isfinite(row.chosen) and math.isfinite(row.rejected)):
                    raise ModelError(
                        f"The log-probs of {self.name} are not numbers in {self.config.dtype} (user {trial.user!r}, "
                        f"pair {row.item!r}); set evaluation.dtype to float32 or bfloat16, or look at how its weights "
                        "were trained."
                    )
                yield row


def _told(shown: Pass, description: str) -> Pass:
    """The pass with a description in the place of the user's own."""
    return replace(shown, episode=replace(shown.episode, description=description))


def scored_passes(
    renderer: EpisodeRenderer,
    trial: Trial,
    config: EvaluationConfig,
    *,
    described: bool = False,
    context: Context | None = None,
) -> tuple[list[Pass], int]:
    """What a trial is scored under, without the shots there is no room for, and how many these are.

    Where a description is still to be written (`described`), there is room for it in the place of the user's own.
    `context` is what the policy gets from the user, where that is not only what the renderer shows.
    """
    trim = _trimming(renderer, config, described)
    own, dropped = trim(trial.own)
    swapped, more = (None, 0) if trial.swapped is None else trim(trial.swapped)
    return passes(context or renderer.context, own, swapped, config), max(dropped, more)


def varied_passes(
    renderer: EpisodeRenderer, probe: Probe, config: EvaluationConfig, *, described: bool = False
) -> list[Pass]:
    """The variations of a probe without the shots there is no room for; see `scored_passes`."""
    return probe.variations(config, _trimming(renderer, config, described))


def _trimming(renderer: EpisodeRenderer, config: EvaluationConfig, described: bool) -> Trim:
    def trim(episode: Episode) -> tuple[Episode, int]:
        reserve = config.description_tokens + AROUND_DESCRIPTION if described else 0
        return renderer.trim(replace(episode, description="") if described else episode, reserve=reserve)

    return trim


def passes(context: Context, own: Episode, swapped: Episode | None, config: EvaluationConfig) -> list[Pass]:
    """The trunks to run: conditions other than the user's own only at the full shot count."""
    rungs = config.rungs if context in ("shots", "both") else (0,)
    numbers = tuple(range(len(own.queries)))
    as_own = Pass("own", own, rungs, numbers)
    found = {"own": as_own, "flipped": as_own.mirrored if config.mirrored_ladder else _full(as_own.mirrored)}
    if swapped is not None:
        as_other = _full(Pass("swapped", swapped, rungs, numbers))
        found |= {"swapped": as_other, "swapped-flipped": as_other.mirrored}
    return [found[condition] for condition in ("own", *_conditions(context, config)) if condition in found]


def _full(shown: Pass) -> Pass:
    return replace(shown, rungs=shown.rungs[-1:])


def _conditions(context: Context, config: EvaluationConfig) -> tuple[Condition, ...]:
    shown = context in ("shots", "both")
    wanted: list[Condition] = []
    if shown and config.label_flip:
        wanted.append("flipped")
    if context != "none" and config.user_swap:
        wanted.append("swapped")
    if shown and config.label_flip and config.user_swap and config.mirrored_swap:
        wanted.append("swapped-flipped")
    return tuple(wanted)


def render_pass(renderer: EpisodeRenderer, shown: Pass, ladder_queries: int | None) -> TokenizedEpisode:
    """What is scored in one pass, as tokens; below the full shot count the first `ladder_queries` queries alone."""
    tokens = renderer.render(shown.episode, shots=shown.rungs)
    full = min(max(shown.rungs), len(tokens.boundaries) - 1)
    few = len(shown.numbers) if ladder_queries is None else ladder_queries
    return replace(tokens, branches=tuple(b for b in tokens.branches if b.shots == full or b.query < few))


def _one_pass(
    model: PreTrainedModel, renderer: EpisodeRenderer, trial: Trial, shown: Pass, ladder_queries: int | None
) -> list[Score]:
    """Scores of the episode's queries; below the full shot count of the first `ladder_queries` alone."""
    import torch

    from fspo.modeling.logprobs import branch_logprobs

    tokens = render_pass(renderer, shown, ladder_queries)
    left = len(tokens.boundaries) - 1
    with torch.inference_mode():
        (result,) = branch_logprobs(model, [tokens])
    discounted_B = result.discounted[:, 0] - result.discounted[:, 1]
    logprobs = zip(result.sums.tolist(), result.lengths.tolist(), discounted_B.tolist(), strict=True)
    # Where shots were dropped, rungs above what is left all stand at the same place.
    return [
        Score(
            trial.item(shown.numbers[branch.query]),
            rung,
            shown.condition,
            chosen=chosen,
            rejected=rejected,
            chosen_tokens=chosen_tokens,
            rejected_tokens=rejected_tokens,
            discounted=discounted,
        )
        for branch, ((chosen, rejected), (chosen_tokens, rejected_tokens), discounted) in zip(
            tokens.branches, logprobs, strict=True
        )
        for rung in shown.rungs
        if min(rung, left) == branch.shots
    ]
