"""What the stages before labelling leave in a dataset's folder, read again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from fspo.errors import StorageError
from fspo.files import read_whole_jsonl
from fspo.synthesis.recipe.questions import Question, Questions
from fspo.synthesis.recipe.responses import Response, Responses

__all__ = ["JUDGE", "QUESTIONS", "RESPONSES", "load_questions", "load_responses", "read_headed", "read_plain"]

QUESTIONS, RESPONSES, JUDGE = "questions.jsonl", "responses.jsonl", "judge.json"
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
    header, rows = read_headed(out / RESPONSES, lambda row: Response(**row), "asked", "rejected")
    return Responses(rows, header["asked"], Counter(header["rejected"]))


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
