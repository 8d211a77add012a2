"""Tables on disk, recognised by what they hold: CSV, TSV, JSON, Parquet and Arrow, in one file or a folder of them.

Every table is read as rows with their numbers, so that an error can name both file and row.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from fspo.errors import DataError, StorageError
from fspo.files import read_json
from fspo.preferences.dataset import iterate_arrow, iterate_parquet

if TYPE_CHECKING:
    from fspo.preferences.validation import Faults

__all__ = ["SUFFIXES", "Kind", "TableFile", "find_tables", "stem_of"]

SUFFIXES = (".parquet", ".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".arrow")
"""Endings of the tables in a folder; text may be compressed (`.gz`). A file that is named alone needs none of them."""

_DELIMITERS = ",\t;|"
_GZIP = b"\x1f\x8b"
_HEAD = 1 << 16
"""Bytes of a file that show what it is."""
_CELL = 1 << 26
"""Letters that a cell of CSV may have."""

_ABOUT = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "dataset.json", "splits.json")
"""Files that say something of the tables beside them."""

_BINARY: Mapping[bytes, str] = {
    b"PK\x03\x04": "a ZIP archive or a workbook; unpack it, or save the sheet as CSV",
    b"SQLite format 3": "an SQLite database; export the table as CSV",
    b"\xd0\xcf\x11\xe0": "an old workbook; save the sheet as CSV",
}


class Kind(StrEnum):
    """What a table is written as."""

    CSV = "CSV"
    JSON_LINES = "JSON Lines"
    JSON = "JSON"
    PARQUET = "Parquet"
    ARROW = "Arrow"


@dataclass(frozen=True)
class TableFile:
    """One file with rows."""

    path: Path
    kind: Kind
    name: str
    """What errors call it."""

    def rows(self, faults: Faults | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield (row number, columns by name).

        Rows count from 1: lines of JSON as an editor counts them, blank ones too; rows of CSV as a spreadsheet does, so
        that the first one below the header is row 2.

        Args:
            faults: takes the rows that can't be read, which are passed over; without it the first is an error.

        Raises:
            DataError: naming file and row of what can't be read.
            StorageError: the file can't be read.
        """
        if self.kind is Kind.PARQUET:
            return iterate_parquet(self.path)
        if self.kind is Kind.ARROW:
            return iterate_arrow(self.path)
        read = {Kind.CSV: _csv_rows, Kind.JSON_LINES: _json_lines, Kind.JSON: _json_array}[self.kind]
        return read(self.path, self.name, faults)


def find_tables(source: str | Path, part: str = "") -> list[TableFile]:
    """Recognise a file, or the files of a folder, in the order of their names.

    A folder may hold shards (`data/train-00000-of-00002.parquet`), or be what `datasets.save_to_disk` wrote.

    Args:
        source: the file or folder; `hub:owner/name` is fetched first.
        part: only the files of this part, such as `train`; by default all.

    Raises:
        ConfigError: the name is no hub dataset's.
        DataError: it holds no table, or tables of several kinds; or there is no such part.
        StorageError: it can't be read, or the hub can't be reached.
    """
    from fspo.preferences.hub import HUB, fetch

    if str(source).startswith(HUB):
        files = fetch(str(source), part)
        names = [f"{source} ({path.name})" if len(files) > 1 else str(source) for path in files]
        return _one_kind(str(source), [_table(path, name) for path, name in zip(files, names, strict=True)])
    folder = Path(source)
    if not folder.is_dir():
        return [_table(folder, str(folder))]
    return _one_kind(str(folder), [_table(path, str(path)) for path in _files_of(folder, part)])


def stem_of(path: Path) -> str:
    """The name of a table without the endings that say what it is: `ratings.csv.gz` -> `ratings`."""
    name = path.name.removesuffix(".gz")
    return Path(name).stem if Path(name).suffix.lower() in SUFFIXES else name


def _files_of(folder: Path, part: str) -> list[Path]:
    from fspo.preferences.hub import of_part

    saved = _saved_to_disk(folder)
    inside = saved or [path for path in sorted(folder.rglob("*")) if path.is_file() and _is_table(path, folder)]
    if not inside:
        raise DataError(
            f"{folder} holds no table ({', '.join(SUFFIXES)}, or text as .gz); name the file or folder that has the "
            "rows."
        )
    return [
        folder / file for file in of_part([path.relative_to(folder).as_posix() for path in inside], part, str(folder))
    ]


def _is_table(path: Path, folder: Path) -> bool:
    hidden = any(name.startswith(".") for name in path.relative_to(folder).parts)
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    users = stem_of(path).endswith(".users")
    return suffix in SUFFIXES and path.name not in _ABOUT and not hidden and not users


def _saved_to_disk(folder: Path) -> list[Path]:
    """The files of a folder that `datasets.save_to_disk` wrote, in the order of their rows; none of any other."""
    splits = _listed(folder / "dataset_dict.json", "splits")
    if splits:
        return [path for split in splits for path in _saved_to_disk(folder / str(split))]
    files = _listed(folder / "state.json", "_data_files")
    return [folder / str(file["filename"]) for file in files if isinstance(file, Mapping) and "filename" in file]


def _listed(path: Path, key: str) -> list[Any]:
    value = read_json(path) if path.is_file() else {}
    found = value.get(key) if isinstance(value, dict) else None
    return found if isinstance(found, list) else []


def _one_kind(source: str, tables: list[TableFile]) -> list[TableFile]:
    first: dict[Kind, str] = {}
    for table in tables:
        first.setdefault(table.kind, table.path.name)
    if len(first) > 1:
        shown = ", ".join(f"{name} ({kind})" for kind, name in first.items())
        raise DataError(f"{source} holds tables of several kinds: {shown}; name the file that has the rows.")
    return tables


def _table(path: Path, name: str) -> TableFile:
    with _reading(path, name), _opened(path) as handle:
        return TableFile(path, _kind_of(handle.read(_HEAD), path, name), name)


def _kind_of(head: bytes, path: Path, name: str) -> Kind:
    if head.startswith(b"PAR1"):
        return Kind.PARQUET
    if head.startswith((b"ARROW1", b"\xff\xff\xff\xff")):
        return Kind.ARROW
    for magic, what in _BINARY.items():
        if head.startswith(magic):
            raise DataError(f"{name} is {what}.")
    text = head.decode(_encoding(head), errors="replace").lstrip("\ufeff").lstrip()
    if path.name.removesuffix(".gz").lower().endswith((".jsonl", ".ndjson")) or text[:1] in ("{", ""):
        return Kind.JSON_LINES
    if text[0] == "[":
        return Kind.JSON
    first = text.splitlines()[0]
    is_named_binary = path.suffix.lower() in (".parquet", ".arrow")
    is_binary = "\0" in text and (is_named_binary or "\ufffd" in text[:-1])  # the last character may be cut off
    if is_binary or len(_header(first)) < 2:
        if is_named_binary:
            raise DataError(f"{name} can't be read as {path.suffix[1:].capitalize()}: it is no such file, or damaged.")
        raise DataError(
            f"{name} is neither Parquet, Arrow, JSON nor a table with a comma, a tab or a semicolon between its "
            f"columns; it begins with {first!r:.60}."
        )
    return Kind.CSV


def _encoding(head: bytes) -> str:
    return "utf-16" if head.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8"


def _header(line: str) -> list[str]:
    return max((next(csv.reader([line], delimiter=mark), []) for mark in _DELIMITERS), key=len)


def _csv_rows(path: Path, name: str, faults: Faults | None) -> Iterator[tuple[int, dict[str, Any]]]:
    csv.field_size_limit(max(csv.field_size_limit(), _CELL))
    with _reading(path, name), _opened(path) as handle:
        lines = _lines(handle, name)
        first = next(line for line in lines if line.strip())
        mark = max(_DELIMITERS, key=lambda mark: len(next(csv.reader([first], delimiter=mark), [])))
        reader = csv.reader(_chain(first, lines), delimiter=mark, strict=True)
        number = 1
        try:
            header = next(reader)
            _check_header(header, name)
            for number, cells in enumerate(reader, start=2):
                if not cells:
                    continue
                with nullcontext() if faults is None else faults.row():
                    if len(cells) != len(header):
                        raise DataError(
                            f"{name}, row {number}: has {len(cells)} cells, and the header {len(header)}; put a text "
                            f"that holds {mark!r} or a line break between quotation marks."
                        )
                    # A column without a name is the index that pandas writes.
                    yield number, {title: cell for title, cell in zip(header, cells, strict=True) if title}
        except csv.Error as error:
            raise DataError(
                f"{name}, after row {number}: not CSV ({error}); put a text with a quotation mark between quotation "
                "marks, and write each one inside twice."
            ) from error


def _chain(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def _check_header(header: Sequence[str], name: str) -> None:
    twice = next((title for title in header if title and header.count(title) > 1), None)
    if twice is not None:
        raise DataError(f"{name}, row 1: two columns are called '{twice}'; rename one of them.")


def _lines(handle: IO[bytes], name: str) -> Iterator[str]:
    """The lines of a text with their line ends; a byte order mark is no part of them.

    Raises:
        DataError: one is not in the encoding, or holds a NUL character.
    """
    for number, line in enumerate(_decoded(handle, name), start=1):
        if "\0" in line:
            raise DataError(f"{name}, line {number}: holds a NUL character; delete it, or save the file as UTF-8.")
        yield line


def _decoded(handle: IO[bytes], name: str) -> Iterator[str]:
    head = handle.peek(_HEAD) if isinstance(handle, io.BufferedReader | gzip.GzipFile) else b""
    if _encoding(head) == "utf-16":
        try:
            yield from io.StringIO(handle.read().decode("utf-16"), newline="\n")
        except UnicodeDecodeError as error:
            raise DataError(f"{name}: not UTF-16 ({error.reason}); save the file as UTF-8.") from error
        return
    # Old programs for the Mac end lines with a carriage return alone.
    lines: Iterable[bytes] = handle
    if b"\r" in head and b"\n" not in head:
        lines = io.BytesIO(handle.read().replace(b"\r", b"\n"))
    for number, line in enumerate(lines, start=1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{name}, line {number}: not UTF-8 ({error.reason}); save the file as UTF-8.") from error


def _json_lines(path: Path, name: str, faults: Faults | None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number from 1, object); blank lines are passed over, and bad ones where `faults` takes them.

    Unlike the logs that `fspo.files.read_jsonl` reads, data of one's own must be whole: a bad line is an error.
    """
    with _reading(path, name), _opened(path) as handle:
        for number, line in enumerate(handle, start=1):
            if line.strip():
                with nullcontext() if faults is None else faults.row():
                    encoding = "utf-8-sig" if number == 1 else "utf-8"
                    yield number, _object(_parsed(line, encoding, f"{name}, row {number}", "line"), name, number)


def _json_array(path: Path, name: str, faults: Faults | None) -> Iterator[tuple[int, dict[str, Any]]]:
    with _reading(path, name), _opened(path) as handle:
        value = _parsed(handle.read(), "utf-8-sig", name, "valid list")
    for number, row in enumerate(value, start=1):
        with nullcontext() if faults is None else faults.row():
            yield number, _object(row, name, number)


def _parsed(text: bytes, encoding: str, where: str, what: str) -> Any:
    try:
        return json.loads(text.decode(encoding))
    except RecursionError as error:
        raise DataError(f"{where}: too many lists and objects inside one another.") from error
    except ValueError as error:
        raise DataError(f"{where}: not a {what} of JSON in UTF-8 ({error}).") from error


def _object(value: Any, name: str, number: int) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{name}, row {number}: must be an object with named columns, not {type(value).__name__}.")
    return value


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """A file's contents, unpacked where they are compressed."""
    with path.open("rb") as handle:
        if handle.peek(2)[:2] != _GZIP:
            yield handle
            return
        with gzip.open(handle) as unpacked:
            yield cast(IO[bytes], unpacked)


@contextmanager
def _reading(path: Path, name: str) -> Iterator[None]:
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{name} is a damaged gzip file ({error}); copy or compress it again.") from error
    except FileNotFoundError as error:
        raise StorageError(f"There is no file or folder {path}; correct the path.") from error
    except OSError as error:
        raise StorageError(f"{path} can't be read ({error.strerror or error}).") from error
