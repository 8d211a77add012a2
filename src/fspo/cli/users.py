"""`fspo users`: the users of a server, their limits and their data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fspo.cli.options import add_verb, console, help_text
from fspo.cli.store_options import StorePlace, UserName, opened
from fspo.errors import ConfigError

__all__ = ["add", "app", "collect", "delete", "export", "limit", "list_"]

_HELP = """Add, list, limit, export and delete the users of a server.

Examples:
  fspo users add ann

  fspo users list
"""

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, help=help_text(_HELP))
Rate = Annotated[
    str, typer.Option("--rate", help="Limit of requests, such as 60/minute or '5/second;1000/day'; '': the server's.")
]


@add_verb(app, "add")
def add(
    name: Annotated[str, typer.Argument(help="A name that no other user has.")],
    description: Annotated[str, typer.Option(help="Describes the user to the policy; the user may edit it.")] = "",
    rate: Rate = "",
    store: StorePlace = "fspo-store",
) -> None:
    """Add a user. `fspo keys add` then makes a key.

    Examples:
      fspo users add ann

      fspo users add bob --rate 10/minute
    """
    with opened(store) as people:
        _check_rate(rate)
        people.add_user(name, description=description, rate=rate)
    console().print(f"Added {name}. Make a key with: fspo keys add {name}", markup=False)


@add_verb(app, "list")
def list_(store: StorePlace = "fspo-store") -> None:
    """List the users, and which policies should be trained again since somebody's data were deleted.

    Examples:
      fspo users list
    """
    out = console()
    with opened(store) as people:
        for account in people.users():
            paused = "" if account.personalise else ", paused"
            own = f", at most {account.rate}" if account.rate else ""
            out.print(f"{account.name}: {account.preferences:,} preferences{own}{paused}", markup=False)
        for policy in people.policies_to_train_again():
            out.print(f"Train {policy} again: the data of one of its users were deleted.", markup=False)


@add_verb(app, "limit")
def limit(user: UserName, rate: Rate, store: StorePlace = "fspo-store") -> None:
    """Set how many requests a user may send.

    Examples:
      fspo users limit ann --rate 10/minute
    """
    with opened(store) as people:
        _check_rate(rate)
        people.change_account(people.user_named(user), rate=rate)
    console().print(f"{user}: {rate or 'the limit of the server'}.", markup=False)


@add_verb(app, "export")
def export(
    user: UserName,
    file: Annotated[Path, typer.Argument(help="ZIP archive to write; it must not exist.")],
    store: StorePlace = "fspo-store",
) -> None:
    """Write everything that the store holds of a user into one archive.

    Examples:
      fspo users export ann ann.zip
    """
    from fspo.files import writing

    if file.exists():
        raise ConfigError(f"{file} exists already; name another file.")
    with opened(store) as people:
        whole = people.export(people.user_named(user))
    with writing(file) as temporary:
        temporary.touch(mode=0o600)
        temporary.write_bytes(whole)
    console().print(f"Wrote {file}.", markup=False)


@add_verb(app, "delete")
def delete(
    user: UserName,
    yes: Annotated[bool, typer.Option("--yes", help="Delete without a question.")] = False,
    store: StorePlace = "fspo-store",
) -> None:
    """Delete a user, with all keys, preferences and conversations, for good.

    A server that runs on the same store refuses the keys at once, and within a second drops what its model has read of
    the preferences.

    Examples:
      fspo users delete ann --yes
    """
    out = console()
    with opened(store) as people:
        owner = people.user_named(user)
        if not yes and not typer.confirm(f"Delete everything of {user}?"):
            raise ConfigError("Nothing was deleted.")
        done = people.withdraw(owner)
    removed = ", ".join(f"{count:,} {table}" for table, count in done.removed.items())
    out.print(f"Deleted {user}: {removed}.", markup=False)
    if not done.erased:
        out.print("Another program reads the old content; it goes with the next deletion or start.", markup=False)
    for policy in done.policies:
        out.print(f"Train {policy} again: it has seen these preferences.", markup=False)


@add_verb(app, "collect")
def collect(
    folder: Annotated[Path, typer.Argument(help="New folder for the dataset.")],
    policy: Annotated[str, typer.Option("--policy", help="Name of the policy that will be trained on it.")],
    store: StorePlace = "fspo-store",
) -> None:
    """Write the preferences of all users who have not paused personalisation as a dataset for training.

    The store notes whose preferences the policy will have seen, so that a later deletion says which policies should be
    trained again.

    Examples:
      fspo users collect data/people --policy people-1
    """
    from fspo.files import is_empty

    if folder.exists() and not is_empty(folder):
        raise ConfigError(f"{folder} is not empty; name another folder.")
    with opened(store) as people:
        from fspo.preferences.dataset import PreferenceDataset
        from fspo.preferences.types import User
        from fspo.serving.shot_choice import usable
        from fspo.serving.store import Owner

        known = people.last_withdrawal()
        accounts = [account for account in people.users() if account.personalise and account.preferences]
        if not accounts:
            raise ConfigError("No user has preferences to train on.")
        users = [User(account.id, account.description) for account in accounts]
        owners = [Owner(account.id) for account in accounts]
        rows = [stored.preference for owner in owners for stored in usable(people.preferences(owner), "")]
        dataset = PreferenceDataset(users, rows, file="the store")  # its URL may hold a password
        people.record_training(policy, owners, after=known)
        dataset.save(folder)
    console().print(f"Wrote {len(rows):,} preferences of {len(users):,} users to {folder}.", markup=False)


def _check_rate(rate: str) -> None:
    from fspo.serving.rates import parse_rate

    parse_rate(rate)
