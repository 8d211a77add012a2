"""A study in the store of people: a participant is a user of the store, and a personal link holds one of their keys.

So participants share what the store promises its users: every query is limited to its owner, and what is deleted is
also erased from the files of the database.
"""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

from sqlalchemy import exists, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from fspo.errors import ConfigError, FspoError
from fspo.identity import digest
from fspo.serving.ownership import Owner, delete_all, erasure_row, pseudonym
from fspo.serving.schema import (
    EventRow,
    KeyRow,
    ParticipantRow,
    Personal,
    StudyItemRow,
    StudyRow,
    WithdrawalRow,
)
from fspo.serving.store import Store, add_key, user_row
from fspo.study.config import StudyConfig
from fspo.study.drawing import DrawnItem
from fspo.study.flow import STAGES, Visit, has_lapsed, step_of
from fspo.study.records import Choice, Event, Item, Participant, StudyRecords
from fspo.study.registration import changed_settings

__all__ = [
    "AlreadyTakesPart",
    "NotAParticipant",
    "Outcome",
    "StudyFull",
    "StudyStore",
    "invitation_of",
    "now",
    "site_digest",
]

Outcome = Literal["saved", "repeated", "already", "not next", "unknown"]
"""What became of a click: saved; the same vote was there; another vote was there; not the next item; no such item."""
_KIND = "study."
_Pair = tuple[str, str]


class AlreadyTakesPart(FspoError):
    """The recruiting site's participant has begun the study before."""


class StudyFull(FspoError):
    """All places are taken."""


class NotAParticipant(FspoError):
    """The user does not take part in this study, or was deleted."""


class StudyStore(Store):
    """The store, with the studies in it."""

    # The study itself

    def register(self, study: str, registration: Mapping[str, Any]) -> bool:
        """Record a study before its first participant; later calls check that it is still the same.

        A study that has changed is recorded again as long as nobody has taken part. For the registration see
        `registration_of`.

        Weights that were not known at first, such as those of a model that was not on this machine yet, are recorded by
        the first call that knows them.

        Returns:
            Whether this call recorded it.

        Raises:
            ConfigError: somebody takes part in a study of this name with another design, other texts or other weights.
        """
        with self._administer(writes=True) as session:
            _lock(session, study)
            row = session.get(StudyRow, study)
            if row is None:
                row = StudyRow(name=study, fingerprint="", registration={}, created=now() // 1000)
                session.add(row)
            elif not _is_changed(session, row, registration):
                known = {arm: weights for arm, weights in row.registration["weights"].items() if weights is not None}
                row.registration = {**row.registration, "weights": {**registration["weights"], **known}}
                return False
            row.fingerprint, row.registration = registration["fingerprint"], dict(registration)
        return True

    def check_registered(self, study: str, registration: Mapping[str, Any]) -> bool:
        """Whether `register` would record a study; it records nothing.

        Raises:
            ConfigError: as of `register`.
        """
        with self._administer() as session:
            row = session.get(StudyRow, study)
            return row is None or _is_changed(session, row, registration)

    def registration(self, study: str) -> dict[str, Any] | None:
        """What was registered; None if the study has not begun."""
        with self._administer() as session:
            row = session.get(StudyRow, study)
            return None if row is None else dict(row.registration)

    def records(self, study: str) -> StudyRecords:
        """Everything that the analysis of a study reads, in the order in which people gave consent."""
        with self._administer() as session:
            people = session.scalars(
                select(ParticipantRow).where(ParticipantRow.study == study).order_by(ParticipantRow.number)
            ).all()
            ids = select(ParticipantRow.user_id).where(ParticipantRow.study == study)
            items = session.scalars(select(StudyItemRow).where(StudyItemRow.user_id.in_(ids))).all()
            events = session.scalars(
                select(EventRow)
                .where(EventRow.user_id.in_(ids), EventRow.kind.startswith(_KIND))
                .order_by(EventRow.number)
            ).all()
        place = {row.user_id: number for number, row in enumerate(people)}
        in_order = sorted(items, key=lambda row: (place[row.user_id], *_order(row)))
        return StudyRecords(
            [_participant(row) for row in people],
            [_item(row) for row in in_order],
            [_event_record(row) for row in events],
        )

    # Taking part

    def enter(
        self,
        config: StudyConfig,
        language: str,
        site: Mapping[str, str],
        invitation: str,
        draw: Callable[[Mapping[_Pair, int]], Sequence[DrawnItem]],
    ) -> str:
        """Add a participant who has given consent, with all items, and return the key of their personal link.

        `site` is what the recruiting site has passed, empty without one. Nobody takes part twice with the same
        invitation; see `invitation_of`. `draw` gets how many participants have each pair of arms.

        Raises:
            AlreadyTakesPart: somebody has begun with this invitation before.
            StudyFull: all places are taken.
        """
        user = user_row(f"study {config.name} {secrets.token_hex(8)}")
        owner = Owner(user.id)
        try:
            with self._administer(writes=True) as session:
                _lock(session, config.name)
                # First: a second click for the last place finds the study full.
                if _invited(session, invitation) is not None:
                    raise AlreadyTakesPart("This participant has begun the study already.")
                places = _places(session, config)
                if len(places) >= config.participants:
                    raise StudyFull("All places of the study are taken.")
                session.add(user)
                session.flush()  # before the rows that name it
                key = add_key(session, owner).key
                self._add(session, owner, config, language, dict(site), invitation, draw(_arms(session, places)))
        except IntegrityError:  # another study's server has used the invitation just now
            raise AlreadyTakesPart("This participant has begun the study already.") from None
        return key

    def participant(self, key: str) -> Owner | None:
        """The owner of a personal link's key; None if it belongs to nobody who takes part in a study."""
        return self._owner_of(key, KeyRow.user_id.in_(select(ParticipantRow.user_id)))

    def is_full(self, config: StudyConfig) -> bool:
        """Whether all places are taken."""
        with self._administer() as session:
            return len(_places(session, config)) >= config.participants

    def invited(self, invitation: str) -> tuple[Owner, dict[str, str]] | None:
        """The participant with this invitation and what the site passed for them; see `invitation_of`."""
        with self._administer() as session:
            row = _invited(session, invitation)
            return None if row is None else (Owner(row.user_id), dict(row.site))

    def visit(self, owner: Owner, study: str) -> Visit:
        """What is stored of a participant.

        Raises:
            NotAParticipant: the user does not take part in this study.
        """
        with self._read(owner) as session:
            return _visit(session, study)

    def take_place_again(self, owner: Owner, config: StudyConfig) -> bool:
        """Let a participant whose place has lapsed continue; False where all places, or those of a quota, are taken."""
        with self._administer(writes=True) as session:
            _lock(session, config.name)
            row = session.scalar(select(ParticipantRow).where(ParticipantRow.user_id == owner.id))
            if row is None:
                return False
            others = [other for other in _places(session, config) if other.user_id != owner.id]
            if len(others) >= config.participants or _over_quota(config, row.about or {}, others):
                return False
            row.seen = now()
            return True

    def answer_about(self, owner: Owner, config: StudyConfig, answers: Mapping[str, str]) -> bool:
        """Save what a participant says about themselves; the first time counts.

        Returns:
            False where a quota is full: the study is over for them, and nothing of the answers is saved.

        Raises:
            NotAParticipant: they were deleted.
        """
        with self._administer(writes=True) as session:
            _lock(session, config.name)
            at = now()
            row = session.scalar(select(ParticipantRow).where(ParticipantRow.user_id == owner.id))
            if row is None:
                raise NotAParticipant("This participant does not exist any more.")
            if row.about is not None or row.closed:
                return not row.closed
            others = [other for other in _places(session, config) if other.user_id != owner.id]
            row.seen = at
            if _over_quota(config, answers, others):
                row.closed, row.about = "quota", {}
                return False
            row.about = dict(answers)
            session.add(_event(owner, "answered", at, "", {"questions": sorted(answers)}))
            return True

    def show(self, owner: Owner, config: StudyConfig, item: str) -> None:
        """Note that an item is being sent to its participant, unless their place has lapsed meanwhile."""
        with self._write(owner) as session:
            at, visit = now(), _visit(session, config.name)
            row = _named(visit, item)
            if row is not None and not has_lapsed(visit.participant, config, at):
                row.shown = row.shown or at
                visit.participant.seen = at
                session.add(_event(owner, "shown", at, item))

    def vote(self, owner: Owner, config: StudyConfig, item: str, choice: Choice) -> Outcome:
        """Save a vote on the next item; a vote that is there stays, and another one for the item is an event."""
        with self._write(owner) as session:
            at, visit = now(), _visit(session, config.name)
            row = _named(visit, item)
            if row is None:
                return "unknown"
            if row.choice:
                session.add(_event(owner, "repeated", at, item, {"choice": choice}))
                return "repeated" if row.choice == choice else "already"
            step = step_of(visit, config, at)
            if step.item is None or step.item.id != item or step.kind == "waiting":
                session.add(_event(owner, "repeated", at, item, {"choice": choice}))
                return "not next"
            row.choice, row.voted, visit.participant.seen = choice, at, at
            session.add(_event(owner, "voted", at, item, {"choice": choice}))
        return "saved"

    def undo(self, owner: Owner, config: StudyConfig, item: str) -> bool:
        """Take the last vote back.

        Returns:
            Whether the item is the next one to vote on now; False where its vote is not the last one, or answers were
            written with it.
        """
        with self._write(owner) as session:
            at, visit = now(), _visit(session, config.name)
            step = step_of(visit, config, at)
            row = step.undo
            if row is None or row.id != item:
                return step.item is not None and step.item.id == item  # the first of two clicks has taken it back
            session.add(_event(owner, "undone", at, item, {"choice": row.choice}))
            row.choice, row.voted, visit.participant.seen = "", 0, at
        return True

    def begin_answers(self, owner: Owner, config: StudyConfig) -> bool:
        """Fix the labels: from now on answers are written with them. False if it is not time for that."""
        return self._pass(owner, config, "between", "begun")

    def finish(self, owner: Owner, config: StudyConfig) -> bool:
        """End the study for a participant who has voted on everything; False where something is left."""
        return self._pass(owner, config, "last", "finished")

    def save_answers(
        self, owner: Owner, study: str, item: str, first: str, second: str, *, matched: bool, shots: int
    ) -> bool:
        """Save both answers of a comparison, and how many labels they were written with.

        Returns:
            False where the comparison is gone, or has answers.
        """
        at = now()
        with self._write(owner) as session:
            row = _named(_visit(session, study), item)
            if row is None or row.first:
                return False
            row.first, row.second, row.matched, row.shots = first, second, matched, shots
            session.add(_event(owner, "written", at, item))
        return True

    def note(self, owner: Owner, kind: str, item: str = "", **detail: Any) -> None:
        """Add an event, unless the participant has withdrawn; the detail holds no content."""
        with self._write(owner) as session:
            if session.scalar(select(ParticipantRow.withdrawn)):
                return
            session.add(_event(owner, kind, now(), item, detail))

    # One's own data

    def own_data(self, owner: Owner, study: str) -> dict[str, Any]:
        """Everything that is stored of a participant, without what tells the arms apart, as the study's name may."""
        visit = self.visit(owner, study)
        row = visit.participant
        with self._read(owner) as session:
            events = session.scalars(select(EventRow).order_by(EventRow.number)).all()
        hidden = {"first_arm", "second_arm", "participant", "right", "shots", "matched"}
        return {
            "participant": {**_participant(row).model_dump(exclude={"study"}), "site": dict(row.site)},
            "items": [_item(item).model_dump(exclude=hidden) for item in visit.items],
            "events": [_event_record(event).model_dump(exclude={"participant"}) for event in events],
        }

    def withdraw_votes(self, owner: Owner, study: str) -> bool:
        """Delete everything of a participant but that they took part.

        What stays: when they agreed to which text, finished and withdrew, their keys, and digests of what the
        recruiting site has passed, so that they are recognised and not invited again.

        The store records that it happened, as for users who delete everything, so that datasets with these votes, and
        policies trained on them, are named as outdated.

        Returns:
            Whether the files of the database hold nothing of it any more; see `Store.erased`.
        """
        at = now()
        with self._write(owner) as session:
            row = _visit(session, study).participant
            tables: tuple[type[Personal], ...] = (StudyItemRow, EventRow)
            removed = {table.__tablename__: delete_all(session, table) for table in tables}
            row.about, row.begun, row.seen, row.language = {}, 0, 0, ""
            row.site = site_digest(row.site)
            row.withdrawn = row.withdrawn or at
            noted = WithdrawalRow(pseudonym=pseudonym(owner), created=at // 1000, removed=removed)
            session.add_all([noted, _event(owner, "withdrawn", at), erasure_row()])
        return self._erase()

    def _pass(self, owner: Owner, config: StudyConfig, kind: str, mark: str) -> bool:
        with self._write(owner) as session:
            at, visit = now(), _visit(session, config.name)
            if step_of(visit, config, at).kind != kind:
                return False
            setattr(visit.participant, mark, at)
            visit.participant.seen = at
            session.add(_event(owner, mark, at))
        return True

    def _add(
        self,
        session: Session,
        owner: Owner,
        config: StudyConfig,
        language: str,
        site: dict[str, str],
        invitation: str,
        items: Sequence[DrawnItem],
    ) -> None:
        at = now()
        participant = ParticipantRow(
            user_id=owner.id,
            created=at // 1000,
            study=config.name,
            language=language,
            consent=config.consent.version,
            consented=at,
            seen=at,
            about=None,
            begun=0,
            finished=0,
            withdrawn=0,
            closed="",
            site=site,
            invitation=invitation,
        )
        session.add_all([participant, _event(owner, "consented", at)])
        positions: Counter[str] = Counter()
        for item in items:
            positions[item.stage] += 1
            session.add(_row(owner, item, positions[item.stage], at))


def _is_changed(session: Session, row: StudyRow, registration: Mapping[str, Any]) -> bool:
    """Whether a registered study has changed.

    Raises:
        ConfigError: it has, and somebody takes part; names what has changed.
    """
    changed = _changes(row.registration, registration)
    if changed and session.scalar(select(exists().where(ParticipantRow.study == row.name))):
        raise ConfigError(
            f"The study '{row.name}' has begun, and differs from its registration in: {', '.join(changed)}. "
            "Undo the change, or give the study another name."
        )
    return bool(changed)


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What differs in two registrations, in words."""
    changed = changed_settings(before["design"], after["design"])
    if before["texts"] != after["texts"]:
        changed.append("the texts of its items")
    for arm, weights in after["weights"].items():
        if weights is not None and before["weights"].get(arm, weights) not in (None, weights):
            changed.append(f"the weights of the arm '{arm}'")
    return changed


def invitation_of(study: str, participant: str) -> str:
    """What the store finds a recruiting site's participant by."""
    return digest([study, participant], 64)


def _invited(session: Session, invitation: str) -> ParticipantRow | None:
    return session.scalar(select(ParticipantRow).where(ParticipantRow.invitation == invitation))


def site_digest(site: Mapping[str, str]) -> dict[str, str]:
    """What the store keeps of a recruiting site's parameters after a withdrawal; empty without any."""
    return {"digest": digest(dict(site), 64)} if site.keys() - {"digest"} else dict(site)


def _lock(session: Session, study: str) -> None:
    """Wait for other changes of the study's places; SQLite has one writer anyway."""
    session.scalar(select(StudyRow.name).where(StudyRow.name == study).with_for_update())


def _places(session: Session, config: StudyConfig) -> list[ParticipantRow]:
    """The participants who have voted on everything, and those who were here lately."""
    at = now()
    rows = session.scalars(select(ParticipantRow).where(ParticipantRow.study == config.name)).all()
    incomplete = set(session.scalars(select(StudyItemRow.user_id).where(StudyItemRow.choice == "").distinct()))
    taking_part = [row for row in rows if not row.withdrawn and not row.closed]
    return [row for row in taking_part if row.user_id not in incomplete or not has_lapsed(row, config, at)]


def _arms(session: Session, places: Sequence[ParticipantRow]) -> Counter[_Pair]:
    """Pair of arms -> how many of the participants compare it."""
    query = select(StudyItemRow.user_id, StudyItemRow.first_arm, StudyItemRow.second_arm).where(
        StudyItemRow.first_arm != "", StudyItemRow.user_id.in_([row.user_id for row in places])
    )
    found = {(user, *pair) for user, *arms in session.execute(query) for pair in (arms, arms[::-1])}
    return Counter((first, second) for _, first, second in found)


def _over_quota(config: StudyConfig, answers: Mapping[str, str], others: Sequence[ParticipantRow]) -> bool:
    for question in config.about:
        most = question.quotas.get(answers.get(question.id, ""))
        same = sum((row.about or {}).get(question.id) == answers.get(question.id) for row in others)
        if most is not None and same >= most:
            return True
    return False


def _visit(session: Session, study: str) -> Visit:
    """What the owner of the session has in a study."""
    row = session.scalar(select(ParticipantRow).where(ParticipantRow.study == study))
    if row is None:
        raise NotAParticipant("This link belongs to no participant of the study.")
    return Visit(row, sorted(session.scalars(select(StudyItemRow)), key=_order))


def _order(row: StudyItemRow) -> tuple[int, int]:
    """The order in which a participant sees the items."""
    return STAGES.index(row.stage), row.position


def _named(visit: Visit, item: str) -> StudyItemRow | None:
    return next((row for row in visit.items if row.id == item), None)


def _row(owner: Owner, item: DrawnItem, position: int, at: int) -> StudyItemRow:
    drawn = {**asdict(item), "correct": item.correct or ""}
    own = {"id": f"item_{secrets.token_hex(12)}", "user_id": owner.id, "created": at // 1000, "position": position}
    return StudyItemRow(**drawn, **own, matched=True, choice="", shown=0, voted=0)


def _in_records(row: Personal) -> str:
    """What a participant is called in records, reports and datasets: never the id that leads to them in the store."""
    return pseudonym(Owner(row.user_id))


def _participant(row: ParticipantRow) -> Participant:
    return Participant(
        id=_in_records(row),
        study=row.study,
        language=row.language,
        consent=row.consent,
        consented=row.consented,
        finished=row.finished or None,
        withdrawn=row.withdrawn or None,
        closed="quota" if row.closed else "",
        recruited=bool(row.site),
        answers=row.about or {},
    )


def _item(row: StudyItemRow) -> Item:
    same = {name: getattr(row, name) for name in Item.model_fields if name not in ("participant", "right")}
    empty = {name: same[name] or None for name in ("choice", "shown", "voted")}
    return Item.model_validate({**same, **empty, "participant": _in_records(row), "right": row.correct or None})


def _event(owner: Owner, kind: str, at: int, item: str = "", detail: Mapping[str, Any] | None = None) -> EventRow:
    whole = {"at": at, "item": item, **(detail or {})}
    return EventRow(user_id=owner.id, created=at // 1000, kind=_KIND + kind, detail=whole)


def _event_record(row: EventRow) -> Event:
    detail = dict(row.detail)
    at, item = int(detail.pop("at", row.created * 1000)), str(detail.pop("item", ""))
    return Event(participant=_in_records(row), at=at, kind=row.kind.removeprefix(_KIND), item=item, detail=detail)


def now() -> int:
    """Milliseconds since 1970, UTC."""
    return time.time_ns() // 1_000_000
