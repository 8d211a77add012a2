"""The keys and values of users' shots, kept between their requests within a budget of bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from fspo.modeling.decoding import NOTHING, KeyValues

__all__ = ["CacheCounts", "Trunk", "TrunkCache"]


@dataclass(eq=False)
class Trunk:
    """One user's shots as token ids, and what the model has read of them so far."""

    owner: str
    ids: tuple[int, ...]
    nbytes: int
    """Bytes once it is read."""
    key_values: KeyValues = NOTHING
    uses: int = 0
    """Requests that are answered with it now."""
    kept: bool = True
    """Whether the cache still holds it."""

    @property
    def unread(self) -> tuple[int, ...]:
        """The token ids that remain to be read."""
        return self.ids[self.key_values.length :]


@dataclass
class CacheCounts:
    """What the cache did so far."""

    hits: int = 0
    """Requests whose whole trunk was there."""
    misses: int = 0
    evictions: int = 0
    peak_bytes: int = 0


@dataclass
class TrunkCache:
    """Keeps one trunk of each user, the last used ones.

    All trunks in memory count, also those that requests still use after their user was forgotten. Only a trunk that
    is larger than the whole budget exceeds it: it is read when no other one is in use, and not kept.

    Attributes:
        budget: bytes of all trunks together.
        counts: what happened so far.
        nbytes: bytes of the trunks in memory.
    """

    budget: int
    counts: CacheCounts = field(default_factory=CacheCounts)
    nbytes: int = 0
    _kept: OrderedDict[str, Trunk] = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        """How many trunks are kept."""
        return len(self._kept)

    def acquire(self, owner: str, ids: Sequence[int], token_bytes: int) -> tuple[Trunk, int] | None:
        """The trunk of `ids`, which stays until it is released.

        Of another trunk of the same owner, the tokens that both begin with are taken over, and the rest is dropped.

        Returns:
            The trunk, and how many of its tokens were there before; None if it has no room until others are released.
        """
        known = self._kept.get(owner)
        if known is not None and known.ids == tuple(ids):
            self._kept.move_to_end(owner)
            known.uses += 1
            self.counts.hits += 1
            return known, known.key_values.length
        size = len(ids) * token_bytes
        in_use = self.nbytes - sum(trunk.nbytes for trunk in self._kept.values() if not trunk.uses)
        if in_use and in_use + size > self.budget:
            return None
        shared = _common(known.ids[: known.key_values.length], ids) if known is not None else 0
        start = known.key_values.part(0, shared) if known is not None else NOTHING
        if known is not None:
            self._drop(known)
        self._make_room(size)
        trunk = Trunk(owner, tuple(ids), size, start, uses=1, kept=size <= self.budget)
        if trunk.kept:
            self._kept[owner] = trunk
        self.nbytes += size
        self.counts.misses += 1
        self.counts.peak_bytes = max(self.counts.peak_bytes, self.nbytes)
        return trunk, shared

    def release(self, trunk: Trunk) -> None:
        """Say that a request no longer uses the trunk; one that nobody finished reading is not kept."""
        trunk.uses -= 1
        if not trunk.uses:
            if not trunk.kept:
                self.nbytes -= trunk.nbytes
            elif trunk.unread:
                self._drop(trunk)

    def forget(self, owner: str) -> None:
        """Drop the owner's trunk; a request that uses it ends with it."""
        if owner in self._kept:
            self._drop(self._kept[owner])

    def clear(self) -> None:
        """Drop all trunks."""
        for trunk in list(self._kept.values()):
            self._drop(trunk)

    def _make_room(self, size: int) -> None:
        for trunk in list(self._kept.values()):
            if self.nbytes + size <= self.budget:
                return
            if not trunk.uses:
                self._drop(trunk)
                self.counts.evictions += 1

    def _drop(self, trunk: Trunk) -> None:
        del self._kept[trunk.owner]
        trunk.kept = False
        if not trunk.uses:
            self.nbytes -= trunk.nbytes


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with."""
    places = (place for place, (mine, theirs) in enumerate(zip(one, other, strict=False)) if mine != theirs)
    return next(places, min(len(one), len(other)))
