"""Files and folders that are written whole or not at all, and logs that survive a torn last line."""

from __future__ import annotations

import ctypes
import errno
import json
import math
import os
import shutil
import socket
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from fspo.errors import StorageError

__all__ = [
    "append_jsonl",
    "read_json",
    "read_jsonl",
    "replace_folder",
    "storage_error",
    "to_json",
    "write_json",
    "write_text",
    "writing",
]


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path`; on success it is fsynced and renamed over `path`.

    Where the block raises, `path` stays as it was. A symbolic link is followed, and stays.

    Raises:
        StorageError: the disk is full or the folder can't be written.
    """
    path = _followed(path)
    temporary = _sibling(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    except OSError as error:
        raise storage_error(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def replace_folder(path: Path) -> Iterator[Path]:
    """Yield an empty staging folder beside `path`; on success it takes `path`'s place whole, with all it holds.

    Where the block raises, `path` stays as it was. Where the file system can swap two names in one step (Linux), `path`
    is there at every moment, the old one or the new one. A symbolic link is followed, and stays.

    Raises:
        StorageError: the disk is full, the folder can't be written, or `path` is a file.
    """
    path = _followed(path)
    staging = _sibling(path)
    try:
        if path.exists() and not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        if _aside(path).exists() and not path.exists():
            _aside(path).rename(path)
        staging.mkdir()
        yield staging
        for inside in (*staging.rglob("*"), staging):
            _sync(inside)
        _put_in_place(staging, path)
        _sync(path.parent)
    except OSError as error:
        raise storage_error(path, error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def storage_error(path: Path, error: OSError) -> StorageError:
    """Say what the operating system refused, and what to do about it."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(
            f"The disk is full: {path} could not be written. "
            "Free some space and run the same command again; what was finished is kept."
        )
    return StorageError(
        f"{path} could not be written ({error.strerror or error}). "
        "Check the path and its permissions, then run the same command again."
    )


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` in one step."""
    with writing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON in one step; NaN and infinity, which JSON does not have, become null."""
    write_text(path, to_json(value, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        StorageError: the file is missing, can't be read, or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StorageError(f"{path} does not exist.") from error
    except OSError as error:
        raise _unreadable(path, error) from error
    except (ValueError, RecursionError) as error:
        raise StorageError(f"{path} is not valid JSON ({error}); delete it and run the command again.") from error


def append_jsonl(path: Path, record: Mapping[str, Any]) -> None:
    """Append one record as a line and flush it to disk; a torn last line is tolerated by `read_jsonl`.

    The line goes out in one write, so that several processes may append to one file.

    Raises:
        StorageError: the disk is full or the file can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        mend = path.exists() and path.stat().st_size > 0 and not _ends_with_newline(path)
        line = ("\n" if mend else "") + to_json(record) + "\n"
        with path.open("ab", buffering=0) as handle:
            data = memoryview(line.encode("utf-8"))
            while data:  # a nearly full disk takes a part of it, and refuses the rest in the next round
                data = data[handle.write(data) :]
            os.fsync(handle.fileno())
    except OSError as error:
        raise storage_error(path, error) from error


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read the whole records of a JSONL file; a line torn by a killed process is passed over.

    Raises:
        StorageError: the file is there and can't be read.
    """
    records: list[dict[str, Any]] = []
    try:
        # Lines end at "\n" only: text inside a record may hold U+2028 and its like, where str.splitlines would cut.
        with path.open("rb") as handle:
            for line in handle:
                record = _record(line)
                if record is not None:
                    records.append(record)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _unreadable(path, error) from error
    return records


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line.decode("utf-8", errors="replace"))
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON text that every reader takes: NaN and infinity become null, and nothing is in it that UTF-8 can't hold."""
    try:
        text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
        text.encode("utf-8")
    except ValueError:  # NaN or infinity; or half of a surrogate pair, as some endpoints send, which an escape can hold
        text = json.dumps(_finite(value), indent=indent, ensure_ascii=True)
    return text


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _unreadable(path: Path, error: OSError) -> StorageError:
    return StorageError(f"{path} could not be read ({error.strerror or error}). Check the path and its permissions.")


def _followed(path: Path) -> Path:
    """What a symbolic link points at, there or not; any other path is itself."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def _sibling(path: Path) -> Path:
    """A name beside `path` that nobody else uses, and that tells who made it."""
    return path.with_name(f"{_prefix(path)}{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp")


def _prefix(path: Path) -> str:
    return f".{path.name}.{socket.gethostname()}."


def _sweep(path: Path) -> None:
    """Remove what processes of this machine that were killed while they wrote `path` have left behind."""
    prefix = _prefix(path)
    with suppress(OSError):
        for left in path.parent.iterdir():
            owner = left.name[len(prefix) :].split(".")[0]
            if not (left.name.startswith(prefix) and left.suffix == ".tmp" and owner.isdigit()):
                continue
            if _alive(int(owner)):
                continue
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    if os.name != "posix":  # elsewhere signal 0 is not a question
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _sync(path: Path) -> None:
    """Make sure a file is on the disk, and not only in memory; a folder where the system can do that."""
    if path.is_symlink():
        return
    with suppress(OSError) if path.is_dir() else nullcontext():
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _put_in_place(staging: Path, path: Path) -> None:
    """Give the staging folder `path`'s name; an old folder of that name ends up under the staging name."""
    if not path.exists():
        staging.rename(path)
        return
    if _exchange(staging, path):
        return
    shutil.rmtree(_aside(path), ignore_errors=True)
    path.rename(_aside(path))
    staging.rename(path)
    shutil.rmtree(_aside(path), ignore_errors=True)


def _aside(path: Path) -> Path:
    """Where the old folder waits while the new one is put in its place; brought back if that was cut short."""
    return path.with_name(f".{path.name}.old")


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names in one step; False where the system can't."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    here, exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of <fcntl.h> and <linux/fs.h>
    return bool(rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0)


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as handle:
        handle.seek(-1, os.SEEK_END)
        return handle.read(1) == b"\n"
