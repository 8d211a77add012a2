"""The whole analysis of a study: results with and without exclusions, and what the instrument itself did."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from fspo.errors import DataError
from fspo.files import write_json
from fspo.study.analysis.effects import Bias, Effect, Taste, biases_of, effects_of, tastes_of
from fspo.study.analysis.exclusions import (
    REASONS,
    Exclusion,
    Reason,
    exclusions_of,
    is_vote,
    items_by_participant,
    seconds_of,
)
from fspo.study.analysis.win_rates import ArmPair, WinRate, score_estimate, win_rates
from fspo.study.config import Exclusions
from fspo.study.records import Item, Participant, Stage, StudyRecords

__all__ = ["Attention", "Quartiles", "Results", "StudyFindings", "analyse", "pairs_of", "save_findings"]

_STAGES: tuple[Stage, ...] = ("label", "compare")
_STEPS = ("gave consent", "finished practice", "finished the labels", "began to compare", "voted on all", "finished")


@dataclass(frozen=True)
class Results:
    """What a set of participants preferred."""

    participants: int
    """People with at least one vote."""
    votes: int
    """Votes on comparisons, without attention items."""
    win_rates: list[WinRate]
    effects: list[Effect]
    tastes: list[Taste]
    biases: list[Bias]
    by_participant: dict[str, dict[str, float]]
    """Pair of arms, as `first over second` -> participant -> their own win rate."""


@dataclass(frozen=True)
class Attention:
    """The attention items of one stage."""

    stage: Stage
    passed: int
    failed: int
    unanswered: int


@dataclass(frozen=True)
class Quartiles:
    """The middle of some times and the range of the middle half."""

    low: float
    median: float
    high: float
    count: int


@dataclass(frozen=True)
class StudyFindings:
    """What came out of a study."""

    study: str
    participants: int
    """People who gave consent."""
    rules: Exclusions
    results: Results
    """Without the excluded participants: the main analysis."""
    everybody: Results
    """With everybody who voted."""
    excluded: list[Exclusion]
    reasons: dict[Reason, int]
    """Reason -> participants; one may have several."""
    steps: dict[str, int]
    """Step of the study -> participants who reached it; those who withdrew are only in the first."""
    attention: list[Attention]
    seconds: dict[Stage, Quartiles]
    """Stage -> seconds for each vote, of the participants in the main analysis."""
    minutes: Quartiles | None
    """From consent to the end; None if nobody finished."""
    no_votes: dict[str, int]
    """Comparisons that are no vote, by why."""
    events: dict[str, int]
    """Kind of event -> how often."""

    def to_json(self) -> dict[str, Any]:
        """The whole, ready for JSON."""
        plain: dict[str, Any] = TypeAdapter(StudyFindings).dump_python(self, mode="json")
        return plain


def analyse(
    records: StudyRecords,
    rules: Exclusions | None = None,
    *,
    pairs: Sequence[ArmPair] = (),
    questions: Iterable[str] = (),
) -> StudyFindings:
    """Analyse the records of one study.

    The rules, by default those of a study that states none, say whom the main analysis leaves out. Each pair has the
    arm first whose win rate is reported; by default pairs are as found, by name. The questions are ids of those about
    participants that have fixed options.

    Raises:
        DataError: there are no participants, or they are of several studies.
    """
    rules = rules or Exclusions()
    studies = sorted({one.study for one in records.participants})
    if not studies:
        raise DataError("The study has no participants yet.")
    if len(studies) > 1:
        raise DataError(f"The records are of several studies ({', '.join(studies)}); analyse each by itself.")
    pairs, questions = pairs or pairs_of(records.items), tuple(questions)
    excluded = exclusions_of(records, rules)
    left_out = {exclusion.participant for exclusion in excluded}
    main = [item for item in records.items if item.participant not in left_out]

    def results(items: Sequence[Item]) -> Results:
        return _results(items, pairs, records.participants, questions)

    return StudyFindings(
        study=studies[0],
        participants=len(records.participants),
        rules=rules,
        results=results(main),
        everybody=results(records.items),
        excluded=excluded,
        reasons={
            reason: count for reason in REASONS if (count := sum(reason in exclusion.reasons for exclusion in excluded))
        },
        steps=_steps(records),
        attention=[row for stage in _STAGES if (row := _attention(records.items, stage)) is not None],
        seconds=_seconds(main),
        minutes=_minutes([one for one in records.participants if one.id not in left_out]),
        no_votes=_no_votes(records.items),
        events=dict(sorted(Counter(event.kind for event in records.events).items())),
    )


def pairs_of(items: Iterable[Item]) -> list[ArmPair]:
    """Every pair of arms that was compared, by name."""
    found = {tuple(sorted(item.arms)) for item in items if item.arms}
    return [(first, second) for first, second in sorted(found)]


def save_findings(findings: StudyFindings, path: Path) -> None:
    """Write the findings as JSON.

    Raises:
        StorageError: the file can't be written.
    """
    write_json(path, findings.to_json())


def _results(
    items: Sequence[Item], pairs: Sequence[ArmPair], people: Sequence[Participant], questions: Sequence[str]
) -> Results:
    votes = [item for item in items if item.arms and is_vote(item)]
    voters = {item.participant for item in votes}
    own = items_by_participant(votes)
    by_participant = {
        f"{first} over {second}": {
            person: estimate.value
            for person, mine in own.items()
            if (estimate := score_estimate(mine, (first, second))) is not None
        }
        for first, second in pairs
    }
    return Results(
        participants=len(voters),
        votes=len(votes),
        win_rates=win_rates(votes, pairs),
        effects=effects_of(items, pairs, people, questions),
        tastes=tastes_of(items),
        biases=biases_of(items),
        by_participant={pair: rates for pair, rates in by_participant.items() if rates},
    )


def _steps(records: StudyRecords) -> dict[str, int]:
    items = items_by_participant(records.items)
    reached = Counter[str]()
    for one in records.participants:
        mine = items.get(one.id, ())
        reached.update(_STEPS[: 1 + _steps_after_consent(one, mine)])
    return {step: reached[step] for step in _STEPS}


def _steps_after_consent(one: Participant, items: Sequence[Item]) -> int:
    if one.withdrawn is not None or not items:
        return 0

    def voted(stage: Stage) -> list[bool]:
        return [item.choice is not None for item in items if item.stage == stage]

    done = (all(voted("practice")), all(voted("label")), any(voted("compare")), all(voted("compare")))
    passed = [*done, one.finished is not None]
    return next((number for number, step in enumerate(passed) if not step), len(passed))


def _attention(items: Sequence[Item], stage: Stage) -> Attention | None:
    there = [item for item in items if item.stage == stage and item.attention]
    answered = [item for item in there if item.choice is not None]
    passed = sum(item.choice == item.right for item in answered)
    if not there:
        return None
    return Attention(stage, passed, len(answered) - passed, len(there) - len(answered))


def _seconds(items: Sequence[Item]) -> dict[Stage, Quartiles]:
    found: dict[Stage, Quartiles] = {}
    for stage in _STAGES:
        times = [seconds_of(item) for item in items if item.stage == stage and not item.attention]
        quartiles = _quartiles([time for time in times if time is not None])
        if quartiles is not None:
            found[stage] = quartiles
    return found


def _minutes(people: Sequence[Participant]) -> Quartiles | None:
    return _quartiles([(one.finished - one.consented) / 60_000 for one in people if one.finished is not None])


def _quartiles(values: Sequence[float]) -> Quartiles | None:
    if not values:
        return None
    if len(values) == 1:
        return Quartiles(values[0], values[0], values[0], 1)
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Quartiles(low, median, high, len(values))


def _no_votes(items: Sequence[Item]) -> dict[str, int]:
    there = [item for item in items if item.arms]
    found: Mapping[str, int] = {
        "answers not written": sum(not item.first or not item.second for item in there),
        "not voted on": sum(bool(item.first and item.second) and item.choice is None for item in there),
    }
    return {why: count for why, count in found.items() if count}
