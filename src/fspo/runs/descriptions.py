"""Descriptions of users in a method's own words, kept in a run's folder, where they can be read and edited."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fspo.errors import StorageError
from fspo.files import locked, read_json, write_json

__all__ = ["DESCRIPTIONS_FILE", "DescriptionBook"]

DESCRIPTIONS_FILE = "descriptions.json"


@dataclass(frozen=True)
class DescriptionBook:
    """`descriptions.json`: method -> user -> text, what it was written from, and whether a person edited it."""

    path: Path

    def of(self, method: str, user: str, origin: str, write: Callable[[], str]) -> str:
        """The description on record, or a new one where there is none or it was written from something else.

        What a person edited stays, whatever it would be written from, also if they do so while a new one is written.

        `origin` identifies the weights and the shots that it is written from.

        Raises:
            StorageError: the file is damaged, or can't be written.
        """
        entry = self._all().get(method, {}).get(user)
        if entry is None or not (entry["edited"] or entry["origin"] == origin):
            new = {"text": write(), "origin": origin, "edited": False}
            with self._changing(method) as users:
                entry = users.get(user)
                if entry is None or not entry["edited"]:
                    entry = users[user] = new
        return str(entry["text"])

    def edit(self, method: str, user: str, text: str) -> None:
        """Take a person's own words; without any, the method writes the description again.

        Raises:
            StorageError: the file is damaged, or can't be written.
        """
        with self._changing(method) as users:
            users.pop(user, None)
            if text:
                users[user] = {"text": text, "origin": "", "edited": True}

    def _all(self) -> dict[str, dict[str, dict[str, Any]]]:
        if not self.path.exists():
            return {}
        found = read_json(self.path)
        try:
            entries = [entry for users in found.values() for entry in users.values()]
            whole = all({"text", "origin", "edited"} <= entry.keys() for entry in entries)
        except AttributeError:
            whole = False
        if not whole:
            raise StorageError(f"{self.path} is damaged; repair it, or delete it to write all descriptions again.")
        return dict(found)

    @contextmanager
    def _changing(self, method: str) -> Iterator[dict[str, dict[str, Any]]]:
        """User -> entry of a method, written when the block ends; other processes wait before they read and write."""
        with locked(self.path.with_name(f".{self.path.stem}.lock")):
            book = self._all()
            yield book.setdefault(method, {})
            write_json(self.path, book)
