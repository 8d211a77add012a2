"""What an evaluation leaves behind besides its figures: samples to read, and the counts that explain them."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from fspo.evaluation.artifacts import Sample, Varied
from fspo.evaluation.config import BASE, EvaluationConfig, percent
from fspo.evaluation.judges.judgement_store import counts as judgement_counts
from fspo.evaluation.judges.win_rates import Answer, AnswerKey, JudgedAnswer
from fspo.evaluation.scoring.eval_episodes import Trial
from fspo.evaluation.scoring.variations import Probe
from fspo.judging.verdicts import Preferred
from fspo.methods.table import Method
from fspo.preferences.types import User

__all__ = ["bytes_of_user", "counts", "samples_of", "setting", "varied_setting"]

_OUTCOMES: Mapping[Preferred, str] = {"first": "win", "tie": "tie", "second": "loss"}
"""What a preference is for the method, whose answer is the first."""

_SETTINGS = ("seed", "shots", "episodes", "reduction", "max_length", "headline_reward", "headline_sampling", "floors")


def bytes_of_user(trials: Sequence[Trial], method: Method) -> float:
    """Mean bytes of the text that a policy is shown of a user, in UTF-8: shots, a description of theirs, or nothing."""
    found = []
    for trial in trials:
        texts = [part for shot in trial.own.shots for part in (shot.prompt, shot.chosen, shot.rejected)]
        shown = texts if method.shown in ("shots", "both") else []
        shown = [*shown, trial.own.description] if method.shown == "description" and not method.writes else shown
        found.append(sum(len(text.encode()) for text in shown))
    return statistics.fmean(found) if found else 0.0


def counts(judged: Sequence[JudgedAnswer]) -> dict[str, int]:
    """How the comparisons of one method and sampling came out, after the floors."""
    preferred = Counter(j.preferred for j in judged if j.decided)
    return {
        **judgement_counts([j.judgement for j in judged]),
        "wins": preferred["first"],
        "ties": preferred["tie"],
        "losses": preferred["second"],
        "below_floor": sum(bool(j.broken) for j in judged),
        "base_below_floor": sum(bool(j.base_broken) for j in judged),
    }


def setting(config: EvaluationConfig, trials: Sequence[Trial]) -> dict[str, Any]:
    """On what, and by which variants, was measured."""
    queries = [query for trial in trials for query in trial.own.queries]
    return {
        "users": len({trial.user for trial in trials}),
        "questions": len({query.question_key for query in queries}),
        "pairs": len(queries),
        "queries": max((len(trial.own.queries) for trial in trials), default=0),
        **{name: getattr(config, name) for name in _SETTINGS},
        "without_donor": sum(trial.swapped is None for trial in trials) if config.user_swap else 0,
    }


def varied_setting(config: EvaluationConfig, probes: Sequence[Probe]) -> Varied:
    """On how many users the shots were varied, and how many of them had enough shots of other topics."""
    return Varied(
        users=len({probe.trial.user for probe in probes}),
        pairs=sum(len(probe.trial.own.queries[: config.robustness.queries]) for probe in probes),
        other_topics_users=sum(probe.elsewhere is not None for probe in probes),
        wrong_labels={f"{percent(share)}%": count for share, count in config.wrong_labels.items()},
        orders=config.robustness.orders,
    )


def samples_of(
    users: Mapping[str, User],
    answers: Mapping[AnswerKey, Sequence[Answer]],
    judgements: Mapping[AnswerKey, Sequence[JudgedAnswer]],
    written: Mapping[str, Mapping[str, str]],
    baseline: str = BASE,
) -> list[Sample]:
    """Every item's answers by all methods; `written` are methods' descriptions by trial.

    The plain answers of the `baseline` stand under its name alone.
    """
    judged = {(drawn, j.answer.item): j for drawn, rows in judgements.items() for j in rows}
    samples: dict[str, Sample] = {}
    for drawn, rows in answers.items():
        label = drawn[0] if drawn[0] == baseline else f"{drawn[0]}, {drawn[1]}"
        for answer in rows:
            user, trial = users[answer.user], answer.item.rpartition("/")[0]
            about = Sample(
                user=user.id,
                item=answer.item,
                prompt=answer.prompt,
                description=user.description,
                described={method: texts[trial] for method, texts in written.items()},
                traits=dict(user.traits),
                group=user.group,
            )
            sample = samples.setdefault(answer.item, about)
            sample.answers[label] = answer.text
            if (drawn, answer.item) in judged:
                judgement = judged[drawn, answer.item]
                sample.outcomes[label] = _OUTCOMES[judgement.preferred] if judgement.decided else "not judged"
                sample.broken.update({label: judgement.broken} if judgement.broken else {})
    return list(samples.values())
