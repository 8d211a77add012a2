"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fspo.errors import StorageError

__all__ = ["append_jsonl", "read_json", "read_jsonl", "replace_folder", "write_json", "write_text", "writing"]


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path`; on success it is fsynced and renamed over `path`.

    Raises:
        StorageError: the disk is full or the folder can't be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
    except OSError as error:
        raise storage_error(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def storage_error(path: Path, error: OSError) -> StorageError:
    """Say what the operating system refused, and what to do about it."""
    if error.errno == errno.ENOSPC:
        return StorageError(f"The disk is full: {path} could not be written. Free some space and run the same command again; what was finished is kept.")
    return StorageError(f"{path} could not be written ({error.strerror or error}). Check the path and its permissions, then run the same command again.")


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` in one step."""
    with writing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON in one step."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, sort_keys=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        StorageError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StorageError(f"{path} does not exist.") from error
    except ValueError as error:
        raise StorageError(f"{path} is not valid JSON ({error}); delete it and run the command again.") from error


def append_jsonl(path: Path, record: Mapping[str, Any]) -> None:
    """Append one record as a line and flush it to disk; a torn last line is tolerated by `read_jsonl`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        mend = path.exists() and path.stat().st_size > 0 and not _ends_with_newline(path)
        with path.open("a", encoding="utf-8") as handle:
            handle.write(("\n" if mend else "") + json.dumps(record, ensure_ascii=False) + "\n")
            handle.flush()
            os.fsync(handle.fileno())
    except OSError as error:
        raise storage_error(path, error) from error


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read the whole records of a JSONL file; a line torn by a killed process is passed over."""
    if not path.exists():
        return []
    records: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            records.append(record)
    return records


@contextmanager
def replace_folder(path: Path) -> Iterator[Path]:
    """Yield an empty staging folder beside `path`; on success it takes `path`'s place whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield staging
        old = path.with_name(f".{path.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if path.exists():
            path.rename(old)
        staging.rename(path)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise storage_error(path, error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as handle:
        handle.seek(-1, os.SEEK_END)
        return handle.read(1) == b"\n"
