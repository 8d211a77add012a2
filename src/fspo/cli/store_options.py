"""What the verbs on the store of people share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from fspo.errors import ConfigError

if TYPE_CHECKING:
    from fspo.serving.store import Store

__all__ = ["StorePlace", "UserName", "opened"]

StorePlace = Annotated[
    str,
    typer.Option(
        "--store",
        envvar="FSPO_STORE",
        help="Folder of the store, made if missing, or URL of a Postgres database.",
    ),
]
UserName = Annotated[str, typer.Argument(help="Name of the user.")]


@contextmanager
def opened(place: str) -> Iterator[Store]:
    """The store, open for as long as the context lasts.

    Raises:
        ConfigError: the extra 'serve' is not installed.
    """
    try:
        from fspo.serving.store import Store
    except ModuleNotFoundError as error:
        what = f"The store needs the extra 'serve' ({error.name} is missing): "
        raise ConfigError(what + "pip install -e '.[serve]' in the project's folder.") from None
    store = Store.open(place)
    try:
        yield store
    finally:
        store.close()
