"""Where a participant is in the study. It follows from what is stored, so it survives a restart or another device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fspo.preferences.types import Preference
from fspo.serving.schema import ParticipantRow, StudyItemRow
from fspo.study.config import StudyConfig

__all__ = ["STAGES", "Step", "StepKind", "Visit", "has_lapsed", "step_of"]

StepKind = Literal[
    "withdrawn",
    "closed",
    "finished",
    "expired",
    "lapsed",
    "about",
    "practice",
    "label",
    "between",
    "waiting",
    "compare",
    "last",
]
STAGES = ("practice", "label", "compare")
"""In the order in which a participant goes through them."""
_HOUR = 3_600_000
"""Milliseconds."""
_DAY = 24 * _HOUR


@dataclass(frozen=True)
class Visit:
    """What is stored of a participant; the items are in the order in which they are shown."""

    participant: ParticipantRow
    items: Sequence[StudyItemRow]

    def stage(self, stage: str) -> list[StudyItemRow]:
        """The items of one stage."""
        return [item for item in self.items if item.stage == stage]

    def complete(self) -> bool:
        """Whether there is a vote on every item."""
        return all(item.choice for item in self.items)

    def written(self) -> tuple[int, int]:
        """How many comparisons have their answers, and how many there are."""
        own = [item for item in self.stage("compare") if not item.correct]
        return sum(bool(item.first) for item in own), len(own)

    def shots(self, count: int) -> tuple[Preference, ...]:
        """The first `count` labels as preferences, oldest first; ties say nothing and are left out."""
        labels = [item for item in self.stage("label") if not item.correct][:count]
        return tuple(
            Preference(
                item.user_id,
                item.prompt,
                *((item.first, item.second) if item.choice == "first" else (item.second, item.first)),
            )
            for item in labels
            if item.choice in ("first", "second")
        )


@dataclass(frozen=True)
class Step:
    """The page that a participant sees next."""

    kind: StepKind
    item: StudyItemRow | None = None
    number: int = 0
    """Place of the item in its stage, from 1."""
    count: int = 0
    """Items of the stage."""
    undo: StudyItemRow | None = None
    """The item whose vote may be taken back."""


def has_lapsed(one: ParticipantRow, config: StudyConfig, now: int) -> bool:
    """Whether somebody was away for so long that others may take their place, unless they have voted on everything."""
    return now > one.seen + config.place_hours * _HOUR


def step_of(visit: Visit, config: StudyConfig, now: int) -> Step:
    """Where the participant is at a time, in milliseconds since 1970."""
    one = visit.participant
    if one.withdrawn:
        return Step("withdrawn")
    if one.closed:
        return Step("closed")
    if one.finished:
        return Step("finished")
    expired = now > one.consented + config.expires_days * _DAY
    if not visit.complete():  # with all votes they only have to end the study
        if expired:
            return Step("expired")
        if has_lapsed(one, config, now):
            return Step("lapsed")
    if one.about is None and config.about:
        return Step("about")
    undo = None if expired else _undo(visit)  # nothing could be voted on in its place
    for stage in STAGES:
        items = visit.stage(stage)
        if stage == "compare" and not one.begun:
            return Step("between", undo=undo)
        for number, item in enumerate(items, start=1):
            if not item.choice:
                kind: StepKind = stage if item.first else "waiting"  # type: ignore[assignment]
                return Step(kind, item, number, len(items), undo)
    return Step("last", undo=undo)


def _undo(visit: Visit) -> StudyItemRow | None:
    """The last vote, unless answers were written with it or it belongs to an earlier stage."""
    if visit.participant.begun:
        voted = [item for item in visit.stage("compare") if item.choice]
    else:
        voted = [item for item in visit.items if item.choice]
    return voted[-1] if voted else None
