"""Answers already paid for, in one durable file: nothing is asked twice, whatever is killed in between."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from fspo.errors import StorageError
from fspo.llm.types import Completion, CompletionRequest, FinishReason

__all__ = ["RequestCache", "Spent", "key_of", "key_of_server"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, text TEXT NOT NULL, tokens INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL,
    finish_reason TEXT NOT NULL, anew INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS failures (key TEXT PRIMARY KEY, reason TEXT NOT NULL, times INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS first_tokens (key TEXT PRIMARY KEY, tokens TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS unusable (key TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lost (id TEXT PRIMARY KEY, prompt_tokens INTEGER NOT NULL, tokens INTEGER NOT NULL)
WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS odd_replies (id TEXT PRIMARY KEY, kind TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS learned (server TEXT PRIMARY KEY, manner TEXT NOT NULL) WITHOUT ROWID;
"""
_GET = (
    "SELECT a.text, a.tokens, a.finish_reason, a.anew, f.tokens FROM answers a "
    "LEFT JOIN first_tokens f ON f.key = a.key WHERE a.key = ?"
)
_PUT = "INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?)"
_PUT_FIRST = "INSERT OR IGNORE INTO first_tokens VALUES (?, ?)"
_COUNT = "INSERT INTO odd_replies VALUES (hex(randomblob(16)), ?)"
_COUNT_ONLY_REASONING = (
    "INSERT INTO odd_replies SELECT hex(randomblob(16)), 'only reasoning' FROM answers "
    "WHERE key = ? AND finish_reason = 'length'"
)
_ONLY_REASONING = "UPDATE answers SET text = '', finish_reason = 'reasoning' WHERE key = ? AND finish_reason = 'length'"
# The process may end before it removes the other file: absorbing a file twice must not count anything twice.
_ABSORB = (
    "INSERT OR IGNORE INTO answers SELECT key, text, tokens, prompt_tokens, finish_reason, anew FROM other.answers",
    "INSERT OR IGNORE INTO first_tokens SELECT key, tokens FROM other.first_tokens",
    "INSERT INTO failures SELECT key, reason, times FROM other.failures WHERE true "
    "ON CONFLICT (key) DO UPDATE SET reason = excluded.reason, times = times + excluded.times",
    "DELETE FROM failures WHERE key IN (SELECT key FROM other.answers)",
    "INSERT OR IGNORE INTO lost SELECT id, prompt_tokens, tokens FROM other.lost",
    "INSERT OR IGNORE INTO unusable SELECT key FROM other.unusable",
    "INSERT OR IGNORE INTO odd_replies SELECT id, kind FROM other.odd_replies",
    "INSERT OR REPLACE INTO learned SELECT server, manner FROM other.learned",
)
_FORGET = (  # what they have cost stays
    "INSERT INTO lost SELECT hex(randomblob(16)), prompt_tokens, tokens FROM answers "
    "WHERE key IN (SELECT key FROM unusable)",
    "DELETE FROM first_tokens WHERE key IN (SELECT key FROM unusable)",
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


def key_of_server(model: Mapping[str, Any]) -> str:
    """Tells servers apart whose manners may differ."""
    return hashlib.sha256(json.dumps(dict(model), sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()


class RequestCache:
    """A SQLite file of answers by request. Every answer is in it before it is handed out; threads may share it."""

    def __init__(self, path: str | Path, *, alone: bool = False) -> None:
        """Open the file, or make it; `alone` keeps all other processes out for as long as it is open.

        Raises:
            StorageError: it can't be written, is something else, or is held by another process that is alone with it.
        """
        self.path = Path(path)
        self._lock = threading.Lock()
        with self._explained():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(self.path, timeout=_BUSY, check_same_thread=False, isolation_level=None)
            if alone:  # and the log's index is in memory, since a network file system can't share it
                self._connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.executescript(_SCHEMA)

    def get(self, key: str) -> Completion | None:
        """The answer, if it was given before."""
        return self.get_all([key]).get(key)

    def get_all(self, keys: Sequence[str]) -> dict[str, Completion]:
        """Key -> answer, for those that were given before."""
        found = {}
        with self._lock, self._explained():
            for key in keys:
                row = self._connection.execute(_GET, (key,)).fetchone()
                if row is not None:
                    text, tokens, finish_reason, anew, first = row
                    reason = cast("FinishReason", finish_reason)
                    found[key] = Completion(text, tokens, reason, bool(anew), _read_first(first), kept=True)
        return found

    def put(self, key: str, completion: Completion, prompt_tokens: int = 0, kinds: Iterable[str] = ()) -> None:
        """Keep an answer, forget that its request failed before, and count what was odd about the reply.

        Raises:
            StorageError: the disk is full.
        """
        with self._lock, self._explained(), self._connection:
            self._connection.execute("BEGIN")
            self._insert(key, completion, prompt_tokens)
            self._connection.execute("DELETE FROM failures WHERE key = ?", (key,))
            for kind in kinds:
                self._connection.execute(_COUNT, (kind,))

    def put_all(self, completions: Mapping[str, Completion]) -> None:
        """Keep several answers, all of them or none.

        Raises:
            StorageError: the disk is full.
        """
        with self._lock, self._explained(), self._connection:
            self._connection.execute("BEGIN")
            for key, completion in completions.items():
                self._insert(key, completion, 0)

    def mark_unusable(self, keys: Sequence[str]) -> None:
        """Note answers that could not be used; they stay until `forget_unusable`.

        Raises:
            StorageError: the disk is full.
        """
        with self._lock, self._explained(), self._connection:
            self._connection.execute("BEGIN")
            self._connection.executemany("INSERT OR IGNORE INTO unusable VALUES (?)", [(key,) for key in keys])

    def forget_unusable(self) -> None:
        """Forget the answers that were marked, so that their requests are asked again; their cost still counts.

        Raises:
            StorageError: the disk is full.
        """
        with self._lock, self._explained(), self._connection:
            self._connection.execute("BEGIN")
            for statement in _FORGET:
                self._connection.execute(statement)

    def only_reasoning(self, keys: Iterable[str]) -> None:
        """Note that answers cut at their limit were nothing but reasoning: drop their text and count them.

        Raises:
            StorageError: the disk is full.
        """
        with self._lock, self._explained(), self._connection:
            self._connection.execute("BEGIN")
            for key in keys:
                self._connection.execute(_COUNT_ONLY_REASONING, (key,))
                self._connection.execute(_ONLY_REASONING, (key,))

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
        self._do("INSERT INTO lost VALUES (?, ?, ?)", uuid.uuid4().hex, round(prompt_tokens), round(tokens))

    def spent(self) -> Spent:
        """What all answers have cost, and those that never came may have."""
        return Spent(*self._do(_SPENT)[0])

    def absorb(self, path: Path) -> None:
        """Take over all that another file of answers holds, or nothing of it; the file stays.

        Raises:
            StorageError: either file can't be read or written.
        """
        RequestCache(path).close()  # one that was cut short is made whole
        with self._lock, self._explained():
            self._connection.execute("ATTACH ? AS other", (str(path),))
            try:
                with self._connection:
                    self._connection.execute("BEGIN")
                    for statement in _ABSORB:
                        self._connection.execute(statement)
            finally:
                self._connection.execute("DETACH other")

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

    def _insert(self, key: str, completion: Completion, prompt_tokens: int) -> None:
        text = completion.text.encode("utf-8", "replace").decode()  # half a surrogate pair fits into no file
        row = (key, text, completion.tokens, prompt_tokens, completion.finish_reason, completion.anew)
        self._connection.execute(_PUT, row)
        if completion.first:
            self._connection.execute(_PUT_FIRST, (key, json.dumps(completion.first)))

    def _do(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with self._lock, self._explained():
            return self._connection.execute(statement, values).fetchall()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StorageError(
                f"The answers in {self.path} can't be read or written ({error}); free disk space, and if it is no file "
                "of answers, move it away."
            ) from error


def _read_first(stored: str | None) -> tuple[tuple[str, float], ...]:
    return tuple((str(token), float(log_prob)) for token, log_prob in json.loads(stored)) if stored else ()
