"""Typed records on disk: what is written and read by one pydantic type, as JSON, as JSONL, or as a log by key.

A type is anything that pydantic validates: a model, a dataclass, a mapping of these. A file that does not have the form
of its type is an error that names the file, the line and the place in it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from fspo.errors import StorageError
from fspo.files import append_jsonl, log_lines, read_bytes, to_json, write_json, write_text
from fspo.progress import Progress, Silent
from fspo.pydantic_errors import first_fault

__all__ = ["KeyedLog", "Record", "read_headed", "read_record", "read_records", "write_record", "write_records"]

T = TypeVar("T")
H = TypeVar("H")
W = TypeVar("W")


class Record(BaseModel):
    """A record on disk. Unknown fields are ignored: a later version may write more of them."""

    model_config = ConfigDict(frozen=True, extra="ignore")


def write_record(path: Path, value: Any, kind: Any = None) -> None:
    """Write a value as indented JSON in one step; `kind` is its type, where that is more than the value's class."""
    write_json(path, _dumped(value, kind))


def read_record(path: Path, kind: type[T], remedy: str) -> T | None:
    """Read what `write_record` wrote; None where there is no such file.

    `remedy` says how to fix a damaged file, as the end of a sentence.

    Raises:
        StorageError: the file can't be read, or does not have the form of `kind`.
    """
    content = read_bytes(path)
    return None if content is None else _validated(kind, content, str(path), remedy)


def write_records(path: Path, values: Iterable[Any]) -> None:
    """Write one line a record, the whole file in one step."""
    lines = (to_json(_dumped(value)) for value in values)
    write_text(path, "".join(f"{line}\n" for line in lines))


def read_records(path: Path, kind: type[T], remedy: str) -> list[T]:
    """Read what `write_records` wrote; empty where there is no such file. Every line must be a whole record.

    Raises:
        StorageError: the file can't be read, or a line is torn or does not have the form of `kind`.
    """
    return [_validated(kind, line, where, remedy) for where, line in _lines(path)]


def read_headed(path: Path, header: type[H], kind: type[T], remedy: str) -> tuple[H, list[T]]:
    """Read a file of records below a first line of another type, the header.

    Raises:
        StorageError: the file is missing, can't be read, or a line is torn or does not have the form of its type.
    """
    (where, first), *others = _lines(path) or [(f"{path}, line 1,", b"")]
    rows = [_validated(kind, line, where, remedy) for where, line in others]
    return _validated(header, first, where, remedy), rows


def _lines(path: Path) -> list[tuple[str, bytes]]:
    """Where each line is, for errors, and the line."""
    # Lines end at "\n" only: text inside a record may hold U+2028 and its like, where str.splitlines would cut.
    *lines, rest = (read_bytes(path) or b"").split(b"\n")
    return [(f"{path}, line {number},", line) for number, line in enumerate([*lines, *([rest] if rest else [])], 1)]


class KeyedLog(Generic[T]):
    """Results by key, one line each in a JSONL file: what an interrupted call finished is not computed again.

    A result is on the disk when `put` returns. A line that a killed process left unfinished is dropped, and its result
    is computed again. Any other line that is no record is an error.
    """

    def __init__(self, path: Path, kind: type[T], *, lasting: Callable[[T], bool] = lambda _: True) -> None:
        """Read a log, which may be missing.

        `lasting`: whether a result is written; any other, such as that of a failure, is known to this object alone.

        Raises:
            StorageError: the file can't be read, or a line of it is damaged.
        """
        self._path, self._kind, self._lasting = path, kind, lasting
        self._results: dict[str, T] = {}
        for number, line in log_lines(path):
            where, remedy = f"{path}, line {number},", "delete it, or the file, and run the command again."
            self._results[_validated(_Key, line, where, remedy).key] = _validated(kind, line, where, remedy)

    def __contains__(self, key: str) -> bool:
        """Whether there is a result."""
        return key in self._results

    def __getitem__(self, key: str) -> T:
        """The result of a key."""
        return self._results[key]

    def missing(self, wanted: Iterable[str], batch: int = 1) -> list[Sequence[str]]:
        """The batches of these keys that `complete` would compute: those that lack any result."""
        return [some for some in _batches(list(wanted), batch) if any(key not in self for key in some)]

    def left(self, wanted: Collection[str], batch: int = 1) -> float:
        """The share of these results that `complete` would compute."""
        return sum(map(len, self.missing(wanted, batch))) / len(wanted) if wanted else 0.0

    def put(self, key: str, result: T, **notes: str) -> None:
        """Add a result, on the disk too if it lasts; a line holds `notes` besides, which nothing here reads.

        Raises:
            StorageError: the disk is full or the file can't be written.
        """
        self._results[key] = result
        if self._lasting(result):
            append_jsonl(self._path, {"key": key, **notes} | _dumped(result))

    def complete(
        self,
        wanted: Mapping[str, W],
        compute: Callable[[Sequence[W]], Iterable[T]],
        *,
        batch: int = 1,
        title: str = "",
        progress: Progress | None = None,
    ) -> list[T]:
        """The results of all keys in order; what is missing is computed and added.

        `wanted` has key -> what its result is computed from, in order, and `compute` gives a result for each of a
        batch. A batch that lacks any result is computed whole, since a result can depend, in its last digits, on what
        else is in the batch.

        Raises:
            StorageError: see `put`; what was added before stays.
        """
        missing = self.missing(wanted, batch)
        total = len(wanted)
        with (progress or Silent()).task(title, total, total - sum(map(len, missing))) as task:
            for keys in missing:
                for key, result in zip(keys, compute([wanted[key] for key in keys]), strict=True):
                    if key not in self:
                        self.put(key, result)
                task.advance(len(keys))
        return [self[key] for key in wanted]


class _Key(BaseModel):
    key: str


def _batches(keys: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (keys[start : start + size] for start in range(0, len(keys), size))


def _validated(kind: Any, content: bytes, where: str, remedy: str) -> Any:
    """The value that some JSON holds; raises StorageError."""
    try:
        return _adapter(kind).validate_json(content, strict=True)
    except ValidationError as error:
        reason = first_fault(error, kind, noun="key").sentence.rstrip(".")
        raise StorageError(f"{where} is damaged, or of another version of fspo ({reason}); {remedy}") from error


def _dumped(value: Any, kind: Any = None) -> Any:
    """A value as JSON can hold it."""
    known: Any = kind or type(value)
    return _adapter(known).dump_python(value, mode="json")


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
