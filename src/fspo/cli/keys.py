"""`fspo keys`: the keys of the users of a server."""

from __future__ import annotations

from typing import Annotated

import typer

from fspo.cli.options import add_verb, console, help_text
from fspo.cli.store_options import StorePlace, UserName, opened

__all__ = ["add", "app", "list_", "revoke"]

_HELP = """Add, list and revoke the keys of a server's users.

A key says whose preferences a request uses. The store holds its SHA-256 and its last four characters, not the key.

Examples:
  fspo keys add ann

  fspo keys list ann
"""

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, help=help_text(_HELP))


@add_verb(app, "add")
def add(user: UserName, store: StorePlace = "fspo-store") -> None:
    """Make a key for a user and print it. It can't be shown again.

    Examples:
      fspo keys add ann
    """
    with opened(store, existing=True) as people:
        print(people.add_key(people.user_named(user)).key)


@add_verb(app, "list")
def list_(user: UserName, store: StorePlace = "fspo-store") -> None:
    """List the keys of a user: id, last characters and date.

    Examples:
      fspo keys list ann
    """
    from datetime import UTC, datetime

    out = console()
    with opened(store, existing=True) as people:
        for key in people.keys(people.user_named(user)):
            made = datetime.fromtimestamp(key.created, UTC).date()
            out.print(f"{key.id}  ...{key.ending}  {made}", markup=False)


@add_verb(app, "revoke")
def revoke(
    user: UserName,
    key: Annotated[str, typer.Argument(help="Id of the key, as `fspo keys list` shows it.")],
    store: StorePlace = "fspo-store",
) -> None:
    """Delete a key. The next request with it is refused.

    Examples:
      fspo keys revoke ann key_0123456789abcdef01234567
    """
    with opened(store, existing=True) as people:
        people.revoke_key(people.user_named(user), key)
    console().print(f"Revoked {key}.", markup=False)
