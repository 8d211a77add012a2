"""Whose data may be read: an owner from a key, and sessions that see the data of one owner alone."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from sqlalchemy import event
from sqlalchemy.orm import ORMExecuteState, Session, with_loader_criteria

from fspo.serving.schema import Personal, UserRow

__all__ = ["PSEUDONYM", "NoOwner", "OwnSession", "Owner", "pseudonym"]


PSEUDONYM = re.compile(r"person-[0-9a-f]{16}")
"""The form of `pseudonym`."""


class NoOwner(RuntimeError):
    """A query of personal data without an owner: a mistake in the program, which reads nothing."""


@dataclass(frozen=True)
class Owner:
    """Whose data may be read. Only the store makes one."""

    id: str


def pseudonym(owner: Owner) -> str:
    """The user's id in datasets, and in the records that outlive a deletion.

    It shows that a user was there, and not who: without the store's random id of the user nobody can compute it.
    """
    return "person-" + hashlib.sha256(b"fspo user " + owner.id.encode()).hexdigest()[:16]


class OwnSession(Session):
    """A session that sees the data of one owner, `info["owner"]`."""


@event.listens_for(OwnSession, "do_orm_execute")
def _only_of_the_owner(state: ORMExecuteState) -> None:
    """Add the owner to each query of personal data.

    Raises:
        NoOwner: there is none, or the statement is text that can't be checked.
    """
    owner = state.session.info.get("owner")
    if not isinstance(owner, Owner) or not owner.id:
        raise NoOwner("Personal data were queried without an owner.")
    if not state.is_orm_statement or not (state.is_select or state.is_delete):
        raise NoOwner("Only a query of the tables can be limited to an owner.")
    theirs = owner.id
    state.statement = state.statement.options(
        with_loader_criteria(Personal, lambda table: table.user_id == theirs, include_aliases=True),
        with_loader_criteria(UserRow, UserRow.id == theirs, include_aliases=True),
    )
