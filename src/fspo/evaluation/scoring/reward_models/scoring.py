"""A reward model from elsewhere over the trials of an evaluation, under every condition a method is measured under."""

from __future__ import annotations

import math
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from fspo.errors import FspoError, ModelError
from fspo.evaluation.config import EvaluationConfig
from fspo.evaluation.scoring.eval_episodes import Pass, Trial
from fspo.evaluation.scoring.logprob_scores import Score, ScoredEpisode, Scores, passes
from fspo.evaluation.scoring.reward_models.loading import ExternalRewardModel
from fspo.evaluation.scoring.reward_models.protocol import Failed, RewardRequest, blind
from fspo.evaluation.scoring.variations import Probe
from fspo.modeling.rendering import Context
from fspo.progress import Progress
from fspo.records import KeyedLog

__all__ = ["external_scores", "scores_of"]


def external_scores(
    model: ExternalRewardModel,
    trials: Sequence[Trial],
    probes: Sequence[Probe],
    config: EvaluationConfig,
    *,
    path: Path,
    progress: Progress | None = None,
) -> Scores:
    """Let the model score every pair under every condition, that of `probes` under variations too.

    `path` is `margins.jsonl` and gains one line a trial, unless a score of it failed: then the next call scores it
    again. The model is not loaded where everything is known.

    Raises:
        ModelError: a score is not a finite number, or the number of scores is not that of the requests.
    """
    context: Context = "shots" if model.shots else "none"
    depth = (config.rungs, config.ladder_queries, config.mirrored_ladder, config.label_flip, config.user_swap)
    log = KeyedLog(path, ScoredEpisode, lasting=lambda scored: not scored.failed)
    varied = {probe.trial.id: probe for probe in probes} if model.shots else {}
    wanted = {
        f"{varied[t.id].key(config) if t.id in varied else t.key}/{model.fingerprint}/{context}/{depth}"
        f"/{config.mirrored_swap}": t
        for t in trials
    }

    def score(some: Sequence[Trial]) -> Iterator[ScoredEpisode]:
        return (_score_trial(model, context, trial, varied.get(trial.id), config) for trial in some)

    scored = log.complete(wanted, score, title=f"Scoring {model.name}", progress=progress)
    return Scores(context, (row for one in scored for row in one.rows), unread=sum(one.unread for one in scored))


def _score_trial(
    model: ExternalRewardModel, context: Context, trial: Trial, probe: Probe | None, config: EvaluationConfig
) -> ScoredEpisode:
    shown = _shown(context, trial, probe, config)
    requests, rows, unread = [], [], 0
    for one in shown:
        seen = blind(one.episode.shots)
        for query in one.episode.queries:
            requests += [RewardRequest(seen, query.prompt, text) for text in (query.chosen, query.rejected)]
    found = scores_of(model, requests, trial.user)
    values = iter(found)
    for one in shown:
        for number in one.numbers:
            chosen, rejected = next(values), next(values)
            if not isinstance(chosen, float) or not isinstance(rejected, float):
                # Nothing to go by is no decision, which counts half: leaving it out would flatter the model.
                chosen, rejected, unread = 0.0, 0.0, unread + 1
            rows.append(Score(trial.item(number), one.rungs[0], one.condition, chosen, rejected, 1, 1))
    return ScoredEpisode(
        trial.user, tuple(rows), trial.donor, unread=unread, failed=any(value is Failed.FAILED for value in found)
    )


def _shown(context: Context, trial: Trial, probe: Probe | None, config: EvaluationConfig) -> list[Pass]:
    """Everything that the trial is scored under, one shot count each."""
    whole = passes(context, trial.own, trial.swapped, config)
    found = [part for one in whole for part in one.by_rung(config.ladder_queries)]
    return found if probe is None else found + probe.variations(config)


def scores_of(model: ExternalRewardModel, requests: Sequence[RewardRequest], user: str) -> list[float | Failed | None]:
    """What the model says of each request, which are of one user.

    Raises:
        ModelError: a score is not a finite number, or the number of scores is not that of the requests.
    """
    return _checked(_scored(model, requests, user), len(requests), model.name, user)


def _scored(
    model: ExternalRewardModel, requests: Sequence[RewardRequest], user: str
) -> Sequence[float | Failed | None]:
    """What the model says; a fault of somebody else's code is told by the place in it."""
    scorer = model.get()
    try:
        return scorer.score(requests)
    except FspoError:
        raise
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise ModelError(
            f"The reward model '{model.name}' failed on user {user!r}: {type(error).__name__}: {error} "
            f"({Path(last.filename).name}, line {last.lineno}); a function takes (shots, prompt, response) and returns "
            "a number. What was scored before is kept."
        ) from error


def _checked(found: Sequence[float | Failed | None], wanted: int, name: str, user: str) -> list[float | Failed | None]:
    try:
        values = [value if value is None or isinstance(value, Failed) else float(value) for value in found]
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"The reward model '{name}' gave a score that is no number (user {user!r}: {error}); it must give one for "
            "each response, or None for what it can't score."
        ) from error
    if len(values) != wanted:
        raise ModelError(
            f"The reward model '{name}' gave {len(values)} scores for {wanted} responses; its score must return one "
            "for each request, in order."
        )
    if not all(math.isfinite(value) for value in values if isinstance(value, float)):
        raise ModelError(
            f"The reward model '{name}' gave a score that is no finite number (user {user!r}); let it return None for "
            "what it can't score."
        )
    return values
