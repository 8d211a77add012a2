"""Drops what an engine keeps of people whose data were deleted or changed, by whichever program on the store.

A request notes the number of its owner's last deletion before it reads the shots. The server looks every second: if the
store has changed, it compares the numbers of all owners with the store, or else those noted since the last look. A
request that began before a deletion and ended after it notes the old number at its end, so what it read is dropped at
the next look.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import anyio
from anyio.to_thread import run_sync

from fspo.errors import FspoError
from fspo.serving.logged_errors import outlined
from fspo.serving.ownership import Owner
from fspo.serving.store import Store

__all__ = ["Forgetter", "keep_erasing"]

_GONE = -1
"""Mark of a user who does not exist."""
_LOG = logging.getLogger(__name__)


class Forgetter:
    """Knows for whom the engine may keep something, and since which deletion."""

    def __init__(self, store: Store, forget: Callable[[str], Awaitable[None]], *, seconds: float = 1.0) -> None:
        """It looks at the store every `seconds`; `forget`, as of an `Engine`, drops what is kept of a user."""
        self._store, self._forget, self._seconds = store, forget, seconds
        self._marks: dict[str, int] = {}
        self._version = ""  # of the store, at the last look
        self._unseen: set[str] = set()  # noted since then

    def mark(self, owner: Owner) -> int:
        """The number of the owner's last deletion; read it before their shots."""
        return self._store.marks([owner.id]).get(owner.id, _GONE)

    def note(self, owner: Owner, mark: int) -> None:
        """Say that the engine may keep what it reads of shots that were read after `mark`."""
        self._marks[owner.id] = min(mark, self._marks.get(owner.id, mark))
        self._unseen.add(owner.id)

    async def forget(self, owner: Owner) -> None:
        """Drop all that the engine keeps of the owner. Where that fails, the next look tries again."""
        await self._drop(owner.id)

    async def look(self) -> None:
        """Drop what the engine keeps of each owner with a deletion that was not noted.

        Raises:
            FspoError: the store or the engine does not answer. The next look tries again.
        """
        if not self._marks:
            return
        version = await run_sync(self._store.version)  # before the marks
        noted = dict(self._marks)
        if version == self._version:
            noted = {owner: mark for owner, mark in noted.items() if owner in self._unseen}
            if not noted:
                return
        self._unseen, unseen = set(), self._unseen
        try:
            marks = await run_sync(self._store.marks, list(noted))
        except BaseException:
            self._unseen |= unseen
            raise
        self._version = version
        problem: Exception | None = None
        for owner, mark in noted.items():
            if marks.get(owner, _GONE) != mark or mark == _GONE:
                try:
                    await self._drop(owner)
                except Exception as error:  # the others are dropped all the same
                    problem = error
        if problem is not None:
            raise problem

    async def _drop(self, owner: str) -> None:
        mark = self._marks.pop(owner, None)
        try:
            await self._forget(owner)
        except BaseException:
            if mark is not None:  # something may still be there
                self.note(Owner(owner), mark)
            raise

    async def run(self) -> None:
        """Look again and again, until this is cancelled. The log has a problem once, however long it lasts."""
        before = ""
        while True:
            await anyio.sleep(self._seconds)
            problem = ""
            try:
                await self.look()
            except FspoError as error:
                problem = str(error)
            except Exception as error:  # an end of the looks would keep what people delete later
                problem = f"{outlined(error)}."
            if problem not in ("", before):
                _LOG.error("The server could not look for deletions: %s", problem)
            before = problem


async def keep_erasing(store: Store, *, seconds: float) -> None:
    """Erase what a deletion could not erase at once, every `seconds`, until this is cancelled."""
    while True:
        await anyio.sleep(seconds)
        try:
            await run_sync(store.erase)
        except FspoError as error:
            _LOG.warning("The server could not erase what was deleted: %s", error)
        except Exception as error:
            _LOG.error("The server could not erase what was deleted (%s).", outlined(error))
