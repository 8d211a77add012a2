"""Tables of answers that systems gave elsewhere: rows of several systems, rows of one each, alpaca_eval's files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from fspo.errors import ConfigError, DataError
from fspo.identity import digest
from fspo.preferences.columns import NAMES, TableNames, rename
from fspo.preferences.formats import TRL_USER, numbered_rows
from fspo.preferences.tables import find_tables, stem_of
from fspo.preferences.types import Turn, User, transcript
from fspo.preferences.validation import ColumnsError, Faults, Problem, missing_columns, parse_turns, parse_user
from fspo.printing import column_option, counted, nearest, option, suggestion

__all__ = ["SystemAnswers", "read_answers"]

Asked: TypeAlias = tuple[str, str]
"""A user's id, and the prompt."""
Place: TypeAlias = tuple[str, int]
"""A file, and the number of a row."""

_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "user": NAMES["user"],
    "prompt": NAMES["prompt"],
    "system": ("generator", "model", "method"),
    "answer": ("output", "response", "completion"),
    "answers": ("outputs", "responses", "completions"),
    "user_description": ("description", "persona"),
    "user_traits": ("traits",),
    "user_group": ("group",),
}
"""fspo's name of a column -> other names for it, in small letters with underscores."""
_ABOUT = ("dataset", "datasplit", "id", "index", "split", "source", "question")
"""Columns that say something of a row, and are no systems."""
_MOST_NAMED = 3


@dataclass(frozen=True)
class SystemAnswers:
    """What several systems answered to the same prompts.

    Attributes:
        answers: system -> (user, prompt) -> its answer, in the order of the rows.
        users: by id, with what the rows say of them.
        places: user -> file and row where the user occurs first.
        anybody: whether the rows name no user. Each prompt then counts as a user of its own.
        notes: what was left out or is odd, in sentences.
        conversations: the turns of the prompts that are conversations, by their transcripts.
    """

    answers: Mapping[str, Mapping[Asked, str]]
    users: Mapping[str, User]
    places: Mapping[str, Place]
    anybody: bool
    notes: tuple[str, ...]
    conversations: Mapping[str, tuple[Turn, ...]] = field(default_factory=dict)

    @property
    def asked(self) -> list[Asked]:
        """Every prompt of every user, in order."""
        return list(dict.fromkeys(asked for row in self.answers.values() for asked in row))

    def check_users(self, known: Iterable[str], where: str) -> None:
        """Check that the users are among the known ones.

        Raises:
            DataError: naming file, row and user of the first one who is not; `where` says where they were looked for.
        """
        known = set(known)
        unknown = [user for user in self.users if user not in known]
        if not unknown or self.anybody:
            return
        file, row = self.places[unknown[0]]
        close = nearest(unknown[0], known)
        hint = f"; did you mean '{close}'?" if close else "."
        more = f" In all, {counted(len(unknown), 'users')} are unknown." if len(unknown) > 1 else ""
        raise DataError(f"{file}, row {row}: {where} has no user '{unknown[0]}'{hint}{more}")


def read_answers(
    sources: Sequence[str | Path] | Any, *, columns: Mapping[str, str] | None = None, systems: Sequence[str] = ()
) -> SystemAnswers:
    """Read the answers of several systems from tables on disk, or from one in memory.

    A row holds a prompt and the answers of several systems: one column each, or a mapping in the column `answers`. Or
    it holds the `answer` of one `system`, as alpaca_eval's files do ({"instruction", "output", "generator"}); without
    a column for the system, the name of the file is the system's. The columns `user`, `user_description` and
    `user_traits` are optional. Other usual names of columns are recognised.

    Args:
        sources: files or folders, each of any kind that `find_tables` reads; or a DataFrame or a list of rows.
        columns: fspo's name of a column -> the table's.
        systems: only these.

    Raises:
        ConfigError: a source is no hub dataset's name, or `columns` names a column that fspo does not know.
        DataError: naming file and row of what is wrong, there are fewer than two systems, or a column that `columns`
            names is in no row.
        StorageError: a file can't be read.
    """
    unknown = next((name for name in columns or {} if name not in _COLUMNS), "")
    if unknown:
        raise ConfigError(f"A row of answers has no column '{unknown}' of its own{suggestion(unknown, _COLUMNS)}")
    reader, faults = _Reader(dict(columns or {}), tuple(systems)), Faults()
    with faults.row():
        for name, stem, rows in _tables(sources, faults):
            reader.read(name, stem, rows, faults)
    reader.check_columns()
    faults.tell()
    return reader.finished()


def _tables(sources: Any, faults: Faults) -> Iterator[tuple[str, str, Iterable[tuple[int, dict[str, Any]]]]]:
    on_disk = isinstance(sources, list | tuple) and all(isinstance(source, str | Path) for source in sources)
    if not on_disk:
        yield "answers", "answers", numbered_rows(sources, "answers", faults)
        return
    for source in sources:
        for table in find_tables(source):
            yield table.name, stem_of(table.path), table.rows(faults)


@dataclass
class _Reader:
    """Answers and users as their rows are read."""

    columns: Mapping[str, str]
    systems: tuple[str, ...]
    answers: dict[str, dict[Asked, str]] = field(default_factory=dict)
    users: dict[str, User] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)
    answer_places: dict[tuple[str, Asked], Place] = field(default_factory=dict)
    repeated: list[Place] = field(default_factory=list)
    empty: dict[str, list[Place]] = field(default_factory=dict)
    from_columns: dict[str, None] = field(default_factory=dict)
    """Systems whose answers have a column of their own."""
    left_out: dict[str, None] = field(default_factory=dict)
    """Systems that were not asked for."""
    named: Place | None = None
    """The first row that names a user."""
    unnamed: Place | None = None
    met: dict[str, None] = field(default_factory=dict)
    """The columns of all rows."""
    conversations: dict[str, tuple[Turn, ...]] = field(default_factory=dict)

    def read(self, file: str, stem: str, rows: Iterable[tuple[int, dict[str, Any]]], faults: Faults) -> None:
        """Read one table."""
        names = TableNames(file, self.columns, _COLUMNS, some=True)
        for number, row in rows:
            self.met |= dict.fromkeys(row)
            with faults.row(first=not names.found):
                self._row(rename(row, names.of(row, number), file, number), file, stem, number)

    def check_columns(self) -> None:
        """Check that the columns that were named are there.

        Raises:
            DataError: no row has one of them.
        """
        for ours, theirs in self.columns.items():
            if self.met and theirs not in self.met:
                raise DataError(
                    f"No row has a column '{theirs}', which is to be the column '{ours}'{suggestion(theirs, self.met)}"
                )

    def finished(self) -> SystemAnswers:
        """All that was read.

        Raises:
            DataError: there are fewer than two systems, or some rows name a user and some don't.
        """
        if self.named and self.unnamed:
            file, number = self.unnamed
            raise DataError(f"{file}, row {number}, column 'user': empty, but other rows name their user; fill it in.")
        unknown = next((name for name in self.systems if name not in self.answers), "")
        if unknown:
            known = [*self.answers, *self.left_out]
            raise DataError(f"There is no answer of the system '{unknown}'{suggestion(unknown, known)}")
        if len(self.answers) < 2:
            there = f"only '{next(iter(self.answers))}'" if self.answers else "none"
            raise DataError(
                f"A comparison needs the answers of at least two systems, and there is {there}; name the file of "
                "another one too."
            )
        notes, anybody = tuple(self._notes()), self.named is None
        return SystemAnswers(self.answers, self.users, self.places, anybody, notes, self.conversations)

    def _notes(self) -> Iterator[str]:
        if self.repeated:
            yield f"Repeated: {counted(len(self.repeated), 'rows')} ({_places(self.repeated)}); each counts once."
        for system, places in self.empty.items():
            yield (
                f"'{system}' gave {counted(len(places), 'answers')} without any text ({_places(places)}): an empty "
                "answer loses, or ties with another one below a floor."
            )
        if not self.systems:
            yield from self._numeric_columns()

    def _numeric_columns(self) -> Iterator[str]:
        """What says that a column of numbers, such as a score, is taken as a system's; nothing if all are numbers."""
        found = [name for name in self.from_columns if _are_numbers(self.answers.get(name, {}).values())]
        for name in found if len(found) < len(self.answers) else ():
            yield f"The column '{name}' has numbers only and is taken as a system; name the systems with {_naming()}."

    def _row(self, row: Mapping[str, Any], file: str, stem: str, number: int) -> None:
        turns = _prompt(row, file, number)
        prompt = transcript(turns)
        if len(turns) > 1:
            self.conversations[prompt] = turns
        user = self._user(row, prompt, file, number)
        found = self._answers(row, file, stem, number)
        for system, text in found.items():
            if self.systems and system not in self.systems:
                self.left_out[system] = None
                continue
            if text is None:
                continue
            key, place = (user, prompt), (file, number)
            own = self.answers.setdefault(system, {})
            if key not in own:
                own[key] = text
                self.answer_places[system, key] = place
                if not text.strip():
                    self.empty.setdefault(system, []).append(place)
            elif own[key] == text:
                self.repeated.append(place)
            else:
                before, line = self.answer_places[system, key]
                whose = f" of user '{user}'" if row.get("user") else ""
                what = (
                    f"another answer of '{system}' to a prompt{whose} that has one already ({before}, row {line}); "
                    "keep one of them."
                )
                raise Problem(number, "answer", what).error(file)

    def _user(self, row: Mapping[str, Any], prompt: str, file: str, number: int) -> str:
        """The id of the row's user, who is met here; without one, an id of the prompt's."""
        if row.get("user") in (None, ""):
            self.unnamed = self.unnamed or (file, number)
            id = f"prompt-{digest(prompt)}"
            self.users.setdefault(id, User(id))
        else:
            self.named = self.named or (file, number)
            about = {TRL_USER[name]: row[name] for name in TRL_USER if row.get(name) not in (None, "")}
            user = parse_user({"id": row["user"], **about}, file=file, number=number)
            id = user.id
            before = self.users.get(id)
            if about and before not in (None, User(id), user):
                what = f"not the same as in an earlier row of user '{id}'."
                raise Problem(number, "user_description, user_group or user_traits", what).error(file)
            if about or before is None:
                self.users[id] = user
        self.places.setdefault(id, (file, number))
        return id

    def _answers(self, row: Mapping[str, Any], file: str, stem: str, number: int) -> dict[str, str | None]:
        """System -> its answer in this row, None where there is none."""
        if "answers" in row:
            given = _mapping(row["answers"])
            if given is None:
                raise Problem(number, "answers", "must be an object of systems and their answers.").error(file)
            return {str(name): _text(text, f"answers.{name}", file, number) for name, text in given.items()}
        if "answer" in row:
            system = row.get("system") or stem
            return {str(system): _text(row["answer"], "answer", file, number)}
        own = [name for name in row if name not in _COLUMNS and name.lower() not in _ABOUT]
        names = list(dict.fromkeys([*own, *(name for name in self.systems if name in row)]))
        if self.systems:
            self.left_out |= dict.fromkeys(name for name in names if name not in self.systems)
            names = [name for name in names if name in self.systems]
            if not names:
                return {}
        if not names:
            what = (
                "there is no answer: a row needs a column for each system, `answers` (an object), or `answer` and "
                f"`system`; give another name with {column_option({'answer': 'NAME'})}."
            )
            raise ColumnsError(f"{file}, row {number}: {what}")
        self.from_columns |= dict.fromkeys(names)
        return {name: _text(row[name], name, file, number) for name in names}


def _prompt(row: Mapping[str, Any], file: str, number: int) -> tuple[Turn, ...]:
    if "prompt" not in row:
        named = column_option({"prompt": nearest("prompt", row) or "NAME"})
        what = f"the row has the columns: {', '.join(row) or 'none'}. Name yours with {named}."
        raise missing_columns(["prompt"], what, file, number)
    prompt = row["prompt"]
    if isinstance(prompt, list):
        return parse_turns(prompt, "prompt", file, number)
    if not isinstance(prompt, str) or not prompt.strip():
        what = "empty; fill it in or delete the row." if prompt is None or isinstance(prompt, str) else "must be text."
        raise Problem(number, "prompt", what).error(file)
    return (Turn("user", prompt),)


def _text(value: Any, column: str, file: str, number: int) -> str | None:
    if value is None or isinstance(value, str):
        return value
    what = f"must be the text of an answer, not {type(value).__name__}; name the systems with {_naming()}."
    raise Problem(number, column, what).error(file)


def _naming() -> str:
    return option("system", "NAME", python='systems=["NAME"]')


def _are_numbers(texts: Iterable[str]) -> bool:
    """Whether each text that is not empty is a number, and there is one."""
    written = [text for text in texts if text.strip()]
    try:
        return bool([float(text) for text in written])
    except ValueError:
        return False


def _mapping(value: Any) -> Mapping[str, Any] | None:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, Mapping) else None


def _places(places: Sequence[Place]) -> str:
    shown = ", ".join(f"{file}, row {number}" for file, number in places[:_MOST_NAMED])
    return shown + (", ..." if len(places) > _MOST_NAMED else "")
