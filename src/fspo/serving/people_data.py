"""The preferences of a store's users as a dataset, and the record of the policies that were trained on them.

Every preference of such a dataset has in its source how it was made (`origin`), the `store`, and the number of the
store's newest withdrawal when it was read (`withdrawal`). So a training recognises it, also as a part of other data,
and the store learns which policies have seen whose preferences.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fspo.errors import DataError
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.types import Preference, User
from fspo.serving.ownership import PSEUDONYM, Owner, pseudonym
from fspo.serving.shot_choice import usable
from fspo.serving.store import Store

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


def people_dataset(store: Store, place: str) -> PreferenceDataset:
    """The preferences of all users who allow training, with pseudonyms in place of their ids.

    Of contradictory and repeated preferences of a user the newest counts. A description comes with its user.

    Args:
        store: the store.
        place: what the dataset says of where it is from; see `fspo.serving.connection.public_place`.

    Raises:
        DataError: nobody who allows training has preferences.
    """
    # Before anything is read: what is deleted meanwhile counts as deleted later.
    export = Export(place, store.last_withdrawal(), ())
    users: list[User] = []
    rows: list[Preference] = []
    for account in store.users():
        if not (account.allow_training and account.preferences):
            continue
        owner = Owner(account.id)
        name = pseudonym(owner)
        users.append(User(name, account.description))
        for stored in usable(store.preferences(owner), ""):
            one = stored.preference
            source = {"origin": stored.origin, **export.source}
            rows.append(Preference.after(name, one.messages, one.chosen, one.rejected, source=source))
    if not rows:
        raise DataError(
            "No user of this store who allows training has preferences. Users allow it themselves (`allow_training` of "
            "/v1/me), or `fspo users consent NAME` notes that they do."
        )
    return PreferenceDataset(users, rows, file="the store")


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
    """Note in the store that a policy is trained on its users' preferences, or that a dataset holds them.

    Args:
        store: the store.
        export: what the policy or the dataset has of the store.
        folder: of the policy or the dataset.
        policy: whether it is a policy.

    Raises:
        DataError: the folder's name is too long.
    """
    store.record_training(
        str(folder.absolute()), export.people, after=export.withdrawal, kind="policy" if policy else "dataset"
    )
