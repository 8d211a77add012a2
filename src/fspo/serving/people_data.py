"""The preferences of a store's users as a dataset, and the record of the policies that were trained on them.

Every preference of such a dataset has in its source how it was made (`origin`), the `store`, and the number of the
store's newest withdrawal when it was read (`withdrawal`). So a training recognises it, also as a part of other data,
and the store learns which policies have seen whose preferences.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fspo.errors import DataError
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.types import Preference, User
from fspo.serving.ownership import PSEUDONYM, Owner, UnknownOwner, pseudonym
from fspo.serving.shot_choice import usable
from fspo.serving.store import Store
from fspo.serving.stored_preferences import StoredPreference

__all__ = ["Export", "exports_in", "people_dataset", "record_export"]

_STORE, _WITHDRAWAL = "store", "withdrawal"


@dataclass(frozen=True)
class Export:
    """What a dataset holds of one store."""

    store: str
    """Its folder or URL."""
    withdrawal: int
    """Number of the store's newest withdrawal when the preferences were read."""
    people: tuple[str, ...]
    """The users' pseudonyms."""

    @property
    def source(self) -> dict[str, Any]:
        """What the source of each preference says of the store, so that `exports_in` finds it."""
        return {_STORE: self.store, _WITHDRAWAL: self.withdrawal}


def people_dataset(store: Store, place: str, folder: Path | None = None) -> PreferenceDataset:
    """The preferences of all users who allow training, with pseudonyms in place of their ids.

    Of contradictory and repeated preferences of a user the newest counts. A description comes with its user. What a
    user adds during the reading is left out.

    Args:
        store: the store.
        place: what the dataset says of where it is from; see `fspo.serving.connection.public_place`.
        folder: where the dataset will be written. The store notes it before anything is read, so that a deletion
            during the reading names it; call `record_export` when the dataset is written. None: it notes nothing.

    Raises:
        DataError: nobody who allows training has preferences, or the folder's name is too long.
    """
    began = int(time.time())
    owners = [Owner(one.id) for one in store.users() if one.allow_training and one.preferences]
    known = store.last_withdrawal() if folder is None else store.record_reading(_name(folder), owners)
    export = Export(place, known, ())
    users: list[User] = []
    rows: list[Preference] = []
    for owner in owners:
        name = pseudonym(owner)
        with suppress(UnknownOwner):  # deleted just now
            account = store.account(owner)
            read = [stored for stored in store.preferences(owner) if stored.created <= began]
            if account.allow_training and read:
                users.append(User(name, account.description))
                rows += [_exported(stored, name, export) for stored in usable(read, "")]
    if not rows:
        raise DataError(
            "No user of this store who allows training has preferences. Users allow it themselves (`allow_training` of "
            "/v1/me), or `fspo users consent NAME` notes that they do."
        )
    return PreferenceDataset(users, rows, file="the store")


def _exported(stored: StoredPreference, name: str, export: Export) -> Preference:
    one = stored.preference
    source = {"origin": stored.origin, **export.source}
    return Preference.after(name, one.messages, one.chosen, one.rejected, source=source)


def _name(folder: Path) -> str:
    """What the store calls a policy or a dataset."""
    return str(folder.absolute())


def exports_in(rows: Iterable[Preference]) -> Iterator[Export]:
    """What there is of stores in a dataset, one item for each store; of several withdrawals the oldest."""
    people: dict[str, dict[str, None]] = {}
    known: dict[str, int] = {}
    for row in rows:
        place, withdrawal = row.source.get(_STORE), row.source.get(_WITHDRAWAL)
        if isinstance(place, str) and isinstance(withdrawal, int) and PSEUDONYM.fullmatch(row.user):
            people.setdefault(place, {})[row.user] = None
            known[place] = min(withdrawal, known.get(place, withdrawal))
    for place, names in people.items():
        yield Export(place, known[place], tuple(names))


def record_export(store: Store, export: Export, folder: Path, *, policy: bool) -> None:
    """Note in the store that the policy, or the dataset, in a folder has its users' preferences.

    Raises:
        DataError: the folder's name is too long.
    """
    store.record_training(_name(folder), export.people, after=export.withdrawal, kind="policy" if policy else "dataset")
