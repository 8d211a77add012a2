"""Which items a participant sees, in which order, and which text comes first: drawn once, when they give consent."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from fspo.errors import DataError
from fspo.preferences.wording import wording
from fspo.study.config import AttentionItem, StudyConfig
from fspo.study.matching import as_shown
from fspo.study.material import LabelPair, Material, Prompt, wanted_traits
from fspo.study.records import Choice, Stage

__all__ = ["DrawnItem", "draw_items"]

T = TypeVar("T")


@dataclass(frozen=True)
class DrawnItem:
    """One item, in the order of its stage. The texts of a comparison are empty until its answers are written."""

    stage: Stage
    prompt: str
    topic: str = ""
    first: str = ""
    second: str = ""
    first_arm: str = ""
    second_arm: str = ""
    first_traits: Mapping[str, str] = field(default_factory=dict)
    second_traits: Mapping[str, str] = field(default_factory=dict)
    correct: Choice | None = None
    shots: int = 0


def draw_items(
    config: StudyConfig,
    material: Material,
    chance: random.Random,
    participants: Mapping[tuple[str, str], int] | None = None,
) -> list[DrawnItem]:
    """All items of one participant: practice, labels, comparisons.

    In a running study `chance` is `random.SystemRandom`, so that nobody can foresee what is drawn. With `assignment:
    between`, `participants` says how many have each pair of arms.

    Raises:
        DataError: the material does not suffice.
    """
    attention = chance.sample(config.attention, config.labels.attention + config.comparisons.attention)
    labels = _labels(config, material, chance)
    shown = {wording(item.prompt) for item in labels}
    comparisons = _comparisons(config, material, chance, shown, participants or {})
    _scatter(attention[: config.labels.attention], labels, "label", chance)
    _scatter(attention[config.labels.attention :], comparisons, "compare", chance)
    practice = [DrawnItem("practice", one.prompt, first=one.first, second=one.second) for one in config.practice]
    return [*practice, *labels, *comparisons]


def _labels(config: StudyConfig, material: Material, chance: random.Random) -> list[DrawnItem]:
    wanted = wanted_traits(config)
    chance.shuffle(wanted)
    left = chance.sample(material.labels, len(material.labels))
    drawn = []
    for trait in wanted:
        prompt, pairs = _next_with_pairs(left, trait)
        left.remove(prompt)
        drawn.append(_label(prompt, chance.choice(pairs), config, chance))
    return drawn


def _next_with_pairs(left: Sequence[Prompt], trait: str) -> tuple[Prompt, list[LabelPair]]:
    for prompt in left:
        pairs = [pair for pair in prompt.pairs if not trait or pair.differs_in(trait)]
        if pairs:
            return prompt, pairs
    raise DataError(f"Too few prompts have a pair of texts that differs in the trait '{trait}'; label fewer pairs.")


def _label(prompt: Prompt, pair: LabelPair, config: StudyConfig, chance: random.Random) -> DrawnItem:
    first, second = chance.sample((pair.one, pair.other), 2)
    return DrawnItem(
        "label",
        prompt.text,
        prompt.topic,
        as_shown(first.text, config.matching),
        as_shown(second.text, config.matching),
        first_traits=first.traits,
        second_traits=second.traits,
    )


def _comparisons(
    config: StudyConfig,
    material: Material,
    chance: random.Random,
    shown: set[str],
    participants: Mapping[tuple[str, str], int],
) -> list[DrawnItem]:
    count = config.comparisons.count
    prompts = [prompt for prompt in material.comparisons if wording(prompt.text) not in shown]
    if len(prompts) < count:
        raise DataError(f"Only {len(prompts):,} prompts are left to compare answers on; ask for fewer comparisons.")
    pairs = _pairs(config, chance, participants)
    shots = _spread(config.comparisons.shots or (config.labels.count,), count, chance)
    return [
        DrawnItem("compare", prompt.text, prompt.topic, first_arm=first, second_arm=second, shots=k)
        for prompt, (first, second), k in zip(
            chance.sample(prompts, count), _sides(config, pairs, chance), shots, strict=True
        )
    ]


def _pairs(
    config: StudyConfig, chance: random.Random, participants: Mapping[tuple[str, str], int]
) -> list[tuple[str, str]]:
    """The pair of arms of each comparison."""
    count = config.comparisons.count
    if config.assignment == "within":
        return _spread(config.pairs, count, chance)
    fewest = min(participants.get(pair, 0) for pair in config.pairs)
    return [chance.choice([pair for pair in config.pairs if participants.get(pair, 0) == fewest])] * count


def _sides(config: StudyConfig, pairs: Sequence[tuple[str, str]], chance: random.Random) -> list[tuple[str, str]]:
    """Each pair in the order in which it is shown."""
    swapped = [chance.random() < 0.5 for _ in pairs]
    if config.order == "balanced":
        for pair in set(pairs):
            places = [place for place, one in enumerate(pairs) if one == pair]
            for place, swap in zip(places, _spread((False, True), len(places), chance), strict=True):
                swapped[place] = swap
    return [pair[::-1] if swap else pair for pair, swap in zip(pairs, swapped, strict=True)]


def _spread(values: Sequence[T], count: int, chance: random.Random) -> list[T]:
    """`count` values, each as often as the next or once more, in a random order."""
    order = chance.sample(list(values), len(values))
    spread = [order[number % len(order)] for number in range(count)]
    chance.shuffle(spread)
    return spread


def _scatter(attention: Sequence[AttentionItem], items: list[DrawnItem], stage: Stage, chance: random.Random) -> None:
    """Put attention items among the others of a stage, none of them first."""
    for one in attention:
        items.insert(chance.randint(min(1, len(items)), len(items)), _attention(one, stage, chance))


def _attention(item: AttentionItem, stage: Stage, chance: random.Random) -> DrawnItem:
    right_first = chance.random() < 0.5
    first, second = (item.right, item.wrong) if right_first else (item.wrong, item.right)
    return DrawnItem(stage, item.prompt, first=first, second=second, correct="first" if right_first else "second")
