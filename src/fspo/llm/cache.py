"""Answers already paid for, in one durable file: nothing is asked twice, whatever is killed in between."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fspo.errors import StorageError
from fspo.files import is_full_disk, storage_error
from fspo.llm.types import Completion, CompletionRequest, FinishReason

__all__ = ["RequestCache", "Spent", "key_of"]

_VERSION = 2
"""Of the file; others are refused."""
_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, text TEXT NOT NULL, tokens INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL,
    finish_reason TEXT NOT NULL, anew INTEGER NOT NULL, first TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS unusable (key TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS failures (key TEXT PRIMARY KEY, reason TEXT NOT NULL, times INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lost (id TEXT PRIMARY KEY, prompt_tokens INTEGER NOT NULL, tokens INTEGER NOT NULL)
WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS odd_replies (id TEXT PRIMARY KEY, kind TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS learned (server TEXT PRIMARY KEY, manner TEXT NOT NULL) WITHOUT ROWID;
PRAGMA user_version = {_VERSION};
COMMIT;
"""
_GET = "SELECT text, tokens, finish_reason, anew, first FROM answers WHERE key = ?"
_PUT = "INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?)"
_COUNT = "INSERT INTO odd_replies VALUES (hex(randomblob(16)), ?)"
_ONLY_REASONING = (
    "INSERT INTO odd_replies SELECT hex(randomblob(16)), 'only reasoning' FROM answers "
    "WHERE key = ? AND finish_reason = 'length'",
    "UPDATE answers SET text = '', finish_reason = 'reasoning' WHERE key = ? AND finish_reason = 'length'",
)
# The process may end before it removes the other file: absorbing a file twice must not count anything twice.
_ABSORB = (
    "INSERT OR IGNORE INTO answers SELECT * FROM other.answers",
    "INSERT OR IGNORE INTO unusable SELECT * FROM other.unusable",
    "INSERT INTO failures SELECT key, reason, times FROM other.failures WHERE true "
    "ON CONFLICT (key) DO UPDATE SET reason = excluded.reason, times = times + excluded.times",
    "DELETE FROM failures WHERE key IN (SELECT key FROM other.answers)",
    "INSERT OR IGNORE INTO lost SELECT * FROM other.lost",
    "INSERT OR IGNORE INTO odd_replies SELECT * FROM other.odd_replies",
    "INSERT OR REPLACE INTO learned SELECT * FROM other.learned",
)
_FORGET = (  # what they have cost stays
    "INSERT INTO lost SELECT hex(randomblob(16)), prompt_tokens, tokens FROM answers "
    "WHERE key IN (SELECT key FROM unusable)",
    "DELETE FROM answers WHERE key IN (SELECT key FROM unusable)",
    "DELETE FROM unusable",
)
_SPENT = (
    "SELECT (SELECT COUNT(*) FROM answers), COALESCE(SUM(prompt_tokens), 0), COALESCE(SUM(tokens), 0) FROM "
    "(SELECT prompt_tokens, tokens FROM answers UNION ALL SELECT prompt_tokens, tokens FROM lost)"
)
_BUSY = 60.0
"""Seconds to wait for another process that writes."""


@dataclass(frozen=True)
class Spent:
    """How many answers are in a cache, and what they and those that got lost have cost, in tokens."""

    requests: int
    prompt_tokens: int
    tokens: int


def key_of(model: Mapping[str, Any], request: CompletionRequest) -> str:
    """The exact request, seed and all, to this model: equal keys have equal answers."""
    text = json.dumps([dict(model), request.record()], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class RequestCache:
    """A SQLite file of answers by request. Every answer is in it before it is handed out; threads may share it.

    All that reads or writes the file raises a `StorageError` where that fails, such as on a full disk.
    """

    def __init__(self, path: str | Path, *, alone: bool = False) -> None:
        """Open the file, or make it; `alone` keeps all other processes out for as long as it is open.

        Raises:
            StorageError: it can't be written, is something else, is of another version of fspo, or another process
                is alone with it.
        """
        self.path = Path(path)
        with self._explained():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            there = self._connect(str(self.path), alone)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            if not there:
                self._connection.executescript(_SCHEMA)

    def _connect(self, address: str, alone: bool = False) -> bool:
        """Open the file; returns whether it has its tables."""
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(
            address, timeout=_BUSY, check_same_thread=False, isolation_level=None, uri=address.startswith("file:")
        )
        if alone:  # and the log's index is in memory, since a network file system can't share it
            self._connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        ((tables,),) = self._connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchall()
        ((version,),) = self._connection.execute("PRAGMA user_version").fetchall()  # second, since it is set last
        if tables and version != _VERSION:
            self.close()
            raise StorageError(
                f"{self.path} holds answers of another version of fspo; move it away to request them again, or "
                "continue with that version."
            )
        return bool(tables)

    def get(self, key: str) -> Completion | None:
        """The answer, if it was given before."""
        return self.get_all([key]).get(key)

    def get_all(self, keys: Sequence[str]) -> dict[str, Completion]:
        """Key -> answer, for those that were given before."""
        with self._lock, self._explained():
            rows = {key: self._connection.execute(_GET, (key,)).fetchone() for key in keys}
        return {key: _read(*row) for key, row in rows.items() if row is not None}

    def put(self, key: str, completion: Completion, prompt_tokens: int = 0, kinds: Iterable[str] = ()) -> None:
        """Keep an answer, forget that its request failed before, and count what was odd about the reply."""
        with self._at_once():
            self._connection.execute(_PUT, _row(key, completion, prompt_tokens))
            self._connection.execute("DELETE FROM failures WHERE key = ?", (key,))
            self._connection.executemany(_COUNT, [(kind,) for kind in kinds])

    def put_all(self, completions: Mapping[str, Completion]) -> None:
        """Keep several answers, all of them or none."""
        with self._at_once():
            self._connection.executemany(_PUT, [_row(key, completion, 0) for key, completion in completions.items()])

    def mark_unusable(self, keys: Sequence[str]) -> None:
        """Note answers that could not be used; they stay until `forget_unusable`."""
        with self._at_once():
            self._connection.executemany("INSERT OR IGNORE INTO unusable VALUES (?)", [(key,) for key in keys])

    def forget_unusable(self) -> None:
        """Forget the answers that were marked, so that their requests are asked again; their cost still counts."""
        with self._at_once():
            for statement in _FORGET:
                self._connection.execute(statement)

    def only_reasoning(self, keys: Iterable[str]) -> None:
        """Note that answers cut at their limit were nothing but reasoning: drop their text and count them."""
        wanted = [(key,) for key in keys]
        with self._at_once():
            for statement in _ONLY_REASONING:
                self._connection.executemany(statement, wanted)

    def fail(self, key: str, reason: str) -> None:
        """Note that a request failed in the end; it is asked again when it comes again."""
        self._do(
            "INSERT INTO failures VALUES (?, ?, 1) ON CONFLICT (key) DO UPDATE SET reason = ?, times = times + 1",
            key,
            reason,
            reason,
        )

    def failures(self) -> dict[str, int]:
        """Reason -> requests that failed and were not answered since."""
        return dict(self._do("SELECT reason, COUNT(*) FROM failures GROUP BY reason ORDER BY 2 DESC, 1"))

    def count(self, kind: str) -> None:
        """Count a reply that was odd, and is no answer."""
        self._do(_COUNT, kind)

    def replies(self) -> dict[str, int]:
        """What was odd about replies -> how many."""
        return dict(self._do("SELECT kind, COUNT(*) FROM odd_replies GROUP BY kind ORDER BY 2 DESC, kind"))

    def learn(self, server: str, manner: Mapping[str, Any]) -> None:
        """Keep how a server wants its requests."""
        self._do("INSERT OR REPLACE INTO learned VALUES (?, ?)", server, json.dumps(manner, sort_keys=True))

    def learned(self, server: str) -> dict[str, Any]:
        """How a server wants its requests, as far as that was learned."""
        rows = self._do("SELECT manner FROM learned WHERE server = ?", server)
        return dict(json.loads(rows[0][0])) if rows else {}

    def lose(self, prompt_tokens: float, tokens: float) -> None:
        """Note what an answer may have cost that never came."""
        self._do("INSERT INTO lost VALUES (hex(randomblob(16)), ?, ?)", round(prompt_tokens), round(tokens))

    def spent(self) -> Spent:
        """What all answers have cost, and those that never came may have."""
        return Spent(*self._do(_SPENT)[0])

    def absorb(self, path: Path) -> None:
        """Take over all that another file of answers holds, or nothing of it; the file stays.

        Raises:
            StorageError: either file can't be read or written.
        """
        RequestCache(path).close()  # one that was cut short is made whole
        self._do("ATTACH ? AS other", str(path))
        try:
            with self._at_once():
                for statement in _ABSORB:
                    self._connection.execute(statement)
        finally:
            self._do("DETACH other")

    def settle(self) -> None:
        """Bring everything into the file itself, for processes that read nothing else (`fspo.llm.cache_shards`).

        Raises:
            StorageError: another process is at work in the file.
        """
        ((busy, *_),) = self._do("PRAGMA wal_checkpoint(TRUNCATE)")
        if busy:
            raise StorageError(f"Another process is at work in {self.path}; wait for it, then run the command again.")

    def close(self) -> None:
        """Close the file; all that was put is in it."""
        self._connection.close()

    def _do(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with self._lock, self._explained():
            return self._connection.execute(statement, values).fetchall()

    @contextmanager
    def _at_once(self) -> Iterator[None]:
        """All statements of the block count, or none."""
        with self._lock, self._explained(), self._connection:
            self._connection.execute("BEGIN")
            yield

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            if is_full_disk(error):
                raise storage_error(self.path, error) from error
            raise StorageError(
                f"The answers in {self.path} can't be read or written ({error}); check its permissions, and if it is "
                "not a file of answers, move it away."
            ) from error


def _row(key: str, completion: Completion, prompt_tokens: int) -> tuple[Any, ...]:
    text = completion.text.encode("utf-8", "replace").decode()  # half a surrogate pair fits into no file
    first = json.dumps(completion.first)
    return key, text, completion.tokens, prompt_tokens, completion.finish_reason, completion.anew, first


def _read(text: str, tokens: int, finish_reason: FinishReason, anew: int, first: str) -> Completion:
    likeliest = tuple((str(token), float(log_prob)) for token, log_prob in json.loads(first))
    return Completion(text, tokens, finish_reason, bool(anew), likeliest, kept=True)
