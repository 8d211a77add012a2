"""Responses that people wrote, with the traits that each declares: `responses.jsonl` of a domain."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from typing import Any

from fspo.errors import ConfigError, DataError
from fspo.judging.traits import feature_names
from fspo.preferences.wording import wording
from fspo.printing import suggestion
from fspo.synthesis.domain_files import TraitsOfText

__all__ = ["WrittenText", "check_weights", "read_written", "values_of"]

_NEEDED, _MAY = ("question", "text", "traits"), ("topic", "id")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class WrittenText:
    """One response.

    Attributes:
        question: what it answers.
        topic: of the question, if the row says one.
        text: the response.
        traits: trait -> its declared value.
        id: the row's own, or empty.
    """

    question: str
    topic: str
    text: str
    traits: Mapping[str, int | str]
    id: str


def values_of(traits: Mapping[str, TraitsOfText]) -> dict[str, tuple[int | str, ...]]:
    """Trait -> its values, from one end to the other."""
    return {name: tuple(row.value for row in trait.values) for name, trait in traits.items()}


def check_weights(names: Iterable[str], traits: Mapping[str, TraitsOfText]) -> None:
    """Check that weights are on declared traits, or on values of traits that have more than two.

    Raises:
        ConfigError: naming the first that is on nothing.
    """
    known = feature_names(values_of(traits))
    for name in names:
        if name not in known:
            hint = suggestion(name, known)
            raise ConfigError(f"There is no trait '{name}' in traits.yaml to have a weight for{hint}")


def read_written(file: Traversable, traits: Mapping[str, TraitsOfText]) -> tuple[WrittenText, ...]:
    """The responses of a domain, in order.

    Raises:
        DataError: the file is missing, or a row is invalid: no JSON, an unknown key, trait or value, a trait without a
            value, a text that came before, or a question with fewer than two responses; names the line.
    """
    if not file.is_file():
        raise DataError(f"The domain lacks {file}, which its written responses are in; see docs/domains.md.")
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} is not readable as text ({error}).") from error
    values = values_of(traits)
    rows: list[WrittenText] = []
    first_line: dict[str, int] = {}
    question_line: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        row = _row(line, values, where)
        if (before := first_line.setdefault(wording(row.text), number)) != number:
            raise DataError(f"{where}: the text is the same as in line {before}; remove one of them.")
        question_line.setdefault(row.question, number)
        rows.append(row)
    if not rows:
        raise DataError(f"{file} holds no response; write some.")
    counts = Counter(row.question for row in rows)
    few = next((question for question, count in counts.items() if count < 2), None)
    if few is not None:
        raise DataError(
            f"{file}, line {question_line[few]}: the question '{few}' has one response, and at least 2 are needed; "
            "write another one, or remove it."
        )
    return tuple(rows)


def _row(line: str, values: Mapping[str, tuple[int | str, ...]], where: str) -> WrittenText:
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        what = error.msg if isinstance(error, json.JSONDecodeError) else "too many values inside one another"
        raise DataError(f"{where}: this is not JSON ({what}).") from error
    if not isinstance(row, dict):
        raise DataError(f"{where}: this is no JSON object; write {{...}} with {', '.join(_NEEDED)}.")
    for key in row:
        if key not in (*_NEEDED, *_MAY):
            raise DataError(f"{where}: there is no key '{key}'{suggestion(key, (*_NEEDED, *_MAY))}")
    for key in _NEEDED:
        if key not in row:
            raise DataError(f"{where}: '{key}' is missing.")
    texts = {key: _text(row.get(key, ""), key, where) for key in ("question", "text", *_MAY)}
    for key in ("question", "text"):
        if not texts[key].strip():
            raise DataError(f"{where}: '{key}' is empty.")
    traits = _traits(row["traits"], values, where)
    return WrittenText(texts["question"], texts["topic"], texts["text"], traits, texts["id"])


def _text(value: object, key: str, where: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"{where}: '{key}' is {value!r}, which is no text; put it in quotation marks.")
    if _SURROGATE.search(value):
        raise DataError(f"{where}: '{key}' holds half of a surrogate pair, which no file can hold; correct the text.")
    return value


def _traits(declared: Any, values: Mapping[str, tuple[int | str, ...]], where: str) -> dict[str, int | str]:
    if not isinstance(declared, dict):
        raise DataError(f"{where}: 'traits' is {declared!r}; write {{trait: value}} for {', '.join(values)}.")
    for name in declared:
        if name not in values:
            raise DataError(f"{where}: there is no trait '{name}'{suggestion(name, values)}")
    for name, known in values.items():
        if name not in declared:
            raise DataError(
                f"{where}: the text has no value of the trait '{name}'; declare one of {', '.join(map(str, known))}."
            )
        value = declared[name]
        if isinstance(value, bool) or value not in known:
            meant = known if str(value) not in map(str, known) else map(repr, known)  # a number, or the same as text
            raise DataError(f"{where}: the trait '{name}' is {value!r}; declare one of {', '.join(map(str, meant))}.")
    return dict(declared)
