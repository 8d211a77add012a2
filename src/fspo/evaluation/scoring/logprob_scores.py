"""Which response a method ranks higher: log-probs of every query under every condition, once, and margins from them.

Each pair of weights and context is scored once per user, with all its shot counts in one pass over the trunk; accuracy,
the curve over k, the label-flip rate, the user-swap drop and what is measured under variations are all read off the
same table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fspo.errors import ModelError
from fspo.evaluation.config import EvaluationConfig, Reduction
from fspo.evaluation.scoring.descriptions import Describer
from fspo.evaluation.scoring.eval_episodes import Trial
from fspo.evaluation.scoring.variations import Probe, Variation
from fspo.modeling.rendering import Context
from fspo.preferences.types import Episode
from fspo.progress import Progress
from fspo.records import KeyedLog

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from fspo.modeling.rendering import EpisodeRenderer

__all__ = [
    "AROUND_DESCRIPTION",
    "ROUNDING",
    "Condition",
    "Pass",
    "Score",
    "ScoredEpisode",
    "Scores",
    "mirror_of",
    "passes",
    "score_trials",
    "score_variations",
    "scored_passes",
    "varied_passes",
]

ROUNDING = 1e-3
"""Nats, of a sum over the tokens of a response, below which a margin is rounding and no decision."""

AROUND_DESCRIPTION = 16
"""Tokens allowed for the words around a description, and for its being cut otherwise when it is read."""

Condition = str
"""Which shots, and whether their labels are flipped: own, flipped, swapped, swapped-flipped, or a variation's."""

Pass = tuple[Condition, Episode, tuple[int, ...]]
"""A condition, the episode under it, and the shot counts it is scored at."""

_FLIPPED = "-flipped"


def mirror_of(condition: Condition) -> Condition:
    """The condition whose shots are the same with flipped labels."""
    if condition in ("own", "flipped"):
        return "flipped" if condition == "own" else "own"
    return condition.removesuffix(_FLIPPED) if condition.endswith(_FLIPPED) else condition + _FLIPPED


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

    def margin(self, reduction: Reduction = "sum") -> float:
        """How much likelier the chosen response is, by sum or by mean a token."""
        if reduction == "sum":
            return self.chosen - self.rejected
        return self.chosen / self.chosen_tokens - self.rejected / self.rejected_tokens


@dataclass(frozen=True)
class ScoredEpisode:
    """The scores of one episode under all its conditions, as a log has them."""

    user: str
    rows: tuple[Score, ...]
    donor: str = ""
    """The user whose shots were swapped in."""
    dropped_shots: int = 0
    unread: int = 0
    """Pairs of which a reward model gave no score."""
    failed: bool = False
    """Whether a request to a reward model failed, so that the next call scores the episode again."""


class Scores:
    """The scores of one pair of weights and context, looked up by item, shot count and condition.

    A context without shots is the same at every k, and flipping labels leaves it alone; one without anything is the
    same whoever is swapped in. Such look-ups find the one score there is.
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
        """Pairs of which a reward model from elsewhere gave nothing to go by."""
        self.bare_at_none = context == "shots" or described
        """Whether nothing is shown where there are no shots: a description of the user's own would be."""
        self.dropped_shots = dropped_shots
        self._rows = {(row.item, row.k, row.condition): row for row in rows}

    def __len__(self) -> int:
        """How many scores there are."""
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


def score_trials(
    model: Callable[[], PreTrainedModel],
    renderer: EpisodeRenderer,
    context: Context,
    trials: Sequence[Trial],
    config: EvaluationConfig,
    *,
    path: Path,
    fingerprint: str,
    name: str = "",
    describer: Describer | None = None,
    progress: Progress | None = None,
) -> Scores:
    """Score every trial under every condition asked for; trials already in `path` are taken from there.

    Args:
        model: gives the weights, any adapters in place; not called where everything is known.
        renderer: renders with the same `context`.
        context: what the weights are shown.
        trials: what to score.
        config: shot counts and conditions.
        path: `margins.jsonl`; gains one line a trial, so that a killed run goes on where it stopped.
        fingerprint: identifies the weights; lines of other weights are passed over.
        name: whom the progress bar names.
        describer: gives the description that stands beside shots, in the place of the user's own.
        progress: shown once a trial.

    Raises:
        ModelError: a log-prob is not a finite number.
    """
    depth = (config.rungs, config.ladder_queries, config.mirrored_ladder, config.max_length)
    shown = f"{fingerprint}/{renderer.identity}"
    key = f"{shown}/{context}/{depth}/{_conditions(context, config)}" + (describer.key if describer else "")
    log = KeyedLog(path, ScoredEpisode)
    keys = [f"{trial.key}/{key}" for trial in trials]

    def score(some: Sequence[Trial]) -> Iterator[ScoredEpisode]:
        for trial in some:
            scored = _score_trial(model(), renderer, context, trial, config, describer)
            _check_numbers(scored, name or context, config.dtype)
            yield scored

    title = f"Scoring {name or context}"
    log.complete(dict(zip(keys, trials, strict=True)), score, title=title, progress=progress)
    scored = [log[key] for key in keys]
    rows = (row for one in scored for row in one.rows)
    dropped = sum(one.dropped_shots for one in scored)
    return Scores(context, rows, dropped_shots=dropped, described=describer is not None)


def score_variations(
    model: Callable[[], PreTrainedModel],
    renderer: EpisodeRenderer,
    context: Context,
    probes: Sequence[Probe],
    config: EvaluationConfig,
    *,
    path: Path,
    fingerprint: str,
    name: str = "",
    describer: Describer | None = None,
    progress: Progress | None = None,
) -> list[Score]:
    """Score every probe at the full shot count under its variations; arguments and resuming as in `score_trials`.

    Raises:
        ModelError: a log-prob is not a finite number.
    """
    shown = f"{fingerprint}/{renderer.identity}"
    key = f"{shown}/{context}/{config.shots}/{config.max_length}" + (describer.key if describer else "")
    log = KeyedLog(path, ScoredEpisode)
    keys = [f"{probe.key(config)}/{key}" for probe in probes]

    def score(some: Sequence[Probe]) -> Iterator[ScoredEpisode]:
        for probe in some:
            rows: list[Score] = []
            for v in varied_passes(renderer, probe, config, described=describer is not None):
                shown = replace(v.episode, description=describer(v.episode.shots)) if describer else v.episode
                rows += _one_pass(
                    model(), renderer, probe.trial, v.condition, shown, (config.shots,), None, numbers=v.numbers
                )
            scored = ScoredEpisode(probe.trial.user, tuple(rows))
            _check_numbers(scored, name or context, config.dtype)
            yield scored

    title = f"Varying the shots, {name or context}"
    log.complete(dict(zip(keys, probes, strict=True)), score, title=title, progress=progress)
    return [row for key in keys for row in log[key].rows]


def varied_passes(
    renderer: EpisodeRenderer, probe: Probe, config: EvaluationConfig, *, described: bool = False
) -> list[Variation]:
    """The variations of a probe without the shots there is no room for; see `scored_passes`."""

    def trim(episode: Episode) -> tuple[Episode, int]:
        reserve = config.description_tokens + AROUND_DESCRIPTION if described else 0
        return renderer.trim(replace(episode, description="") if described else episode, reserve=reserve)

    return probe.variations(config, trim)


def _score_trial(
    model: PreTrainedModel,
    renderer: EpisodeRenderer,
    context: Context,
    trial: Trial,
    config: EvaluationConfig,
    describer: Describer | None,
) -> ScoredEpisode:
    rows: list[Score] = []
    wanted, dropped = scored_passes(renderer, context, trial, config, described=describer is not None)
    for condition, episode, rungs in wanted:
        if describer is None:
            rows += _one_pass(model, renderer, trial, condition, episode, rungs, config.ladder_queries)
            continue
        for k in rungs:
            # A description follows from the shots that are shown, so every shot count has a trunk of its own.
            few = config.ladder_queries if k < config.shots else None
            shown = replace(episode.first_shots(k), queries=episode.queries[:few])
            described = replace(shown, description=describer(shown.shots))
            rows += _one_pass(model, renderer, trial, condition, described, (k,), None)
    return ScoredEpisode(trial.user, tuple(rows), trial.donor, dropped)


def scored_passes(
    renderer: EpisodeRenderer, context: Context, trial: Trial, config: EvaluationConfig, *, described: bool = False
) -> tuple[list[Pass], int]:
    """What a trial is scored under, without the shots there is no room for, and how many these are.

    Where a description is still to be written (`described`), there is room for it in the place of the user's own.
    """
    own, swapped, reserve = trial.own, trial.swapped, 0
    if described:
        own, swapped = replace(own, description=""), swapped and replace(swapped, description="")
        reserve = config.description_tokens + AROUND_DESCRIPTION
    own, dropped = renderer.trim(own, reserve=reserve)
    swapped, more = (None, 0) if swapped is None else renderer.trim(swapped, reserve=reserve)
    return list(passes(context, own, swapped, config)), max(dropped, more)


def _check_numbers(scored: ScoredEpisode, name: str, dtype: str) -> None:
    for row in scored.rows:
        if not (math.isfinite(row.chosen) and math.isfinite(row.rejected)):
            raise ModelError(
                f"The log-probs of {name} are not numbers in {dtype} (user {scored.user!r}, pair {row.item!r}); set "
                "evaluation.dtype to float32 or bfloat16, or look at how its weights were trained."
            )


def passes(context: Context, own: Episode, swapped: Episode | None, config: EvaluationConfig) -> Iterator[Pass]:
    """The trunks to run: conditions other than the user's own only at the full shot count."""
    shown = context in ("shots", "both")
    full = (config.shots,) if shown else (0,)
    yield "own", own, config.rungs if shown else (0,)
    for condition in _conditions(context, config):
        if condition == "flipped":
            yield condition, own.flip_shots(), config.rungs if config.mirrored_ladder else full
        elif swapped is not None:
            yield condition, swapped.flip_shots() if condition == "swapped-flipped" else swapped, full


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


def _one_pass(
    model: PreTrainedModel,
    renderer: EpisodeRenderer,
    trial: Trial,
    condition: Condition,
    episode: Episode,
    rungs: tuple[int, ...],
    ladder_queries: int | None,
    *,
    numbers: Sequence[int] | None = None,
) -> list[Score]:
    """Scores of the episode's queries, which are the trial's of these `numbers`, or all of them in order."""
    import torch

    from fspo.modeling.logprobs import branch_logprobs

    tokens = renderer.render(episode, shots=rungs)
    left = len(tokens.boundaries) - 1
    full = min(max(rungs), left)
    few = len(episode.queries) if ladder_queries is None else ladder_queries
    tokens = replace(tokens, branches=tuple(b for b in tokens.branches if b.shots == full or b.query < few))
    with torch.inference_mode():
        (result,) = branch_logprobs(model, [tokens])
    sums_B2, lengths_B2 = result.sums.tolist(), result.lengths.tolist()
    items = [trial.item(number) for number in (numbers or range(len(episode.queries)))]
    # Where shots were dropped, rungs above what is left all stand at the same place.
    return [
        Score(items[branch.query], rung, condition, *sums, *map(int, lengths))
        for branch, sums, lengths in zip(tokens.branches, sums_B2, lengths_B2, strict=True)
        for rung in rungs
        if min(rung, left) == branch.shots
    ]
