"""What the votes depend on: the number of shots, people's tastes, and what should not decide, such as the side."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fspo.evaluation.statistics.intervals import Estimate, clustered_mean
from fspo.study.analysis.exclusions import is_vote
from fspo.study.analysis.win_rates import ArmPair, score_estimate
from fspo.study.records import Item, Participant, Stage

__all__ = ["Bias", "Effect", "Taste", "biases_of", "effects_of", "tastes_of"]

_MOST_VALUES = 12
"""A question or topic with more values than this makes no table."""
_STAGES: tuple[Stage, ...] = ("label", "compare")


@dataclass(frozen=True)
class Effect:
    """The win rate of a pair's first arm in one part of the votes, such as those with 4 shots."""

    kind: str
    """What splits the votes: `shots`, `shown first`, `part`, `matched`, `topic`, `language`, `taste: TRAIT` or
    `about: QUESTION`."""
    value: str
    first: str
    second: str
    estimate: Estimate


@dataclass(frozen=True)
class Taste:
    """How often a text with a value of a trait was chosen in the labels, against texts with another value."""

    trait: str
    value: str
    estimate: Estimate


@dataclass(frozen=True)
class Bias:
    """How often something decided that should not; 50% is none."""

    kind: str
    """`first`: the text shown first was chosen; `longer`: the text with more words."""
    stage: Stage
    estimate: Estimate


def effects_of(
    items: Sequence[Item], pairs: Sequence[ArmPair], people: Sequence[Participant], questions: Iterable[str] = ()
) -> list[Effect]:
    """The win rates in parts of the votes; a kind of part with a single value is left out.

    The questions are ids of those about participants that have fixed options.
    """
    persons, tastes = {one.id: one for one in people}, _favourites(items)
    found: list[Effect] = []
    for first, second in pairs:
        votes = [item for item in items if item.arms == {first, second} and is_vote(item)]
        last = max((item.position for item in votes), default=0)
        parts: dict[str, dict[str, list[Item]]] = defaultdict(lambda: defaultdict(list))
        for item in votes:
            for kind, value in _parts(item, last, persons[item.participant], tastes, questions):
                parts[kind][value].append(item)
        for kind, values in parts.items():
            if 1 < len(values) <= _MOST_VALUES:
                for value in sorted(values, key=_order):
                    estimate = score_estimate(values[value], (first, second))
                    assert estimate is not None
                    found.append(Effect(kind, value, first, second, estimate))
    return found


def tastes_of(items: Sequence[Item]) -> list[Taste]:
    """What people chose in the labels, for each trait that two texts differed in."""
    chosen: dict[tuple[str, str], list[tuple[str, float]]] = defaultdict(list)
    for item in items:
        for trait, value, other in _differing(item):
            chosen[trait, value].append((item.participant, 1.0))
            chosen[trait, other].append((item.participant, 0.0))
    return [
        Taste(trait, value, clustered_mean([score for _, score in votes], [person for person, _ in votes]))
        for (trait, value), votes in sorted(chosen.items(), key=lambda row: (row[0][0], _order(row[0][1])))
    ]


def biases_of(items: Sequence[Item]) -> list[Bias]:
    """How often side and length decided, in both stages; ties and attention items are left out."""
    found = []
    for stage in _STAGES:
        votes = [one for one in items if one.stage == stage and is_vote(one) and one.choice != "tie"]
        votes = [one for one in votes if not one.attention]
        lengths = [(one, len(one.first.split()) - len(one.second.split())) for one in votes]
        kinds = {
            "first": [(one.participant, one.choice == "first") for one in votes],
            "longer": [(one.participant, (one.choice == "first") == (more > 0)) for one, more in lengths if more],
        }
        for kind, rows in kinds.items():
            if rows:
                estimate = clustered_mean([float(hit) for _, hit in rows], [person for person, _ in rows])
                found.append(Bias(kind, stage, estimate))
    return found


def _parts(
    item: Item,
    last: int,
    person: Participant,
    tastes: Mapping[str, Mapping[str, str]],
    questions: Iterable[str],
) -> Iterable[tuple[str, str]]:
    yield "shots", str(item.shots)
    yield "shown first", item.first_arm
    yield "part", "first half" if 2 * item.position <= last else "second half"
    yield "matched", "yes" if item.matched else "no"
    yield "language", person.language
    if item.topic:
        yield "topic", item.topic
    for trait, value in tastes.get(item.participant, {}).items():
        yield f"taste: {trait}", value
    for question in questions:
        if question in person.answers:
            yield f"about: {question}", person.answers[question]


def _favourites(items: Sequence[Item]) -> Mapping[str, Mapping[str, str]]:
    """Participant -> trait -> the value whose texts they chose most often, less how often they rejected them.

    A trait in which two values are equal is left out.
    """
    counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for item in items:
        for trait, value, other in _differing(item):
            counts[item.participant, trait][value] += 1
            counts[item.participant, trait][other] -= 1
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for (participant, trait), count in counts.items():
        (value, most), *others = count.most_common(2)
        if not others or others[0][1] < most:
            found[participant][trait] = value
    return found


def _differing(item: Item) -> Iterable[tuple[str, str, str]]:
    """(trait, chosen value, rejected value) of a label, for each trait in which its texts differ."""
    if item.stage != "label" or item.choice not in ("first", "second") or item.attention:
        return
    chosen, rejected = item.first_traits, item.second_traits
    if item.choice == "second":
        chosen, rejected = rejected, chosen
    for trait, value in chosen.items():
        other = rejected.get(trait)
        if other is not None and other != value:
            yield trait, value, other


def _order(value: str) -> tuple[bool, float, str]:
    """Numbers by size, before words."""
    try:
        return False, float(value), value
    except ValueError:
        return True, 0.0, value
