"""`fspo users`: the users of a server, their limits and their data."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from fspo.cli.confirmation import ask
from fspo.cli.options import add_verb, console, help_text
from fspo.cli.store_options import NewStorePlace, StorePlace, UserName, opened, store_words
from fspo.errors import ConfigError
from fspo.printing import command, counted

__all__ = ["add", "app", "consent", "delete", "export", "limit", "list_"]

_HELP = """Add, list, limit, export and delete the users of a server.

Examples:
  fspo users add ann

  fspo users list
"""

_CHANGED = "some of its users' data were deleted or changed since, or may no longer be used"
_HAS_DATA, _TRAINED_ON = "it has data of this user", "it was trained on data of this user"
_TABLES = {
    "keys": "keys",
    "preferences": "preferences",
    "conversations": "conversations",
    "events": "events",
    "study_participants": "participations in a study",
    "study_items": "comparisons of a study",
}
"""A table of the store -> what a deletion calls its rows."""
app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, help=help_text(_HELP))
Rate = Annotated[
    str, typer.Option("--rate", help="Limit of answers, such as 60/minute or '5/second;1000/day'; '': the server's.")
]


@add_verb(app, "add")
def add(
    name: Annotated[str, typer.Argument(help="A name that no other user has.")],
    description: Annotated[
        str, typer.Option(help="Describes the user to a policy that reads descriptions; the user may edit it.")
    ] = "",
    rate: Rate = "",
    store: NewStorePlace = "fspo-store",
) -> None:
    """Add a user. `fspo keys add` then makes a key.

    Examples:
      fspo users add ann

      fspo users add bob --rate 10/minute
    """
    _check_rate(rate)
    with opened(store) as people:
        people.add_user(name, description=description, rate=rate)
    making = command("fspo", "keys", "add", name, *store_words(store))
    console().print(f"Added {name}. Make a key with: {making}", markup=False)


@add_verb(app, "list")
def list_(store: StorePlace = "fspo-store") -> None:
    """List the users, and name the datasets and policies with data that were deleted or changed since.

    Examples:
      fspo users list
    """
    out = console()
    with opened(store, existing=True) as people:
        studies, accounts = people.participants(), people.users()
        if not accounts:
            adding = command("fspo", "users", "add", "NAME", *store_words(store))
            out.print(f"The store has no users. Add one with: {adding}", markup=False)
        for account in accounts:
            paused = "" if account.personalise else ", paused"
            paused += ", allows training" if account.allow_training else ""
            own = f", at most {account.rate}" if account.rate else ""
            held = counted(account.preferences, "preferences")
            if account.id in studies:
                held = f"participant of the study '{studies[account.id]}'"
            out.print(f"{account.name}: {held}{own}{paused}", markup=False)
        _say_outdated(people.datasets_to_delete(), people.policies_to_train_again(), _CHANGED, _CHANGED)


@add_verb(app, "limit")
def limit(user: UserName, rate: Rate, store: StorePlace = "fspo-store") -> None:
    """Set how many answers a user may get.

    The same limit applies, counted separately, to the user's feedback, changes, deletions and exports.

    Examples:
      fspo users limit ann --rate 10/minute
    """
    _check_rate(rate)
    with opened(store, existing=True) as people:
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
    with opened(store, existing=True) as people:
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
    with opened(store, existing=True) as people:
        owner = people.user_named(user)
        if not yes:
            question = f"Delete everything of {user}?"
            ask(
                question,
                refusal=f"{question} There is no terminal to ask on. Add --yes to delete it.",
                declined="Nothing was deleted.",
            )
        done = people.withdraw(owner)
    held = [counted(done.removed[table], words) for table, words in _TABLES.items() if done.removed.get(table)]
    out.print(f"Deleted {user}{' with ' if held else ''}{', '.join(held)}.", markup=False)
    if not done.erased:
        out.print(
            "Another program still reads the old content; a server on this store erases it from the files, and so does "
            "the next command on it.",
            markup=False,
        )
    _say_outdated(done.datasets, done.policies, _HAS_DATA, _TRAINED_ON)


@add_verb(app, "consent")
def consent(
    user: UserName,
    withdraw: Annotated[bool, typer.Option("--withdraw", help="The user no longer allows it.")] = False,
    store: StorePlace = "fspo-store",
) -> None:
    """Note that a user allows training on their preferences and description, or no longer does.

    Nobody allows it until they, or you for them, say so; `fspo data from-store` leaves out everybody else. A
    withdrawal names the datasets and policies that have the user's data.

    Examples:
      fspo users consent ann

      fspo users consent ann --withdraw
    """
    with opened(store, existing=True) as people:
        owner = people.user_named(user)
        people.change_account(owner, allow_training=not withdraw)
        datasets, policies = (people.trained_on(owner, kind) for kind in ("dataset", "policy"))
    console().print(f"{user}: training is {'no longer ' if withdraw else ''}allowed.", markup=False)
    if withdraw:
        _say_outdated(datasets, policies, _HAS_DATA, _TRAINED_ON)


def _say_outdated(datasets: Iterable[str], policies: Iterable[str], dataset_reason: str, policy_reason: str) -> None:
    """Name the datasets and policies with data that may no longer be used, and say which are gone from this machine."""
    todo = [(name, f"Delete {name}, or export it again", dataset_reason) for name in datasets]
    todo += [(name, f"Train {name} again", policy_reason) for name in policies]
    for name, advice, reason in todo:
        gone = Path(name).is_absolute() and not Path(name).exists()
        told = f"{name} is no longer on this machine; delete any copy of it" if gone else advice
        console().print(f"{told}: {reason}.", markup=False)


def _check_rate(rate: str) -> None:
    from fspo.serving.rates import parse_rate

    parse_rate(rate, "--rate")
