"""What the verbs on the store of people share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fspo.errors import ConfigError, FspoError, StorageError
from fspo.keys import hidden
from fspo.printing import counted, one_line
from fspo.runs import processes

if TYPE_CHECKING:
    from fspo.preferences.dataset import PreferenceDataset
    from fspo.progress import Progress
    from fspo.serving.connection import StoreState
    from fspo.serving.people_data import Export
    from fspo.serving.store import Store

__all__ = ["NewStorePlace", "StorePlace", "UserName", "look_at_store", "opened", "recording_people", "store_words"]

StorePlace = Annotated[
    str, typer.Option("--store", envvar="FSPO_STORE", help="Folder of the store, or URL of a Postgres database.")
]
NewStorePlace = Annotated[
    str,
    typer.Option(
        "--store",
        envvar="FSPO_STORE",
        help="Folder of the store, created if it is missing, or URL of a Postgres database.",
    ),
]
UserName = Annotated[str, typer.Argument(help="Name of the user.")]


def recording_people(progress: Progress) -> Callable[[PreferenceDataset, Path], None]:
    """What notes in a store that a policy (its folder) is trained on the preferences of its users.

    Only the first process notes it. A store that can't be opened does not end the training: `progress` says what to do.
    """

    def record(dataset: PreferenceDataset, policy: Path) -> None:
        if not processes.is_first() or not any("store" in row.source for row in dataset):
            return
        for export in _exports(dataset):
            try:
                _record(export, policy)
            except FspoError as error:
                progress.say(
                    f"The store {one_line(export.store)} does not know that {policy} is trained on preferences of "
                    f"{counted(len(export.people), 'users')}: {error} Then repeat the command."
                )

    return record


def _record(export: Export, policy: Path) -> None:
    from fspo.serving.connection import public_place
    from fspo.serving.people_data import record_export

    place = export.store
    if "://" in place:  # data that somebody else has made must not decide which server gets a password
        place = os.environ.get("FSPO_STORE", "")
        if not place or public_place(place) != export.store:
            raise ConfigError("Set FSPO_STORE to its URL.")
    with opened(place, existing=True) as people:
        record_export(people, export, policy, policy=True)


def _exports(dataset: PreferenceDataset) -> list[Export]:
    from fspo.serving.people_data import exports_in

    return list(exports_in(dataset))


@contextmanager
def opened(place: str, *, existing: bool = False) -> Iterator[Store]:
    """The store, open for as long as the context lasts.

    Args:
        place: its folder, or its URL.
        existing: whether the store must be there; if not, it is created where it is missing.

    Raises:
        StorageError: the store must be there, and is not.
    """
    from fspo.serving.connection import look_at
    from fspo.serving.store import Store

    if existing and not look_at(place).version:
        raise StorageError(
            f"{hidden(place)} holds no store; name your server's, or create one with `fspo serve` or `fspo users add`."
        )
    store = Store.open(place)
    try:
        yield store
    finally:
        store.close()


def store_words(place: str) -> list[str]:
    """What names this store in a command that the reader can paste: nothing if that is its store anyway."""
    return [] if place == (os.environ.get("FSPO_STORE") or "fspo-store") else ["--store", hidden(place)]


def look_at_store(place: str) -> StoreState:
    """What there is of a store, for a dry run: it changes and creates none.

    Raises:
        ConfigError: the URL is invalid.
        StorageError: the store can't be read, written or created.
    """
    from fspo.serving.connection import check_place, look_at

    check_place(place)
    return look_at(place)
