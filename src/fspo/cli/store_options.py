"""What the verbs on the store of people share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from fspo.errors import ConfigError
from fspo.paths import expanded

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
def opened(place: str, *, dry_run: bool = False) -> Iterator[Store]:
    """The store, open for as long as the context lasts. A dry run makes no store: a missing one is a temporary one.

    Raises:
        ConfigError: the extra 'serve' is not installed.
    """
    try:
        from fspo.serving.connection import STORE_FILE
        from fspo.serving.store import Store
    except ModuleNotFoundError as error:
        what = f"The store needs the extra 'serve' ({error.name} is missing): "
        raise ConfigError(what + "pip install -e '.[serve]' in the project's folder.") from None
    with ExitStack() as held:
        if dry_run and "://" not in place and not (Path(expanded(place)) / STORE_FILE).exists():
            place = held.enter_context(TemporaryDirectory(prefix="fspo-dry-run-"))
        store = Store.open(place)
        held.callback(store.close)
        yield store
