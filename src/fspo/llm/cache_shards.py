"""Answers of several processes at once, each in a file of its own, on a file system that all of them share.

SQLite can't be written, nor its log be read, from several machines at once. So while others ask, the run's own file
(`answers.sqlite`) stays as it is and is read without locks; each piece of work has a part beside it (`answers-parts/`),
which one process holds alone and the next one goes on with if that was killed. Afterwards, or at the next call, the
parts are taken over into the run's own file, which is the only one again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fspo.errors import StorageError
from fspo.files import storage_error
from fspo.llm.cache import RequestCache
from fspo.llm.types import Completion

__all__ = ["CacheShard", "ReadOnlyCache", "absorb_shards", "shard_path"]


class ReadOnlyCache(RequestCache):
    """The answers of a file that no process writes to meanwhile; any number of machines may read it."""

    def __init__(self, path: Path) -> None:
        """Open the file as it is.

        Raises:
            StorageError: it is missing or something else.
        """
        self.path = path
        with self._explained():
            self._connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1")


class CacheShard(RequestCache):
    """A file of answers held by this process alone, which knows those that another one held before."""

    def __init__(self, path: Path, before: RequestCache) -> None:
        """Open the file, or make it; what is in `before` is not asked again and does not count as spent here.

        Raises:
            StorageError: it can't be written, or another process holds it.
        """
        super().__init__(path, alone=True)
        self._before = before

    def get_all(self, keys: Sequence[str]) -> dict[str, Completion]:
        """Key -> answer, for those that were given before."""
        found = super().get_all(keys)
        missing = [key for key in keys if key not in found]
        return found | self._before.get_all(missing) if missing else found

    def learned(self, server: str) -> dict[str, Any]:
        """How a server wants its requests."""
        return super().learned(server) or self._before.learned(server)


def shard_path(answers: Path, number: int) -> Path:
    """Where the part of one piece of work lies."""
    return _folder(answers) / f"{number:05d}.sqlite"


def absorb_shards(answers: Path) -> None:
    """Take over into `answers` what parts there are, and remove them.

    Raises:
        StorageError: a file can't be read or written, or a process still holds a part.
    """
    folder = _folder(answers)
    if not folder.is_dir():
        return
    cache = RequestCache(answers)
    try:
        for part in sorted(folder.glob("*.sqlite")):
            cache.absorb(part)
            part.unlink(missing_ok=True)
        for left in folder.iterdir():
            left.unlink(missing_ok=True)
        folder.rmdir()
    except OSError as error:
        raise storage_error(folder, error) from error
    except StorageError as error:
        raise StorageError(f"{error} It is taken over into {answers} when the same command is run again.") from error
    finally:
        cache.close()


def _folder(answers: Path) -> Path:
    return answers.with_name(f"{answers.stem}-parts")
