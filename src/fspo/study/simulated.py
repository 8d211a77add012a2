"""Simulated participants, to test a study before people take part: their tastes are known, so the truth is known.

An attentive participant has, for each declared trait of the texts, a value that they like best and a weight. They like
a text less the farther its value is from theirs, compare two texts with logistic noise that grows with every vote
(fatigue), and call texts alike whose difference is small. Others always choose the left text, or choose without
reading. `simulate_study` makes whole records from them without a server.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

from fspo.preferences.types import Preference
from fspo.preferences.wording import wording
from fspo.study.config import StudyConfig
from fspo.study.drawing import DrawnItem, draw_items
from fspo.study.matching import as_shown
from fspo.study.material import Material, WrittenText
from fspo.study.records import Choice, Event, Item, Participant, StudyRecords

__all__ = ["Kind", "Rater", "SimulatedArms", "TextTraits", "draw_rater", "expected_win_rate", "simulate_study"]

Kind = Literal["attentive", "always-left", "careless"]
_MARKS = re.compile(r"[\W_]+")
_WORDS_PER_MINUTE = 240.0
_CARELESS_SECONDS = 1.0


class TextTraits:
    """What is declared of the written texts of a study, by the text as participants see it."""

    def __init__(self, config: StudyConfig, material: Material) -> None:
        """Take all texts of the material that are in pairs."""
        self._traits: dict[str, Mapping[str, str]] = {}
        self._texts: dict[str, dict[str, None]] = defaultdict(dict)
        self.values: dict[str, list[str]] = defaultdict(list)
        """Trait -> its values, in the order of the texts."""
        for prompt in (*material.labels, *material.comparisons):
            for pair in prompt.pairs:
                for text in (pair.one, pair.other):
                    self._add(prompt.text, text, as_shown(text.text, config.matching))

    def of(self, text: str) -> Mapping[str, str]:
        """Trait -> value of a text; empty for any other text."""
        return self._traits.get(_plain(text), {})

    def texts(self, prompt: str) -> Sequence[str]:
        """The written texts of a prompt, in their order."""
        return list(self._texts.get(wording(prompt), ()))

    def place(self, trait: str, value: str) -> float:
        """Where a value is among all of its trait, from 0 to 1."""
        values = self.values[trait]
        return values.index(value) / max(1, len(values) - 1)

    def _add(self, prompt: str, text: WrittenText, shown: str) -> None:
        self._traits[_plain(shown)] = text.traits
        self._texts[wording(prompt)][shown] = None
        for trait, value in text.traits.items():
            if value not in self.values[trait]:
                self.values[trait].append(value)


@dataclass(frozen=True)
class Rater:
    """One simulated participant."""

    kind: Kind
    liked: Mapping[str, str] = field(default_factory=dict)
    """Trait -> the value that they like best."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Trait -> what the distance from that value costs."""
    noise: float = 0.2
    """Scale of the logistic noise, in units of the weights."""
    fatigue: float = 0.02
    """How much larger the noise is after each vote, as a share."""
    indifference: float = 0.05
    """Differences below this, noise included, are ties where these are allowed."""
    votes: int | None = None
    """They leave after so many votes; None: they finish."""

    def utility(self, traits: Mapping[str, str], texts: TextTraits) -> float:
        """How much they like a text with these traits."""
        return -sum(
            weight * abs(texts.place(trait, traits[trait]) - texts.place(trait, self.liked[trait]))
            for trait, weight in self.weights.items()
            if trait in traits
        )

    def chances(self, first: str, second: str, number: int, texts: TextTraits, *, ties: bool) -> Mapping[Choice, float]:
        """Choice -> its chance, on the participant's vote of this number, from 0."""
        if self.kind == "always-left":
            return {"first": 1.0, "second": 0.0, "tie": 0.0}
        if self.kind == "careless":
            return {"first": 0.5, "second": 0.5, "tie": 0.0}
        difference = self.utility(texts.of(first), texts) - self.utility(texts.of(second), texts)
        scale, margin = self.noise * (1 + self.fatigue * number), self.indifference if ties else 0.0
        won, lost = _logistic((difference - margin) / scale), _logistic((-difference - margin) / scale)
        return {"first": won, "second": lost, "tie": max(0.0, 1 - won - lost)}

    def choose(
        self,
        first: str,
        second: str,
        number: int,
        texts: TextTraits,
        chance: random.Random,
        *,
        ties: bool,
        right: Choice | None = None,
    ) -> Choice:
        """Their choice; the attentive ones find the right one of an attention item."""
        if right is not None and self.kind == "attentive":
            return right
        chances = self.chances(first, second, number, texts, ties=ties)
        return chance.choices(list(chances), list(chances.values()))[0]

    def seconds(self, first: str, second: str, chance: random.Random) -> float:
        """How long they take for a vote."""
        if self.kind != "attentive":
            return _CARELESS_SECONDS
        words = len(first.split()) + len(second.split())
        return 60 * words / _WORDS_PER_MINUTE * math.exp(chance.gauss(0, 0.3)) + 1


@dataclass(frozen=True)
class SimulatedArms:
    """Two arms that answer with written texts: one follows the labels, the other doesn't know them."""

    texts: TextTraits
    skill: float = 0.7
    """The chance that the personalised arm answers with the text that fits the labels best; else it takes any."""

    def answer(self, prompt: str, shots: Sequence[Preference], chance: random.Random, *, personalised: bool) -> str:
        """An answer to a prompt of the study."""
        there = self.texts.texts(prompt)
        if not personalised or chance.random() >= self.skill:
            return chance.choice(there)
        liked: Counter[tuple[str, str]] = Counter()
        for shot in shots:
            chosen, rejected = self.texts.of(shot.chosen), self.texts.of(shot.rejected)
            differing = [trait for trait in chosen if chosen[trait] != rejected.get(trait)]
            liked.update((trait, chosen[trait]) for trait in differing)
            liked.subtract((trait, rejected[trait]) for trait in differing if trait in rejected)
        mixed = chance.sample(there, len(there))
        return max(mixed, key=lambda text: sum(liked[pair] for pair in self.texts.of(text).items()))


def draw_rater(kind: Kind, texts: TextTraits, chance: random.Random, *, leaving: float = 0.0) -> Rater:
    """A participant whose taste is mostly for one trait, as that of the users of the written domains.

    `leaving` is the chance that they leave before the end.
    """
    traits = list(texts.values)
    main = chance.choice(traits) if traits else ""
    return Rater(
        kind,
        liked={trait: chance.choice(texts.values[trait]) for trait in traits},
        weights={trait: 1.0 if trait == main else chance.uniform(0, 0.3) for trait in traits},
        votes=chance.randint(1, 15) if chance.random() < leaving else None,
    )


def simulate_study(
    config: StudyConfig, material: Material, raters: Sequence[Rater], arms: SimulatedArms, chance: random.Random
) -> StudyRecords:
    """The records of a study with these participants, one after the other, without pages or models."""
    people, items, events = [], [], []
    for number, rater in enumerate(raters, start=1):
        name, drawn = f"sim{number}", draw_items(config, material, chance)
        own, at = _visit(config, name, rater, drawn, arms, chance)
        finished = at if all(item.choice is not None for item in own) else None
        people.append(
            Participant(
                id=name,
                study=config.name,
                language=config.language,
                consent=config.consent.version,
                consented=0,
                finished=finished,
            )
        )
        items += own
        events += [
            Event(participant=name, at=item.voted, kind="voted", item=item.id) for item in own if item.voted is not None
        ]
    return StudyRecords(people, items, events)


def expected_win_rate(
    items: Sequence[Item], raters: Mapping[str, Rater], arm: str, texts: TextTraits, *, ties: bool
) -> float:
    """The mean chance that the participants prefer the arm's answers, ties as half: what the votes are drawn from.

    The items are of all stages, in the order of the study; those of participants without a rater are left out.
    """
    numbers: Counter[str] = Counter()
    scores = []
    for item in items:
        number = numbers[item.participant]
        numbers[item.participant] += item.choice is not None
        if arm in item.arms and item.choice is not None and item.participant in raters:
            chances = raters[item.participant].chances(item.first, item.second, number, texts, ties=ties)
            scores.append(chances["first" if item.first_arm == arm else "second"] + chances["tie"] / 2)
    return math.fsum(scores) / len(scores)


def _visit(
    config: StudyConfig,
    name: str,
    rater: Rater,
    drawn: Sequence[DrawnItem],
    arms: SimulatedArms,
    chance: random.Random,
) -> tuple[list[Item], int]:
    """The items of one participant with their votes, and when the last vote was."""
    items: list[Item] = []
    labels: list[Item] = []
    positions: Counter[str] = Counter()
    at = 1000
    for number, one in enumerate(drawn):
        positions[one.stage] += 1
        staying = rater.votes is None or number < rater.votes
        texts = (one.first, one.second)
        if one.first_arm and staying:
            shots = [shot for item in labels[: one.shots] if (shot := item.preference()) is not None]
            first, second = (
                arms.answer(one.prompt, shots, chance, personalised=config.arms[arm].personalised)
                for arm in (one.first_arm, one.second_arm)
            )
            texts = (first, second)
        ties = config.labels.ties if one.stage == "label" else config.comparisons.ties
        choice, shown = None, at
        if staying:
            choice = rater.choose(*texts, number, arms.texts, chance, ties=ties, right=one.correct)
            at += round(1000 * rater.seconds(*texts, chance))
        drawn_with_texts = {**asdict(one), "first": texts[0], "second": texts[1]}
        item = Item(
            **drawn_with_texts,
            id=f"{name}-{number}",
            participant=name,
            position=positions[one.stage],
            right=one.correct,
            choice=choice,
            shown=shown if staying else None,
            voted=at if staying else None,
        )
        items.append(item)
        if one.stage == "label" and one.correct is None:
            labels.append(item)
    return items, at


def _logistic(value: float) -> float:
    return 0.5 * (1 + math.tanh(value / 2))


def _plain(text: str) -> str:
    """The words of a text, without what a page may change: spaces and marks."""
    return _MARKS.sub(" ", text).strip()
