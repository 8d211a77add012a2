"""The keys and values of users' shots, kept between their requests within a budget of bytes.

For guidance there are two trunks of each user: the shots, and the shots with their labels swapped.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from fspo.modeling.decoding import NOTHING, KeyValues
from fspo.modeling.rendering import common_beginning

__all__ = ["CacheCounts", "Trunk", "TrunkCache"]


@dataclass(eq=False)
class Trunk:
    """One user's shots as token ids, and what the model has read of them so far."""

    owner: str
    place: int
    """0, and 1 for the mirrored shots."""
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
    """Keeps the trunks of each user, the last used ones.

    All trunks in memory count, also those that requests still use after their user was forgotten. Only a request whose
    trunks are larger than the whole budget exceeds it: they are read when no other one is in use, and not kept.

    Attributes:
        budget: bytes of all trunks together.
        counts: what happened so far.
        nbytes: bytes of the trunks in memory.
    """

    budget: int
    counts: CacheCounts = field(default_factory=CacheCounts)
    nbytes: int = 0
    _kept: OrderedDict[tuple[str, int], Trunk] = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        """Of how many users trunks are kept."""
        return len({owner for owner, _ in self._kept})

    def acquire(self, owner: str, texts: Sequence[Sequence[int]], token_bytes: int) -> list[tuple[Trunk, int]] | None:
        """The trunks of a request, which stay until they are released.

        Of another trunk of the same owner, the tokens that both begin with are taken over, and the rest is dropped.

        Args:
            owner: whose they are.
            texts: token ids of the shots, and for guidance those of the mirrored shots.
            token_bytes: of the keys and values of one token.

        Returns:
            Each trunk, and how many of its tokens were there before; None if they have no room until others are
            released.
        """
        known = [self._kept.get((owner, place)) for place in range(len(texts))]
        in_use = self.nbytes - sum(trunk.nbytes for trunk in self._kept.values() if not trunk.uses)
        needed = sum(
            0 if trunk is not None and trunk.ids == tuple(ids) and trunk.uses else len(ids) * token_bytes
            for trunk, ids in zip(known, texts, strict=True)
        )
        if in_use and in_use + needed > self.budget:
            return None
        keep = needed <= self.budget
        return [self._take(owner, place, tuple(ids), token_bytes, keep) for place, ids in enumerate(texts)]

    def _take(self, owner: str, place: int, ids: tuple[int, ...], token_bytes: int, keep: bool) -> tuple[Trunk, int]:
        key = owner, place
        known = self._kept.get(key)
        if known is not None and known.ids == ids:
            self._kept.move_to_end(key)
            known.uses += 1
            self.counts.hits += 1
            return known, known.key_values.length
        shared = common_beginning(known.ids[: known.key_values.length], ids) if known is not None else 0
        start = known.key_values.part(0, shared) if known is not None else NOTHING
        if known is not None:
            self._drop(known)
        size = len(ids) * token_bytes
        self._make_room(size)
        trunk = Trunk(owner, place, ids, size, start, uses=1, kept=keep)
        if trunk.kept:
            self._kept[key] = trunk
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
        """Drop the owner's trunks; a request that uses them ends with them."""
        for trunk in [trunk for (name, _), trunk in self._kept.items() if name == owner]:
            self._drop(trunk)

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
        del self._kept[trunk.owner, trunk.place]
        trunk.kept = False
        if not trunk.uses:
            self.nbytes -= trunk.nbytes
