"""Files and folders that are written whole or not at all, and logs that survive a torn last line."""

from __future__ import annotations

import ctypes
import errno
import json
import math
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fspo.errors import ConfigError, StorageError
from fspo.paths import expanded, shown

__all__ = [
    "FolderKind",
    "append_jsonl",
    "cache_folder",
    "check_no_others",
    "check_no_part",
    "check_replaceable",
    "check_unclaimed",
    "check_writable",
    "content",
    "full_disk_explained",
    "is_empty",
    "is_full_disk",
    "is_special",
    "locked",
    "log_lines",
    "read_bytes",
    "read_json",
    "read_jsonl",
    "replace_folder",
    "storage_error",
    "sweep",
    "to_json",
    "write_json",
    "write_text",
    "writing",
]


_LEFT_AFTER = 24 * 3600
"""Seconds after which a temporary file or folder belongs to a killed process; no writer takes so long."""
_OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT)
_REFUSED = (*_OUT_OF_SPACE, errno.EFBIG, errno.EROFS, errno.EIO)
"""Errors of writing itself, which often name no file."""
_SAID_OF_FULL_DISK = (
    *(os.strerror(code) for code in _OUT_OF_SPACE),
    *(f"os error {code}" for code in _OUT_OF_SPACE),  # Rust
    "database or disk is full",  # SQLite
)
"""How libraries report a full disk without an error number."""


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path`; on success it is fsynced and renamed over `path`.

    Where the block raises, `path` stays as it was. A symbolic link is followed, and stays. A device, a pipe or a
    socket stays too, and gets the content.

    Raises:
        StorageError: the disk is full or the folder can't be written. An `OSError` of the block that concerns another
            file is not changed.
    """
    if is_special(path):
        with _sending(path) as temporary:
            yield temporary
        return
    path = _followed(path)
    temporary = _sibling(path)
    with _explained(path, temporary):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _sweep(path, older_than=_LEFT_AFTER)
            yield temporary
            _sync(temporary)
            temporary.replace(path)
            _sync(path.parent)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


@dataclass(frozen=True)
class FolderKind:
    """A kind of folder that fspo writes, by the names of what lies in it.

    A pattern is the path of a file inside the folder, with the wildcards of `fnmatch` in each of its parts; `*` stays
    within one. A folder of such a name is of another kind.
    """

    title: str
    """What messages call it, such as "an exported model"."""
    needs: tuple[str, ...]
    """Patterns of what must be there; a folder without it is of another kind."""
    may: tuple[str, ...] = ()
    """Patterns of what may be there too."""
    keeps_others: bool = False
    """Whether a new folder takes over what is of no pattern. Otherwise a folder with such content is not replaced."""
    objection: Callable[[Path], str] | None = None
    """Why a folder that has all of `needs` is of another origin, in words; empty where fspo wrote it."""

    def owns(self, inside: tuple[str, ...], *, whole: bool = True) -> bool:
        """Whether a file at the path `inside` is of this kind; with `whole` False, whether one below it may be."""
        return any(
            (len(parts) == len(inside) if whole else len(parts) > len(inside)) and all(map(fnmatchcase, inside, parts))
            for parts in (pattern.split("/") for pattern in (*self.needs, *self.may))
        )


def check_replaceable(folder: Path, kind: FolderKind, *, spare: Iterable[Path] = ()) -> None:
    """Check that `folder` may be replaced by a new folder of this kind: it is missing, empty, or already of the kind.

    Symbolic links are followed. The working folder and the home folder are replaced only where the kind keeps others.

    `spare` are files and folders that are still needed; they must not be among what a new folder replaces.

    Raises:
        ConfigError: the folder is a file or below one, contains something that must stay, or is of another kind.
        StorageError: it can't be read, or written.
    """
    check_writable(folder)
    place = folder.resolve()
    if not place.exists():
        return
    if not place.is_dir():
        raise ConfigError(f"{folder} is a file; name a folder.")
    try:
        if is_empty(place):
            return
        strange = next(_in_the_way(place, kind) if kind.keeps_others else _strange(place, kind), None)
        lack = _lack(place, kind)
    except OSError as error:
        raise _unreadable(folder, error) from error
    named = shown(folder)
    needed = [path for path in spare if _is_replaced(path.resolve(), place, kind)]
    reasons = [_where(f"{path}, which is still needed,", path, place) for path in needed]
    if not kind.keeps_others:
        reasons += [held] if (held := _held(place)) else []
    if reasons:
        raise ConfigError(f"{named} is not replaced, because {reasons[0]}; name another folder.")
    if strange is not None:
        what = "a folder and no file" if kind.keeps_others else "no part"
        raise ConfigError(
            f"{named} is not replaced, because it holds {strange}, which is {what} of {kind.title}; name another "
            "folder, or move that away."
        )
    if lack:
        raise ConfigError(
            f"{named} holds other files and is not {kind.title} ({lack}), so it is not replaced; name a new or an "
            "empty folder."
        )


def is_empty(folder: Path) -> bool:
    """Whether a folder is missing or holds nothing but what killed writers left; a file is not empty."""
    return not folder.exists() or (folder.is_dir() and not any(content(folder)))


def check_unclaimed(folder: Path, marks: Iterable[str], writes: Iterable[str]) -> None:
    """Check that work which writes into `folder` step by step overwrites nothing that it did not write itself.

    An earlier call of the same work leaves one of the `marks` before any other file; `writes` are patterns of the names
    that the work writes or removes.

    Raises:
        ConfigError: there is no mark, and something that would be overwritten.
        StorageError: the folder can't be read.
    """
    if any((folder / mark).exists() for mark in marks):
        return
    patterns = list(writes)
    try:
        found = sorted(folder.iterdir()) if folder.is_dir() else []
        names = [
            path.name for path in found if not path.is_dir() or any(path.iterdir())
        ]  # an empty folder loses nothing
    except OSError as error:
        raise _unreadable(folder, error) from error
    claimed = [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]
    if claimed:
        raise ConfigError(
            f"{folder} holds {claimed[0]}, which would be overwritten and is not of an earlier call; name an empty or "
            "a new folder."
        )


def check_writable(path: Path, *, inside: bool = False) -> None:
    """Check that a file or folder can be made or replaced at `path`; nothing is touched.

    With `inside` it is a folder that gets files and is not replaced. A superuser passes where a write may still fail.

    Raises:
        ConfigError: it would be below a file.
        StorageError: naming the folder that is not writable.
    """
    if os.access(path, os.F_OK) and is_special(path):
        return
    place = path.resolve()
    there = next(folder for folder in (place, *place.parents) if os.access(folder, os.F_OK))
    if there == place and not inside and not _held(place):
        there = place.parent  # the new one is made beside it
    if not there.is_dir():
        why = f", so {path.name} can't be written into it" if there != place else ""
        raise ConfigError(f"{there} is a file{why}; name a folder.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise StorageError(
            f"{shown(path)} can't be written, because {there} is not writable. Check the path and its permissions."
        )


def check_no_others(folder: Path, kind: FolderKind, *, below: str = "") -> None:
    """Check that what is about to be removed holds nothing but what fspo writes.

    `below` is the path inside `folder` that is to be removed; by default all.

    Raises:
        ConfigError: naming the file or folder that is of another origin.
        StorageError: the folder can't be read.
    """
    try:
        strange = next(_strange(folder / below, kind, Path(below).parts), None) if (folder / below).is_dir() else None
    except OSError as error:
        raise _unreadable(folder / below, error) from error
    if strange is not None:
        raise ConfigError(
            f"{folder / strange} is no part of {kind.title}, and would be removed; move it away, then run the command "
            "again."
        )


def check_no_part(path: Path, kinds: Iterable[FolderKind]) -> None:
    """Check that a file is no part of a folder of these kinds, whether it is there already or not.

    Raises:
        ConfigError: naming the folder.
    """
    place = path.resolve()
    for folder, kind in product(place.parents, tuple(kinds)):
        # A file of such a name that lies alone is no folder of the kind.
        if kind.owns(place.relative_to(folder).parts) and any(part != place for part in _parts(folder, kind)):
            raise ConfigError(f"{path} is a part of {kind.title} ({folder}); name another file.")


def content(folder: Path) -> Iterator[Path]:
    """What lies in a folder, in order; not what killed writers left of the folder itself.

    Raises:
        OSError: the folder can't be listed.
    """
    place = folder.resolve()
    left = set(_siblings(place / place.name, ".tmp"))
    yield from (path for path in sorted(place.iterdir()) if path not in left)


def _lack(folder: Path, kind: FolderKind) -> str:
    """What a folder lacks to be of this kind, in words; empty where it is of the kind."""
    files = [path.name for path in folder.iterdir() if not path.is_dir()]
    missing = [need for need in kind.needs if not any(fnmatchcase(name, need) for name in files)]
    if missing:
        return f"it has no {missing[0]}"
    return "" if kind.objection is None else kind.objection(folder)


def _parts(folder: Path, kind: FolderKind) -> list[Path]:
    """The files of a folder of this kind; none where it is missing, of another kind, or can't be listed."""
    with suppress(OSError):
        if not _lack(folder, kind):
            return [path for path in _named(folder, kind) if not path.is_dir()]
    return []


def _held(place: Path) -> str:
    """Why a folder can't be exchanged for another one, in words; empty where it can."""
    for what, known in (("the working folder", Path.cwd), ("the home folder", Path.home)):
        with suppress(OSError, RuntimeError):
            inside = known()
            if inside.resolve().is_relative_to(place):
                return _where(what, inside, place)
    return "it is a mount point" if os.path.ismount(place) else ""


def _where(what: str, inside: Path, place: Path) -> str:
    return f"it is {what.rstrip(',')}" if inside.resolve() == place else f"{what} is in it"


def _is_replaced(needed: Path, place: Path, kind: FolderKind) -> bool:
    """Whether a new folder at `place` replaces this file, or a file in this folder."""
    if not needed.is_relative_to(place):
        return False
    inside = needed.relative_to(place).parts
    return not kind.keeps_others or kind.owns(inside) or kind.owns(inside, whole=False)


def _named(folder: Path, kind: FolderKind) -> Iterator[Path]:
    """What lies in `folder` under names of this kind; nothing in what writers of the folder left or are writing."""
    left = set(_siblings(folder / folder.name, ".tmp"))
    for pattern in (*kind.needs, *kind.may):
        yield from (path for path in sorted(folder.glob(pattern)) if left.isdisjoint((path, *path.parents)))


def _in_the_way(folder: Path, kind: FolderKind) -> Iterator[Path]:
    """The folders that lie in `folder` where this kind has files."""
    return (path.relative_to(folder) for path in _named(folder, kind) if path.is_dir())


def _strange(folder: Path, kind: FolderKind, above: tuple[str, ...] = ()) -> Iterator[Path]:
    """What lies in `folder` and is not of this kind."""
    for path in content(folder) if not above else sorted(folder.iterdir()):
        inside = (*above, path.name)
        if path.is_dir() and not (above and path.is_symlink() and kind.owns(inside)):  # only the link is removed
            if kind.owns(inside, whole=False) and not path.is_symlink():
                yield from _strange(path, kind, inside)
            else:
                yield Path(*inside)
        elif not kind.owns(inside):
            yield Path(*inside)


@contextmanager
def replace_folder(path: Path, kind: FolderKind, *, spare: Iterable[Path] = (), alone: bool = False) -> Iterator[Path]:
    """Yield an empty staging folder beside `path`; on success it takes `path`'s place, with all it holds.

    Where the block raises, `path` stays as it was. Where the file system can swap two names in one step (Linux), `path`
    is there at every moment, the old one or the new one. The working folder, the home folder and a mount point can't be
    swapped: they get the new files one by one. A symbolic link is followed, and stays. An old folder is removed only if
    `check_replaceable` allows it; see `FolderKind.keeps_others` for what is taken over from it.

    `path` must not contain anything of `spare`. If `alone`, the caller holds a lock on `path`, so that all that a
    writer left there is a killed one's.

    Raises:
        ConfigError: `path` may not be replaced.
        StorageError: the disk is full or the folder can't be written. An `OSError` of the block that concerns another
            file is not changed.
    """
    place = path.resolve()
    spare = tuple(spare)
    held = place.is_dir() and bool(_held(place))
    staging = _sibling(place / place.name if held else place)
    with _explained(path, staging):
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            _bring_back(place)
            for written in (place, place / place.name):
                _sweep(written, older_than=0 if alone else _LEFT_AFTER)
            check_replaceable(path, kind, spare=spare)
            staging.mkdir()
            yield staging
            check_replaceable(path, kind, spare=spare)  # a long block has passed
            if kind.keeps_others and not held and place.exists():
                _take_over(place, staging, kind)
            for inside in (*staging.rglob("*"), staging):
                _sync(inside)
            if held:
                _move_in(staging, place, kind)
                return
            _put_in_place(staging, place)
            _sync(place.parent)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def locked(path: Path, *, busy: str = "") -> Iterator[None]:
    """Lock a file against other processes; the system unlocks it when the process ends, however it ends.

    `busy` is the error where another process holds the lock; without one, the other process is waited for.

    Raises:
        StorageError: another process holds the lock and `busy` is given, or the file can't be locked.
    """
    from filelock import FileLock, Timeout

    with ExitStack() as held:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # A soft lock would outlive a killed process.
            held.enter_context(FileLock(path, fallback_to_soft=False).acquire(blocking=not busy))
        except Timeout as error:
            raise StorageError(busy) from error
        except OSError as error:
            if error.filename is not None:
                raise storage_error(path, error) from error
            raise StorageError(f"{path} can't be locked ({error.strerror or error}); name another folder.") from error
        yield


def is_full_disk(error: BaseException | None) -> bool:
    """Whether the disk or the user's quota is full, whichever library reports it, and however deep in the chain."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, OSError) and error.errno in _OUT_OF_SPACE:
            return True
        if any(said in str(error) for said in _SAID_OF_FULL_DISK):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def full_disk_explained() -> Iterator[None]:
    """Raise the promised error for a full disk, whichever library wrote; a context or a decorator.

    Raises:
        StorageError: the disk is full.
    """
    try:
        yield
    except StorageError:
        raise
    except Exception as error:
        if not is_full_disk(error):
            raise
        raise StorageError(
            "The disk is full. Free some space and run the same again; what was finished is kept."
        ) from error


def storage_error(path: Path, error: Exception) -> StorageError:
    """Say why `path` could not be written, and what to do about it."""
    if is_full_disk(error):
        return StorageError(
            f"The disk is full: {path} could not be written. "
            "Free some space and run the same command again; what was finished is kept."
        )
    return StorageError(
        f"{path} could not be written ({getattr(error, 'strerror', None) or error}). "
        "Check the path and its permissions, then run the same command again."
    )


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` in one step."""
    with writing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def cache_folder() -> Path:
    """Where fspo keeps what several runs use, such as models: `$FSPO_CACHE`, or else `~/.cache/fspo`.

    Raises:
        ConfigError: the home folder that it starts with is not known.
    """
    try:
        return expanded(Path(os.environ.get("FSPO_CACHE") or "~/.cache/fspo"))
    except ConfigError as error:
        raise ConfigError(f"FSPO_CACHE: {error}") from error


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
    """Append one record as a line and flush it to disk; see `log_lines`.

    The line goes out in one write, so that several processes may append to one file. A last line that a killed process
    left torn is marked as such.

    Raises:
        StorageError: the disk is full or the file can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        line = to_json(record) + "\n"
        with path.open("ab", buffering=0) as handle:
            data = memoryview(_line_end(path) + line.encode("utf-8"))
            while data:  # a nearly full disk takes a part of it, and refuses the rest in the next round
                data = data[handle.write(data) :]
            os.fsync(handle.fileno())
    except OSError as error:
        raise storage_error(path, error) from error


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read the whole records of a log that `append_jsonl` writes; a line that is none is ignored.

    Raises:
        StorageError: the file is there and can't be read.
    """
    return [record for _, line in log_lines(path) if (record := _record(line)) is not None]


def log_lines(path: Path) -> list[tuple[int, bytes]]:
    """The numbered lines of a log that `append_jsonl` writes, without those that a killed process left torn.

    Raises:
        StorageError: the file is there and can't be read.
    """
    # Lines end at "\n" only: text inside a record may hold U+2028 and its like, where str.splitlines would cut.
    lines = enumerate((read_bytes(path) or b"").split(b"\n"), start=1)
    *whole, (last, rest) = lines
    found = [(number, line) for number, line in whole if line and not line.endswith(_TORN)]
    return found + ([(last, rest)] if _record(rest) is not None else [])


def read_bytes(path: Path) -> bytes | None:
    """Read a file; None where there is no such file.

    Raises:
        StorageError: it can't be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(path, error) from error


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


def is_special(path: Path) -> bool:
    """Whether something is there that is neither a file nor a folder: a device, a pipe or a socket."""
    return path.exists() and not path.is_file() and not path.is_dir()


@contextmanager
def _sending(path: Path) -> Iterator[Path]:
    """Yield a temporary file, whose content a device, a pipe or a socket gets on success."""
    with TemporaryDirectory() as folder:
        temporary = Path(folder) / "content"
        with _explained(path, temporary):
            yield temporary
            with temporary.open("rb") as content, path.open("wb") as target:
                shutil.copyfileobj(content, target)


def _followed(path: Path) -> Path:
    """What a symbolic link points at, there or not; any other path is itself."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def _sibling(path: Path, suffix: str = ".tmp") -> Path:
    """A name beside `path` that nobody else uses."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}{suffix}")


def _siblings(path: Path, suffix: str) -> list[Path]:
    """What lies beside `path` under a name that `_sibling` gave, the oldest first."""
    return _left_in(path.parent, re.escape(path.name), suffix)


def _left_in(folder: Path, name: str, suffix: str) -> list[Path]:
    """What lies in `folder` under a name that `_sibling` gave for a name of this pattern, the oldest first."""
    pattern = re.compile(rf"\.{name}\.[0-9a-f]{{32}}{re.escape(suffix)}")
    found: list[tuple[float, Path]] = []
    with suppress(OSError):
        found = [(left.lstat().st_mtime, left) for left in folder.iterdir() if pattern.fullmatch(left.name)]
    return [left for _, left in sorted(found)]


def sweep(folder: Path) -> None:
    """Remove what killed processes left in `folder` while they wrote files; only the caller may write there."""
    for left in _left_in(folder, ".+", ".tmp"):
        _remove(left)


def _sweep(path: Path, *, older_than: float) -> None:
    """Remove what killed processes have left behind while they wrote `path`.

    By age alone: whether a writer lives can't be known across containers and machines.
    """
    for left in _siblings(path, ".tmp"):
        with suppress(OSError):
            newest = max(inside.lstat().st_mtime for inside in (left, *left.rglob("*")))
            if time.time() - newest >= older_than:
                _remove(left)


def _remove(left: Path) -> None:
    if left.is_dir():
        shutil.rmtree(left, ignore_errors=True)
        return
    with suppress(OSError):
        left.unlink()


@contextmanager
def _explained(path: Path, temporary: Path) -> Iterator[None]:
    """Say that `path` could not be written, where an error concerns it."""
    try:
        yield
    except OSError as error:
        named = [Path(os.fsdecode(name)) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
        ours = {temporary, path, path.parent, *path.parents}
        if error.errno in _REFUSED or any(name in ours or name.is_relative_to(temporary) for name in named):
            raise storage_error(path, error) from error
        raise


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


def _move_in(staging: Path, folder: Path, kind: FolderKind) -> None:
    """Move what was staged inside `folder` up into it, file by file, and remove the old files of this kind.

    What the kind needs comes first, so that the same command goes on from a folder where it was killed in between.
    """
    new = [path.relative_to(staging) for path in sorted(staging.rglob("*")) if not path.is_dir()]
    old = [path.relative_to(folder) for path in _named(folder, kind)]
    for inside in set(old) - set(new):
        (folder / inside).unlink()
    for inside in sorted(new, key=lambda path: not any(fnmatchcase(str(path), need) for need in kind.needs)):
        (folder / inside).parent.mkdir(parents=True, exist_ok=True)
        (staging / inside).replace(folder / inside)
    _sync(folder)


def _take_over(old: Path, staging: Path, kind: FolderKind) -> None:
    """Link into `staging` what is in `old` and not of this kind."""

    def replaced(inside: str, names: list[str]) -> list[str]:
        above = Path(inside).relative_to(old).parts
        return [name for name in names if kind.owns((*above, name)) and not Path(inside, name).is_dir()]

    shutil.copytree(old, staging, symlinks=True, ignore=replaced, copy_function=_linked, dirs_exist_ok=True)


def _linked(source: str, target: str) -> None:
    """Make the same file appear at another place; copy it where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _put_in_place(staging: Path, path: Path) -> None:
    """Give the staging folder `path`'s name; an old folder ends up under the staging name, or is removed."""
    if not path.exists():
        staging.rename(path)
        return
    if _exchange(staging, path):
        return
    old = _sibling(path, _OLD)
    path.rename(old)
    try:
        staging.rename(path)
    except OSError:
        with suppress(OSError):
            old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names in one step; False where the system can't."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    here, exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of <fcntl.h> and <linux/fs.h>
    return bool(rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0)


_OLD = ".old"
"""Ends the name under which an old folder waits while the new one takes its place."""


def _bring_back(path: Path) -> None:
    """Undo a replacement that a killed process left between its two renames; remove what a finished one left."""
    waiting = _siblings(path, _OLD)
    if waiting and not path.exists():
        waiting.pop().rename(path)
    for old in waiting:
        shutil.rmtree(old, ignore_errors=True)


_TORN = b"\x18"
"""Ends a line of a log that a killed process left torn: the control character CAN, which no JSON holds."""


def _line_end(path: Path) -> bytes:
    """What ends the last line of a log: nothing where it has ended."""
    content = path.read_bytes() if path.exists() and not _ends_with_newline(path) else b""
    if not content:
        return b""
    return b"\n" if _record(content.rpartition(b"\n")[2]) is not None else _TORN + b"\n"


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as handle:
        if not handle.seek(0, os.SEEK_END):
            return True
        handle.seek(-1, os.SEEK_END)
        return handle.read(1) == b"\n"
