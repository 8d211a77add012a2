"""What the stages before labelling leave in a dataset's folder, read again."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from fspo.files import read_json, to_json, write_json, write_text
from fspo.identity import file_digest
from fspo.records import read_headed
from fspo.synthesis.domain import Question
from fspo.synthesis.questions import Questions
from fspo.synthesis.responses import Response, Responses

__all__ = [
    "JUDGE",
    "QUESTIONS",
    "RESPONSES",
    "UNFINISHED",
    "VIEWS",
    "Views",
    "failed_stages",
    "load_questions",
    "load_responses",
    "load_views",
    "write_stage",
]

QUESTIONS, VIEWS, RESPONSES, JUDGE = "questions.jsonl", "views.jsonl", "responses.jsonl", "judge.json"
UNFINISHED = "unfinished.json"
"""Stage -> the digest of its file, and how many of its requests failed; gone where the dataset is finished."""
_ASKED = (QUESTIONS, VIEWS, RESPONSES)
"""The stages that ask a model and leave a file, in order."""
REMEDY = "delete it, or put back an undamaged copy, and run the same command again; answers of models are kept."


class _Header(BaseModel):
    """The first line of `views.jsonl`."""

    model_config = ConfigDict(extra="forbid")


class _OfQuestions(_Header):
    rejected: dict[str, int]


class _OfResponses(_OfQuestions):
    asked: int
    steering: dict[str, dict[str, int]]


@dataclass(frozen=True)
class Views:
    """The viewpoints on one question."""

    question: str
    views: list[str]


def load_questions(out: Path) -> Questions:
    """The questions, and what was not used.

    Raises:
        StorageError: the file is missing or damaged; says in which line.
    """
    header, rows = read_headed(out / QUESTIONS, _OfQuestions, Question, REMEDY)
    return Questions(rows, Counter(header.rejected))


def load_responses(out: Path) -> Responses:
    """The responses, and what was not used.

    Raises:
        StorageError: the file is missing or damaged; says in which line.
    """
    header, rows = read_headed(out / RESPONSES, _OfResponses, Response, REMEDY)
    return Responses(rows, header.asked, Counter(header.rejected), header.steering)


def load_views(out: Path) -> dict[str, list[str]]:
    """Question id -> its viewpoints.

    Raises:
        StorageError: the file is damaged; says in which line.
    """
    _, rows = read_headed(out / VIEWS, _Header, Views, REMEDY)
    return {row.question: row.views for row in rows}


def write_stage(path: Path, header: dict[str, Any], rows: Iterable[Question | Response | Views], failed: int) -> None:
    """Write the file of a stage, and before it how many of the stage's requests failed.

    Raises:
        StorageError: the disk is full.
    """
    text = "".join(to_json(row) + "\n" for row in (header, *map(asdict, rows)))
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
