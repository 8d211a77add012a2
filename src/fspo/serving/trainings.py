"""Which policies and datasets hold whose preferences, and which of them a deletion has outdated."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from fspo.serving.ownership import Owner, Sessions, batches, now, pseudonym
from fspo.serving.schema import TrainingRow, UserRow, WithdrawalRow
from fspo.serving.texts import check_length

__all__ = ["Trainings", "withdraw_from_training"]

_LONGEST_NAME = 1_000
"""Characters."""


class Trainings(Sessions):
    """The record of what was trained on whose preferences, by pseudonym."""

    def last_withdrawal(self) -> int:
        """Number of the newest withdrawal, 0 for none; read it before the preferences of a training."""
        with self._administer() as session:
            return session.scalar(select(func.max(WithdrawalRow.number))) or 0

    def record_training(
        self,
        name: str,
        people: Iterable[str],
        *,
        after: int | None = None,
        kind: Literal["policy", "dataset"] = "policy",
    ) -> None:
        """Note that these users' preferences are in a policy or a dataset, in place of an earlier one of its name.

        The name is its folder, and the users are named by `pseudonym`. `after` is `last_withdrawal` before the
        preferences were read; by default that of now.

        Raises:
            DataError: the name is too long.
        """
        check_length(f"name of a {kind}", name, _LONGEST_NAME)
        known = self.last_withdrawal() if after is None else after
        with self._administer(writes=True) as session:
            session.execute(delete(TrainingRow).where(TrainingRow.policy == name))
            _note_training(session, name, kind, people, known)

    def record_reading(self, name: str, owners: Sequence[Owner]) -> int:
        """Note that a dataset of this name, its folder, will hold these users' preferences, before they are read.

        So a deletion during the reading names the dataset. Notes of an earlier dataset of this name stay until
        `record_training`, since its files are still there.

        Returns:
            `last_withdrawal` before the preferences can be read.

        Raises:
            DataError: the name is too long.
        """
        check_length("name of a dataset", name, _LONGEST_NAME)
        with self._administer(writes=True) as session:
            _wait_for_writers(session, owners)
            known = session.scalar(select(func.max(WithdrawalRow.number))) or 0
            earlier = {
                row.pseudonym: row for row in session.scalars(select(TrainingRow).where(TrainingRow.policy == name))
            }
            people = [pseudonym(owner) for owner in owners]
            for one in people:
                if one in earlier:
                    earlier[one].created = now()  # with the number of its own withdrawal: the old files count too
            _note_training(session, name, "dataset", (one for one in people if one not in earlier), known)
        return known

    def policies_to_train_again(self) -> list[str]:
        """The policies trained on preferences that were deleted or changed since, or whose user no longer allows it."""
        return self._outdated("policy")

    def datasets_to_delete(self) -> list[str]:
        """The datasets that hold such preferences: deleted or changed since, or of a user who no longer allows it."""
        return self._outdated("dataset")

    def _outdated(self, kind: str) -> list[str]:
        query = (
            select(TrainingRow.policy)
            .join(WithdrawalRow, WithdrawalRow.pseudonym == TrainingRow.pseudonym)
            .where(TrainingRow.kind == kind, WithdrawalRow.number > TrainingRow.withdrawal)
            .distinct()
            .order_by(TrainingRow.policy)
        )
        with self._administer() as session:
            return list(session.scalars(query))

    def withdrawals(self) -> list[tuple[int, dict[str, int]]]:
        """When somebody's data were deleted, and how many rows of each table."""
        with self._administer() as session:
            rows = session.scalars(select(WithdrawalRow).order_by(WithdrawalRow.number))
            return [(row.created, dict(row.removed)) for row in rows]

    def trained_on(self, owner: Owner, kind: str) -> list[str]:
        """The names of what has the user's preferences: policies (`policy`), or datasets (`dataset`)."""
        mine = TrainingRow.pseudonym == pseudonym(owner)
        query = select(TrainingRow.policy).where(mine, TrainingRow.kind == kind)
        with self._administer() as session:
            return list(session.scalars(query.order_by(TrainingRow.policy)))


def withdraw_from_training(session: Session, owner: Owner, oldest: int, count: int) -> None:
    """Record that preferences are taken back, the oldest from the time `oldest`, if a policy was trained since."""
    trained = select(TrainingRow.policy).where(TrainingRow.pseudonym == pseudonym(owner), TrainingRow.created >= oldest)
    if session.scalar(trained.limit(1)) is not None:
        session.add(WithdrawalRow(pseudonym=pseudonym(owner), created=now(), removed={"preferences": count}))


def _note_training(session: Session, name: str, kind: str, people: Iterable[str], known: int) -> None:
    for one in dict.fromkeys(people):
        session.add(TrainingRow(policy=name, kind=kind, pseudonym=one, created=now(), withdrawal=known))


def _wait_for_writers(session: Session, owners: Sequence[Owner]) -> None:
    """Wait for transactions on these users, and let new ones wait for this one; see `Sessions._write`.

    In SQLite a transaction that writes is alone anyway.
    """
    ids = sorted(owner.id for owner in owners)  # two calls at once lock in one order
    for some in batches(ids):
        session.execute(select(UserRow.id).where(UserRow.id.in_(some)).order_by(UserRow.id).with_for_update())
