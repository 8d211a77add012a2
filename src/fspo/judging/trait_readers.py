"""Readers of traits: how much of each trait a text shows, for answers that nobody declared traits of.

A reader is a ridge regression of the declared place of a trait on what can be counted in a text: surface measures, and
words that occur in the answers to several questions. Words on the topic of one question are no features, so a reader
carries over to other questions. How rightly it reads is measured on questions that it was not fitted on.
"""

from __future__ import annotations

import math
import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

from fspo.errors import DataError
from fspo.identity import digest
from fspo.judging import attributes
from fspo.judging.judge import CLIP, Scale
from fspo.judging.traits import Value, feature_names, features_at
from fspo.judging.utility_judge import UtilityJudge
from fspo.preferences.types import User

__all__ = ["READABLE", "DeclaredText", "ReaderJudge", "Reading", "TraitReader", "fit_readers", "surface_of"]

READABLE = 0.8
"""Share of held-out pairs that a reader must order rightly, for its trait to decide about answers."""

_STRENGTHS = (10.0, 30.0, 100.0, 300.0)
"""Penalties of the regression; cross-validation by question chooses one."""
_FOLDS = 5
_LEAST_QUESTIONS = 4
"""Training questions that a word must occur in to be a feature."""
_CLIP = 3.0
"""Standard deviations beyond which more of a surface measure changes nothing."""
_DIGITS = 6
_MOST_KNOWN = 100_000
"""Texts whose places are kept in memory."""

_TOKEN = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)?|[?!;:(]|\d+")
_LIST_MARK = re.compile(r"^[ \t]*(?:[-*\u2022]|\d{1,2}[.)])[ \t]+", re.MULTILINE)
"""Also of numbered lists, which models write more often than people."""
_EMPHASIS = re.compile(r"\*\*|__|^#+[ \t]+", re.MULTILINE)
_SECOND_PERSON = re.compile(r"\b(?:you|your|yours|yourself)\b", re.IGNORECASE)
_CONTRACTION = re.compile(
    r"\b\w+n['\u2019]t\b|\w+['\u2019](?:re|ve|ll|d|m)\b|\b(?:it|that|what|who|there|here|he|she|let|how|where)['\u2019]s\b",
    re.IGNORECASE,
)
_LONG_WORD = 8


@dataclass(frozen=True)
class DeclaredText:
    """A text whose traits are known, and the question that it answers."""

    question: str
    text: str
    traits: Mapping[str, Value]


@dataclass(frozen=True)
class Reading:
    """How rightly a reader reads texts on questions that it was not fitted on."""

    questions: int
    pairs: int
    """Pairs of texts on one question that differ in the trait."""
    ordered: float
    """Share of these pairs that the reader puts in the right order, equal places counting half; 0 without pairs."""
    balanced: float
    """Share of the texts whose value is read exactly, each value weighing the same; 0 without texts."""

    @property
    def readable(self) -> bool:
        """Whether the trait may decide which answer is preferred."""
        return self.pairs > 0 and self.ordered >= READABLE


@dataclass(frozen=True)
class TraitReader:
    """Reads where a text stands between the first value of a trait (0) and the last one, as a sum of weighted features.

    Attributes:
        intercept: the place of a text without any feature.
        weights: feature -> weight.
        reading: how rightly it reads.
    """

    intercept: float
    weights: Mapping[str, float]
    reading: Reading

    def place(self, features: Mapping[str, float]) -> float:
        """Where a text with these features stands; it may lie beyond the ends."""
        return self.intercept + math.fsum(self.weights.get(name, 0.0) * value for name, value in features.items())


@dataclass(frozen=True)
class ReaderJudge(UtilityJudge):
    """Judges answers by the traits that readers find in them, weighted by the user's own; needs no model.

    A user's utility of a text is sum_f w_f * clip((x_f - mean_f) / std_f, -2, 2), with w the user's traits, x the
    features of the places that the readers find, and mean and deviation over the texts that they were fitted on. It
    judges for users whose traits are all read rightly enough (`READABLE`).

    Attributes:
        values: trait -> its values, from one end to the other.
        readers: trait -> its reader.
        surface: surface measure -> mean and standard deviation over the texts that the readers were fitted on.
        scales: what users have weights for -> mean and standard deviation over these texts.
        margin: utilities that differ by less are a tie. A user's traits have length 1, so it is in standard deviations.
    """

    values: Mapping[str, tuple[Value, ...]]
    readers: Mapping[str, TraitReader]
    surface: Mapping[str, Scale]
    scales: Mapping[str, Scale]
    margin: float = 0.5
    _known: dict[str, dict[str, float]] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def identity(self) -> str:
        """The same for judges that judge all texts alike."""
        return digest(self.record())

    @property
    def readings(self) -> dict[str, Reading]:
        """Trait -> how rightly it is read."""
        return {name: reader.reading for name, reader in self.readers.items()}

    @cached_property
    def _readable(self) -> frozenset[str]:
        """What users may have weights for."""
        read = {name: known for name, known in self.values.items() if self.readers[name].reading.readable}
        return frozenset(feature_names(read))

    def has_weights(self, user: User, prompt: str = "") -> bool:
        """Whether the judge can judge for a user: each trait that the user has a weight for is read rightly enough."""
        weighed = {name for name, weight in user.traits.items() if weight}
        return bool(weighed) and weighed <= self._readable

    def standardized(self, text: str) -> Mapping[str, float]:
        """What users have weights for, as read in the text, in standard deviations from the mean, clipped at 2."""
        if text not in self._known:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            read = _read(_features(text, surface_of(text), self.surface), self.values, self.readers)
            self._known[text] = {
                name: max(-CLIP, min(CLIP, (value - self.scales[name][0]) / self.scales[name][1]))
                for name, value in read.items()
            }
        return self._known[text]

    def utility(self, user: User, text: str, prompt: str = "") -> float:
        """How much `user` likes `text`, whatever the prompt; only differences mean something.

        Raises:
            DataError: the judge can't judge for the user; see `has_weights`.
        """
        if not self.has_weights(user):
            raise DataError(
                f"User '{user.id}' has a weight for a trait that can't be read well enough in answers, so that nobody "
                f"can judge answers for them; readable are {', '.join(sorted(self._readable)) or 'none'}."
            )
        read = self.standardized(text)
        return math.fsum(weight * read[name] for name, weight in user.traits.items() if weight)

    def record(self) -> dict[str, Any]:
        """{"readers": {trait: {"values", "intercept", "weights", "reading"}}, "surface", "scales", "margin"}."""
        return {
            "readers": {
                name: {
                    "values": list(self.values[name]),
                    "intercept": reader.intercept,
                    "weights": dict(reader.weights),
                    "reading": asdict(reader.reading),
                }
                for name, reader in self.readers.items()
            },
            "surface": {name: list(scale) for name, scale in self.surface.items()},
            "scales": {name: list(scale) for name, scale in self.scales.items()},
            "margin": self.margin,
        }

    @classmethod
    def of_record(cls, record: Mapping[str, Any], path: Path) -> ReaderJudge:
        """The judge of a record that was read from `path`.

        Raises:
            DataError: it does not have the form that `record` gives.
        """
        try:
            rows: Mapping[str, Any] = record["readers"]
            return cls(
                {name: tuple(row["values"]) for name, row in rows.items()},
                {name: _reader_of(row) for name, row in rows.items()},
                {name: (float(mean), float(spread)) for name, (mean, spread) in record["surface"].items()},
                {name: (float(mean), float(spread)) for name, (mean, spread) in record["scales"].items()},
                float(record["margin"]),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path} holds no readers of traits; generate the data again.") from error


def _reader_of(row: Mapping[str, Any]) -> TraitReader:
    weights = {str(name): float(weight) for name, weight in row["weights"].items()}
    return TraitReader(float(row["intercept"]), weights, Reading(**row["reading"]))


def fit_readers(
    texts: Sequence[DeclaredText],
    held_out: Sequence[DeclaredText],
    values: Mapping[str, tuple[Value, ...]],
    margin: float = 0.5,
) -> ReaderJudge | None:
    """Fit a reader of each trait on `texts`, and measure it on `held_out`; None without texts of two questions.

    No question has texts in both. `values` are each trait's values from one end to the other. The strength of each
    regression is chosen by cross-validation in which no question is on both sides.
    """
    import numpy as np

    if len({row.question for row in texts}) < 2:
        return None
    measured = [surface_of(row.text) for row in texts]
    surface = {name: scale for name in measured[0] if (scale := _scale([row[name] for row in measured]))[1] > 0}
    vocabulary = _vocabulary(texts)
    names = [*surface, *sorted(vocabulary)]
    rows = [_features(row.text, found, surface) for row, found in zip(texts, measured, strict=True)]
    inputs = np.array([[row.get(name, 0.0) for name in names] for row in rows])
    places = np.array([[float(known.index(row.traits[trait])) for trait, known in values.items()] for row in texts])
    fits = _regressions(inputs, places, [row.question for row in texts])
    unseen = [_features(row.text, surface_of(row.text), surface) for row in held_out]
    readers = {}
    for (trait, known), (intercept, weights) in zip(values.items(), fits, strict=True):
        kept = {name: weight for name, weight in zip(names, weights, strict=True) if weight}
        reader = TraitReader(intercept, kept, Reading(0, 0, 0.0, 0.0))
        truth = [known.index(row.traits[trait]) for row in held_out]
        reading = _reading(truth, [reader.place(row) for row in unseen], [row.question for row in held_out], len(known))
        readers[trait] = replace(reader, reading=reading)
    found = [_read(row, values, readers) for row in rows]
    scales = {name: _scale([row[name] for row in found]) for name in found[0]}
    scales = {name: (mean, spread or 1.0) for name, (mean, spread) in scales.items()}
    return ReaderJudge(dict(values), readers, surface, scales, margin)


def _read(
    row: Mapping[str, float], values: Mapping[str, tuple[Value, ...]], readers: Mapping[str, TraitReader]
) -> dict[str, float]:
    """What users have weights for -> what the readers find of it in a row of features."""
    found: dict[str, float] = {}
    for trait, known in values.items():
        found |= features_at(trait, readers[trait].place(row), known)
    return found


def surface_of(text: str) -> dict[str, float]:
    """Surface measures of a text: length, form, person, punctuation, kinds of words, sentiment."""
    lines = [line for line in text.splitlines() if line.strip()]
    listed = sum(_LIST_MARK.match(line) is not None for line in lines)
    text = _unmarked(text)
    found = attributes.words(attributes.plain_text(text))
    count, sentences = max(1, len(found)), max(1, len(attributes.sentences(text)))
    rarities = sorted((attributes.word_rarity(word) for word in found), reverse=True)
    return {
        "words, log": math.log1p(len(found)),
        "sentences": float(sentences),
        "words a sentence": count / sentences,
        "lines of a list": listed / max(1, len(lines)),
        "first person": attributes.first_person(text),
        "second person": len(_SECOND_PERSON.findall(text)) / count,
        "contractions": len(_CONTRACTION.findall(text)) / sentences,
        "formality": attributes.formality(text),
        "exclamation marks": attributes.exclamation(text),
        "question marks": text.count("?") / sentences,
        "commas": text.count(",") / count,
        "colons and semicolons": (text.count(":") + text.count(";")) / sentences,
        "quotation marks": len(re.findall('["\u201c\u201d]', text)) / sentences,
        "numerals": len(re.findall(r"\d+", text)) / count,
        "names": sum(word[0].isupper() for word in found[1:]) / count,
        "letters a word": sum(map(len, found)) / count,
        "long words": sum(len(word) >= _LONG_WORD for word in found) / count,
        "different words": len({word.lower() for word in found}) / count,
        "reading grade": attributes.reading_grade(text),
        "rarity": math.fsum(rarities) / count,
        "rarity of the rarest words": math.fsum(rarities[: max(1, count // 4)]) / max(1, count // 4),
        "sentiment": attributes.sentiment(text),
    }


def _unmarked(text: str) -> str:
    """The text without the marks of lists, headings and bold print."""
    return _LIST_MARK.sub("", _EMPHASIS.sub("", text))


def _features(text: str, measured: Mapping[str, float], surface: Mapping[str, Scale]) -> dict[str, float]:
    """A text's surface measures in standard deviations, clipped at 3, and 1 for each word that occurs."""
    found = {
        name: max(-_CLIP, min(_CLIP, (measured[name] - mean) / spread)) for name, (mean, spread) in surface.items()
    }
    return found | dict.fromkeys(_tokens(text), 1.0)


def _tokens(text: str) -> set[str]:
    """The words of a text and some of its punctuation, marked so that they differ from names of surface measures."""
    tokens = (token.lower().replace("\u2019", "'") for token in _TOKEN.findall(_unmarked(text)))
    return {f"'{'0' if token.isdigit() else token}'" for token in tokens}


def _vocabulary(texts: Iterable[DeclaredText]) -> set[str]:
    """The words that occur in the answers to several questions."""
    questions: dict[str, set[str]] = defaultdict(set)
    for row in texts:
        for token in _tokens(row.text):
            questions[token].add(row.question)
    return {token for token, found in questions.items() if len(found) >= _LEAST_QUESTIONS}


def _regressions(inputs: Any, places: Any, groups: Sequence[str]) -> Iterator[tuple[float, list[float]]]:
    """Intercept and weights of a ridge regression for each column of `places`, each of its own strength.

    They are rounded so that they are the same on every machine.
    """
    import numpy as np
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import GroupKFold

    folds = list(GroupKFold(min(_FOLDS, len(set(groups)))).split(inputs, groups=groups))

    def error(strength: float) -> Any:
        """Mean squared error on the questions left out, for each column."""
        fits = ((Ridge(strength).fit(inputs[kept], places[kept]), out) for kept, out in folds)
        return np.mean([((fit.predict(inputs[out]) - places[out]) ** 2).mean(axis=0) for fit, out in fits], axis=0)

    best = np.argmin([error(strength) for strength in _STRENGTHS], axis=0)
    fits = {place: Ridge(_STRENGTHS[place]).fit(inputs, places) for place in set(best)}
    for column, place in enumerate(best):
        fit = fits[place]
        yield round(float(fit.intercept_[column]), _DIGITS), [round(float(one), _DIGITS) for one in fit.coef_[column]]


def _reading(truth: Sequence[int], places: Sequence[float], questions: Sequence[str], values: int) -> Reading:
    """How rightly `places` tell the truth about texts on these questions."""
    by_question: dict[str, list[int]] = defaultdict(list)
    exact: dict[int, list[bool]] = defaultdict(list)
    for number, question in enumerate(questions):
        by_question[question].append(number)
        exact[truth[number]].append(round(max(0.0, min(values - 1.0, places[number]))) == truth[number])
    pairs = [(a, b) for own in by_question.values() for a, b in combinations(own, 2) if truth[a] != truth[b]]
    right = [_right(places[a] - places[b], truth[a] - truth[b]) for a, b in pairs]
    shares = [sum(rows) / len(rows) for rows in exact.values()]
    means = [round(math.fsum(rows) / len(rows), _DIGITS) if rows else 0.0 for rows in (right, shares)]
    return Reading(len(by_question), len(pairs), *means)


def _right(read: float, true: float) -> float:
    """1 where two differences have the same sign, 0 where they have not, 0.5 where nothing was read."""
    return 0.5 if read == 0 else float((read > 0) == (true > 0))


def _scale(figures: Sequence[float]) -> Scale:
    return round(statistics.fmean(figures), _DIGITS), round(statistics.pstdev(figures), _DIGITS)
