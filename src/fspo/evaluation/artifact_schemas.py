"""Files that an evaluation left behind, read so that a damaged one, or one of another version, is said and no crash."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from fspo.errors import StorageError
from fspo.files import read_json, read_whole_jsonl

__all__ = [
    "CALIBRATION",
    "DETAILS",
    "FORMAT",
    "GAME",
    "ITEM",
    "JUDGES",
    "PER_USER",
    "SAMPLE",
    "check_kept",
    "damaged",
    "read_kept",
    "read_rows",
]


class _Record(BaseModel):
    """Keys that are not named are left alone: a later version may write more of them."""

    model_config = ConfigDict(strict=True, extra="ignore")


class _OfUser(_Record):
    value: float
    items: int


class _Bin(_Record):
    confidence: float
    accuracy: float
    users: int
    items: int


class _ByChance(_Record):
    mean: float
    high: float


class _Nothing(_Record):
    model_config = ConfigDict(strict=True, extra="forbid")


class _Calibration(_Record):
    bins: list[_Bin] = []
    fitted_bins: list[_Bin] = []
    error_by_chance: _ByChance | _Nothing = _Nothing()
    fitted_error_by_chance: _ByChance | _Nothing = _Nothing()


class _Agreement(_Record):
    judges: list[str]
    share: dict[str, float | None] | None = None
    kappa: float | None = None


class _Judge(_Record):
    counts: dict[str, dict[str, int]] = {}
    consistency: dict[str, float | None] | None = None


class _Judges(_Record):
    agreement: list[_Agreement] = []
    judges: dict[str, _Judge] = {}


class _Robustness(_Record):
    users: int = 0
    pairs: int = 0
    wrong_labels: dict[str, int] = {}


class _Details(_Record):
    format: Literal[2]
    users: int = 0
    questions: int = 0
    pairs: int = 0
    shots: int = 0
    model: str | None = None
    compared: str | None = None
    judge_kind: str = ""
    judge: dict[str, str] | None = None
    floors: dict[str, float | None] = {}
    rewards: dict[str, list[str]] = {}
    samplings: dict[str, str] = {}
    dropped_shots: dict[str, int] = {}
    judgements: dict[str, dict[str, int]] = {}
    robustness: _Robustness = _Robustness()
    untraced: list[str] = []


class _Game(_Record):
    user: str
    first: str
    second: str
    score: float


class _Item(_Record):
    user: str
    item: str
    prompt: str
    chosen: str
    rejected: str
    shots: str
    traits: str
    description: str
    donor: str
    values: dict[str, dict[str, float]]


class _Sample(_Record):
    user: str
    item: str
    prompt: str
    answers: dict[str, str]
    outcomes: dict[str, str]
    description: str = ""
    described: dict[str, str] = {}
    traits: dict[str, float] = {}
    broken: dict[str, list[str]] = {}


Kind = Any
"""A type that pydantic can check a value against; keys that it does not name are left alone."""

CALIBRATION: Kind = dict[str, _Calibration]
"""`calibration.json`."""
DETAILS: Kind = _Details
"""`details.json`."""
FORMAT = 2
"""Of the folder of an evaluation, in `details.json`; counts up where an older one can't be read any more."""
GAME: Kind = _Game
"""A line of `games.jsonl`."""
ITEM: Kind = _Item
"""A line of `items.jsonl`."""
JUDGES: Kind = _Judges
"""`judges.json`."""
PER_USER: Kind = dict[str, dict[str, dict[str, _OfUser]]]
"""`per_user.json`."""
SAMPLE: Kind = _Sample
"""A line of `samples.jsonl`."""


def damaged(path: Path, wanted: str) -> StorageError:
    """The error of a file that does not hold what is `wanted` of it."""
    return StorageError(f"{path} is damaged, or of another version of fspo: {wanted} expected; run `fspo eval` again.")


def read_kept(kind: Kind, *paths: Path) -> dict[str, Any]:
    """The contents of the first of `paths` that is there, checked against `kind`; empty where none is.

    Raises:
        StorageError: the file can't be read, or holds something else.
    """
    path = next((path for path in paths if path.exists()), None)
    if path is None:
        return {}
    return check_kept(kind, read_json(path), path)


def read_rows(kind: Kind, path: Path) -> list[dict[str, Any]]:
    """The records of a JSONL file, each checked against `kind`; none where there is no such file.

    Raises:
        StorageError: the file can't be read, or a record is something else.
    """
    rows = read_whole_jsonl(path, "run `fspo eval` again.")
    for number, row in enumerate(rows, start=1):
        _check(kind, row, path, f"record {number}: ")
    return rows


def check_kept(kind: Kind, value: Any, path: Path) -> dict[str, Any]:
    """`value`, which was read from `path`, checked against `kind`.

    Raises:
        StorageError: it is something else.
    """
    _check(kind, value, path, "")
    return dict(value)


def _check(kind: Kind, value: object, path: Path, where: str) -> None:
    try:
        _adapter(kind).validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        reason = first["msg"][:1].lower() + first["msg"][1:]
        raise StorageError(
            f"{path} is damaged, or of another version of fspo ({where}{f'{place}: ' if place else ''}{reason}); "
            "run `fspo eval` again."
        ) from error


@cache
def _adapter(kind: Kind) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
