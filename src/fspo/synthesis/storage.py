"""What the stages before labelling leave in a dataset's folder, read again."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from fspo.errors import StorageError
from fspo.files import read_json, read_whole_jsonl, to_json, write_json, write_text
from fspo.identity import file_digest
from fspo.synthesis.domain import Question
from fspo.synthesis.questions import Questions
from fspo.synthesis.responses import Response, Responses

__all__ = [
    "JUDGE",
    "QUESTIONS",
    "RESPONSES",
    "UNFINISHED",
    "VIEWS",
    "failed_stages",
    "load_questions",
    "load_responses",
    "read_headed",
    "read_plain",
    "write_stage",
]

QUESTIONS, VIEWS, RESPONSES, JUDGE = "questions.jsonl", "views.jsonl", "responses.jsonl", "judge.json"
UNFINISHED = "unfinished.json"
"""Stage -> the digest of its file, and how many of its requests failed; gone where the dataset is finished."""
_ASKED = (QUESTIONS, VIEWS, RESPONSES)
"""The stages that ask a model and leave a file, in order."""
REMEDY = "delete it, or put back an undamaged copy, and run the same command again; answers of models are kept."

Row = TypeVar("Row")


def load_questions(out: Path) -> Questions:
    """The questions, and what was not used.

    Raises:
        StorageError: the file is missing or damaged; says in which line.
    """
    header, rows = read_headed(out / QUESTIONS, lambda row: Question(**row), "rejected")
    return Questions(rows, Counter(header["rejected"]))


def load_responses(out: Path) -> Responses:
    """The responses, and what was not used.

    Raises:
        StorageError: the file is missing or damaged; says in which line.
    """
    header, rows = read_headed(out / RESPONSES, lambda row: Response(**row), "asked", "rejected", "steering")
    return Responses(rows, header["asked"], Counter(header["rejected"]), header["steering"])


def write_stage(path: Path, header: dict[str, Any], rows: Iterable[dict[str, Any]], failed: int) -> None:
    """Write the file of a stage, and before it how many of the stage's requests failed.

    Raises:
        StorageError: the disk is full.
    """
    text = "".join(to_json(row) + "\n" for row in (header, *rows))
    note = {"sha256": hashlib.sha256(text.encode()).hexdigest(), "failed": failed}
    write_json(path.parent / UNFINISHED, {**_noted(path.parent), path.name: note})
    write_text(path, text)


def failed_stages(out: Path) -> list[str]:
    """The first stage with failed requests, and those after it; none if a person has edited a file.

    Raises:
        StorageError: a file can't be read.
    """
    noted = _noted(out)
    for name in _ASKED:
        if (out / name).exists() and noted.get(name, {}).get("sha256") != file_digest(out / name):
            return []
    first = next((place for place, name in enumerate(_ASKED) if noted.get(name, {}).get("failed")), len(_ASKED))
    return list(_ASKED[first:])


def _noted(out: Path) -> dict[str, Any]:
    return dict(read_json(out / UNFINISHED)) if (out / UNFINISHED).exists() else {}


def read_headed(path: Path, take: Callable[[dict[str, Any]], Row], *header: str) -> tuple[dict[str, Any], list[Row]]:
    """The first line of a file, which has the keys `header` and no others, and what `take` makes of each other line.

    Raises:
        StorageError: the file is missing or damaged; says in which line.
    """
    first, *others = read_whole_jsonl(path, REMEDY) or [{"": "missing or empty"}]
    if set(first) != set(header):
        raise StorageError(f"{path} is damaged: line 1 is not its header; {REMEDY}")
    return first, _taken(path, others, take, first=2)


def read_plain(path: Path, take: Callable[[dict[str, Any]], Row]) -> list[Row]:
    """What `take` makes of each line of a file without a header.

    Raises:
        StorageError: the file is damaged; says in which line.
    """
    return _taken(path, read_whole_jsonl(path, REMEDY), take, first=1)


def _taken(
    path: Path, rows: Iterable[dict[str, Any]], take: Callable[[dict[str, Any]], Row], *, first: int
) -> list[Row]:
    taken = []
    for number, row in enumerate(rows, start=first):
        try:
            taken.append(take(row))
        except (KeyError, TypeError, ValueError) as error:
            raise StorageError(f"{path} is damaged: line {number} is of another kind; {REMEDY}") from error
    return taken
