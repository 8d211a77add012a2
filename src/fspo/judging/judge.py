"""Who prefers what: one protocol for every judge, and the judge of measured attributes."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

from fspo.errors import ConfigError, DataError
from fspo.files import read_json
from fspo.judging.attributes import Attribute
from fspo.judging.topics import named
from fspo.judging.utility_judge import UtilityJudge
from fspo.judging.verdicts import Preferred
from fspo.preferences.types import User

__all__ = [
    "CLIP",
    "AttributeJudge",
    "Judge",
    "JudgeOfSome",
    "LabelledBy",
    "Scale",
    "TextUtility",
    "can_judge",
    "constant_attributes",
    "scales_of",
]


class LabelledBy(StrEnum):
    """Who labelled a preference, as its source says under `judge`."""

    LLM = "llm"
    MEASURED = "measured"
    """The judge of measured attributes."""
    DECLARED = "declared"
    """The judge of the traits that were declared of written responses."""

    @property
    def by_traits(self) -> bool:
        """Whether labels follow the users' traits exactly, and ties are left out."""
        return self is not LabelledBy.LLM

    @classmethod
    def of(cls, source: Mapping[str, Any]) -> LabelledBy | None:
        """Who labelled the preference of this source; None where that is not known."""
        said = source.get("judge")
        said = "measured" if said == "attributes" else said  # as the reviews recipe said before 0.4
        return cls(said) if said in tuple(cls) else None


Scale = tuple[float, float]
"""Mean and standard deviation of an attribute over a domain's responses, in the attribute's unit."""

_NO_TOPICS: Mapping[str, Iterable[str]] = MappingProxyType({})

_MOST_KNOWN = 100_000
"""Texts whose measures are kept in memory."""

_SAME = 1e-9
"""The largest standard deviation of an attribute that does not vary."""

CLIP = 2.0
"""Standard deviations beyond which more of an attribute changes nothing: a novel is not the best long review."""


class Judge(Protocol):
    """Says which of two responses a given user prefers."""

    def compare(self, user: User, prompt: str, first: str, second: str) -> Preferred:
        """Which response to `prompt` `user` prefers, or a tie."""


@runtime_checkable
class JudgeOfSome(Protocol):
    """A judge that can't judge for all users."""

    def has_weights(self, user: User, prompt: str) -> bool:
        """Whether it can judge for `user`; for any other it would only find ties, or guess."""


def can_judge(judge: object, user: User, prompt: str) -> bool:
    """Whether a judge can judge for `user`: any but a `JudgeOfSome` can judge for all users."""
    return not isinstance(judge, JudgeOfSome) or judge.has_weights(user, prompt)


@runtime_checkable
class TextUtility(Protocol):
    """A judge that can say how much a user likes a text."""

    def utility(self, user: User, text: str, prompt: str = "") -> float:
        """How much `user` likes `text` as a response to `prompt`; only differences on one prompt mean something."""


def scales_of(
    texts: Iterable[str], attributes: Iterable[str], vocabularies: Mapping[str, Iterable[str]] = _NO_TOPICS
) -> dict[str, Scale]:
    """The scale of each attribute over the texts; `vocabularies` has the words of each topic among the attributes.

    Raises:
        ConfigError: an attribute is unknown.
        DataError: there is no text, or an attribute is the same in all of them.
    """
    texts = list(texts)
    if not texts:
        raise DataError("There are no texts to take the scales of the attributes from.")
    measures = {name: attribute.measure for name, attribute in named(attributes, vocabularies).items()}
    rows = [[measure(text) for measure in measures.values()] for text in texts]  # attributes share the words of a text
    scales = {}
    for name, figures in zip(measures, zip(*rows, strict=True), strict=True):
        spread = statistics.pstdev(figures)
        if spread < _SAME:
            raise DataError(
                f"The attribute '{name}' is the same in all {len(texts)} responses, so users can't "
                "differ in it; leave it out, or make the responses vary in it."
            )
        scales[name] = (statistics.fmean(figures), spread)
    return scales


def constant_attributes(
    texts: Sequence[str], attributes: Iterable[str], vocabularies: Mapping[str, Iterable[str]] = _NO_TOPICS
) -> list[str]:
    """The attributes that are the same in all texts, so that no user can differ in them."""
    return [
        attribute.name
        for attribute in named(attributes, vocabularies).values()
        if statistics.pstdev(map(attribute.measure, texts)) < _SAME
    ]


@dataclass(frozen=True)
class AttributeJudge(UtilityJudge):
    """Judges by what is measured in the text, weighted by the user's traits; needs no model and no network.

    A user's utility of a text is sum_a w_a * clip((m_a - mean_a) / std_a, -2, 2), with w the traits and m the measures.

    Attributes:
        scales: attribute -> (mean, standard deviation) over the domain's responses.
        margin: utilities that differ by less are a tie. A user's traits have length 1, so it is in standard deviations.
        vocabularies: topic -> its words, for attributes such as `topic.sport`.
    """

    scales: Mapping[str, Scale]
    margin: float = 0.5
    vocabularies: Mapping[str, Iterable[str]] = field(default_factory=dict)
    _attributes: dict[str, Attribute] = field(default_factory=dict, repr=False, compare=False)
    _known: dict[str, dict[str, float]] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Freeze the scales, and refuse impossible ones.

        Raises:
            ConfigError: an attribute is unknown, a deviation is not positive, or the margin is negative.
        """
        self._attributes.update(named(self.scales, self.vocabularies))
        for name, (_, spread) in self.scales.items():
            if not spread > 0:
                raise ConfigError(f"The standard deviation of '{name}' must be positive, not {spread}.")
        if not self.margin >= 0:
            raise ConfigError(f"The judge's margin must be zero or more, not {self.margin}.")
        object.__setattr__(
            self, "scales", MappingProxyType({k: (float(m), float(s)) for k, (m, s) in self.scales.items()})
        )

    @classmethod
    def fit(
        cls,
        texts: Iterable[str],
        attributes: Iterable[str],
        margin: float = 0.5,
        vocabularies: Mapping[str, Iterable[str]] = _NO_TOPICS,
    ) -> AttributeJudge:
        """A judge whose scales are those of the texts.

        Raises:
            DataError: see `scales_of`.
        """
        return cls(scales_of(texts, attributes, vocabularies), margin, vocabularies)

    def knows(self, attributes: Iterable[str]) -> bool:
        """Whether the judge has a scale for each of these attributes."""
        return self.scales.keys() >= set(attributes)

    def standardized(self, text: str) -> Mapping[str, float]:
        """Each attribute of the text in standard deviations from the domain's mean, clipped at 2."""
        if text not in self._known:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[text] = {
                name: max(-CLIP, min(CLIP, (self._attributes[name].measure(text) - mean) / spread))
                for name, (mean, spread) in self.scales.items()
            }
        return self._known[text]

    def utility(self, user: User, text: str, prompt: str = "") -> float:
        """How much `user` likes `text`, for any prompt; only differences have a meaning.

        Raises:
            DataError: the user has a weight for an attribute that the judge has no scale for.
        """
        measured = self.standardized(text)
        try:
            return sum([weight * measured[name] for name, weight in user.traits.items() if weight])
        except KeyError:
            missing = min(name for name, weight in user.traits.items() if weight and name not in measured)
            raise DataError(
                f"User '{user.id}' has a weight for '{missing}', and the judge has no scale for that attribute; "
                f"it has scales for {', '.join(self.scales)}."
            ) from None

    @property
    def identity(self) -> str:
        """Distinguishes judges whose verdicts can differ."""
        return json.dumps(self.record(), sort_keys=True)

    def record(self) -> dict[str, Any]:
        """{"scales": {attribute: [mean, standard deviation]}, "margin": number}, "topics": {topic: [word]} if any."""
        record: dict[str, Any] = {"scales": {name: list(scale) for name, scale in self.scales.items()}}
        record["margin"] = self.margin
        if self.vocabularies:
            record["topics"] = {name: sorted(words) for name, words in self.vocabularies.items()}
        return record

    @classmethod
    def load(cls, path: str | Path) -> AttributeJudge:
        """Read a judge.

        Raises:
            DataError: the file does not have the form that `save` writes.
            StorageError: the file is missing or is not JSON.
        """
        value = read_json(Path(path))
        try:
            scales = {str(name): _scale(pair) for name, pair in value["scales"].items()}
            return cls(scales, float(value["margin"]), {str(k): tuple(v) for k, v in value.get("topics", {}).items()})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DataError(
                f'{path} must hold {{"scales": {{attribute: [mean, standard deviation]}}, "margin": number}}.'
            ) from error


def _scale(pair: Sequence[float]) -> Scale:
    mean, spread = pair
    return float(mean), float(spread)
