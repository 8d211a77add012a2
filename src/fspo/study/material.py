"""What items are made of: prompts, and for each prompt the pairs of written texts that may be labelled."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from importlib.resources.abc import Traversable
from itertools import combinations
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fspo.errors import ConfigError, DataError
from fspo.preferences.wording import is_blank, wording
from fspo.printing import counted, nearest
from fspo.pydantic_errors import first_fault
from fspo.study.config import Matching, Source, StudyConfig
from fspo.study.matching import alike, as_shown

__all__ = ["LabelPair", "Material", "Prompt", "WrittenText", "load_material", "wanted_traits"]


@dataclass(frozen=True)
class WrittenText:
    """One written response with its declared traits."""

    text: str
    traits: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LabelPair:
    """Two responses to one prompt, in no order."""

    one: WrittenText
    other: WrittenText

    def differs_in(self, trait: str) -> bool:
        """Whether both texts declare the trait, with different values."""
        values = (self.one.traits.get(trait), self.other.traits.get(trait))
        return None not in values and values[0] != values[1]


@dataclass(frozen=True)
class Prompt:
    """One question, with its pairs for labelling; comparisons need none."""

    text: str
    topic: str
    pairs: tuple[LabelPair, ...] = ()


@dataclass(frozen=True)
class Material:
    """All prompts of both stages. A prompt that is in both lists is shown to a participant only once."""

    labels: tuple[Prompt, ...]
    comparisons: tuple[Prompt, ...]


class _Row(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    question: str
    text: str | None = None
    topic: str = ""
    traits: dict[str, str | int | float | bool] = Field(default_factory=dict)


def load_material(config: StudyConfig) -> Material:
    """Read the sources of a study, and check that they suffice for every participant.

    Raises:
        ConfigError: a domain or a topic does not exist.
        DataError: a file is missing or invalid, or has too few prompts.
    """
    labels = _prompts(config.labels.source, config.matching) if config.labels.count else ()
    usable = tuple(prompt for prompt in labels if prompt.pairs)
    other = config.comparisons.source
    comparisons = labels if other is None and labels else _prompts(other or config.labels.source, config.matching)
    material = Material(usable, comparisons)
    _check(config, material)
    return material


def _check(config: StudyConfig, material: Material) -> None:
    _check_traits(config, material)
    needed, there = config.labels.count, len(material.labels)
    if there < needed:
        raise DataError(
            f"{_name(config.labels.source)} has {there:,} prompts with a pair of texts to label, but a participant "
            f"labels {needed:,}; ask for fewer, or loosen 'matching'."
        )
    known = {wording(prompt.text) for prompt in material.labels}
    shared = sum(wording(prompt.text) in known for prompt in material.comparisons)
    left = len(material.comparisons) - min(shared, needed)
    if left < config.comparisons.count:
        raise DataError(
            f"{_name(config.comparisons.source or config.labels.source)} has {left:,} prompts beside those that a "
            f"participant labels, but {config.comparisons.count:,} are to be compared; add prompts, or ask for fewer."
        )


def _check_traits(config: StudyConfig, material: Material) -> None:
    """Check that a random draw finds a pair for each trait, whichever prompts the labels before it have taken."""
    source = config.labels.source
    wanted = Counter(wanted_traits(config))
    prompts = {
        trait: {prompt.text for prompt in material.labels if any(pair.differs_in(trait) for pair in prompt.pairs)}
        for trait in wanted
        if trait
    }
    for trait, mine in prompts.items():
        taken = sum(min(wanted[other], len(theirs & mine)) for other, theirs in prompts.items() if other != trait)
        if len(mine) < wanted[trait] + taken:
            raise DataError(
                f"{_name(source)} has {counted(len(mine), 'prompts')} with a pair of texts that differs in the trait "
                f"'{trait}', but a participant may need {wanted[trait] + taken:,}; ask for fewer labels, or add texts."
            )


def wanted_traits(config: StudyConfig) -> list[str]:
    """The trait in which the texts of each label differ, in no order; empty texts if any pair will do."""
    traits = config.labels.source.differ_in or ("",)
    return [traits[number % len(traits)] for number in range(config.labels.count)]


def _prompts(source: Source, matching: Matching) -> tuple[Prompt, ...]:
    found: dict[str, tuple[_Row, list[WrittenText]]] = {}
    for row in _rows(source):
        _, texts = found.setdefault(wording(row.question), (row, []))
        if row.text is not None and not is_blank(row.text):
            texts.append(WrittenText(row.text.strip(), {name: str(value) for name, value in row.traits.items()}))
    topics = sorted({row.topic for row, _ in found.values()} - {""})
    for topic in source.topics:
        if topic not in topics:
            close = nearest(topic, topics)
            hint = f"; did you mean '{close}'?" if close else f"; there are {', '.join(topics) or 'none'}."
            raise ConfigError(f"{_name(source)} has no topic '{topic}'{hint}")
    return tuple(
        Prompt(row.question, row.topic, tuple(_pairs(texts, source, matching)))
        for row, texts in found.values()
        if not source.topics or row.topic in source.topics
    )


def _pairs(texts: Sequence[WrittenText], source: Source, matching: Matching) -> list[LabelPair]:
    shown = [(as_shown(text.text, matching), text) for text in texts]
    pairs = [
        LabelPair(one, other)
        for (seen, one), (other_seen, other) in combinations(shown, 2)
        if seen and other_seen and seen != other_seen
    ]
    return [
        pair
        for pair in pairs
        if (not source.differ_in or any(map(pair.differs_in, source.differ_in)))
        and alike(pair.one.text, pair.other.text, matching)
    ]


def _rows(source: Source) -> list[_Row]:
    file = _file(source)
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError as error:
        raise DataError(
            f"There is no file {source.file} with the study's texts in {Path.cwd()}; a relative 'file' starts at the "
            "folder in which the command runs."
            if source.file and not source.file.is_absolute()
            else f"There is no file {file} with the study's texts."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} can't be read as text ({error}).") from error
    return [_row(line, f"{file}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]


def _row(line: str, where: str) -> _Row:
    try:
        row = _Row.model_validate(json.loads(line))
    except ValidationError as error:
        raise DataError(f"{where}: {first_fault(error, _Row, noun='field').sentence}") from None
    except ValueError as error:
        raise DataError(f"{where}: it is not valid JSON ({error}).") from error
    if is_blank(row.question):
        raise DataError(f"{where}: the question is empty.")
    return row


def _file(source: Source) -> Traversable | Path:
    if source.file is not None:
        return source.file
    # Read as data: the study does not import how datasets are made.
    domains = files("fspo").joinpath("synthesis", "domains")
    written = sorted(one.name for one in domains.iterdir() if one.joinpath("responses.jsonl").is_file())
    if source.domain not in written:
        close = nearest(str(source.domain), written)
        hint = f"did you mean '{close}'?" if close else f"there are {', '.join(written)}."
        raise ConfigError(f"There is no domain '{source.domain}' with written responses; {hint}")
    return domains.joinpath(source.domain, "responses.jsonl")


def _name(source: Source) -> str:
    return str(source.file) if source.file is not None else f"The domain '{source.domain}'"
