"""Preferences from and to what others use: tables on disk and in memory, JSONL for people, TRL's format."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from fspo.errors import DataError
from fspo.files import to_json, writing
from fspo.preferences.columns import NAMES, TableNames, as_messages, rename
from fspo.preferences.conflicts import OnContradiction, OnDuplicate, Place, settle
from fspo.preferences.dataset import (
    PreferenceDataset,
    by_id,
    messages,
    preference_row,
    user_row,
    write_parquet,
)
from fspo.preferences.published import Imported
from fspo.preferences.tables import SUFFIXES, find_tables, stem_of
from fspo.preferences.types import Person, Preference, Turn, User
from fspo.preferences.validation import (
    PREFERENCE_COLUMNS,
    TURNS,
    Faults,
    Problem,
    TableColumns,
    parse_preference,
    parse_turn,
    parse_user,
    row_problem,
    user_problem,
)
from fspo.preferences.wording import wording
from fspo.printing import counted, option

if TYPE_CHECKING:
    import datasets
    import pandas as pd

    Table: TypeAlias = pd.DataFrame | datasets.Dataset | Sequence[Mapping[str, Any]] | PreferenceDataset
    PersonLike: TypeAlias = Person | User | Table | Sequence[Preference] | None

__all__ = [
    "TRL_USER",
    "Reading",
    "from_table",
    "from_trl_rows",
    "numbered_rows",
    "person_of",
    "read_jsonl",
    "read_preferences",
    "read_trl",
    "read_users",
    "to_trl_rows",
    "users_path_of",
    "write_jsonl",
    "write_trl",
]

TRL_USER = {"user_description": "description", "user_group": "group", "user_traits": "traits"}
"""Column of TRL's format -> column of a user."""

_TEXTS = ("prompt", "chosen", "rejected")
_HH = re.compile(r"\n\n(?:Human|Assistant):|\s*Human:.*\n\nAssistant:\s*\Z", re.DOTALL)
"""Begins a text of Anthropic's HH data (arXiv 2204.05862); without the blank lines in front, a prompt ends so too."""
_HH_TURN = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")
_HH_ROLES = {"Human": "user", "Assistant": "assistant"}
_HH_NOTE = "Conversations are written as 'Human: ... Assistant: ...' and read as messages."

_SHOWN = 2
"""Ids that an error shows of each table."""

_Rows: TypeAlias = Iterable[tuple[int, dict[str, Any]]]


@dataclass(frozen=True)
class Reading:
    """How rows become preferences."""

    columns: Mapping[str, str] | None = None
    """fspo's name of a column -> the table's; names that people use are matched without it (see `columns.NAMES`)."""
    user: str | None = None
    """The user of all rows that name none."""
    on_duplicate: OnDuplicate = "fail"
    on_contradiction: OnContradiction = "fail"
    """What becomes of such rows; see `conflicts.settle`."""
    implicit_prompt: bool = False
    """Whether a row of text without a prompt has as its prompt the words that both responses begin with."""
    columns_can_be_named: bool = True
    """Whether errors may tell of `columns`."""
    user_can_be_named: bool = False
    """Whether errors may tell of `user`."""


def users_path_of(path: Path) -> Path:
    """Where the users of a JSONL file of preferences are: `views.jsonl` -> `views.users.jsonl`."""
    return path.with_name(f"{stem_of(path)}.users.jsonl")


def write_jsonl(dataset: PreferenceDataset, path: str | Path, users_path: str | Path | None = None) -> Path:
    """Write one preference a line to `path`, and one user a line to `users_path`.

    Args:
        dataset: what to write.
        path: file of the preferences: {"user", "prompt", "chosen", "rejected", "question", "source"}; a prompt
            that is a conversation is a list of messages.
        users_path: file of the users: {"id", "description", "group", "traits"}; `views.users.jsonl` beside
            `views.jsonl` by default.

    Raises:
        StorageError: the disk is full or the folder can't be written.
    """
    path = Path(path)
    users_path = Path(users_path) if users_path is not None else users_path_of(path)
    with writing(path) as preferences, writing(users_path) as users:
        _write_lines(users, map(_lean_user, dataset.users.values()))
        _write_lines(preferences, map(_lean_preference, dataset.preferences))
    return path


def read_preferences(
    source: str | Path, how: Reading | None = None, *, users: str | Path | None = None, part: str = ""
) -> Imported:
    """Read preferences from any table that people have: a file, a folder of shards, or `hub:owner/name`.

    The kind is recognised by the contents: CSV, TSV, JSON Lines, a JSON list (each also as .gz), Parquet, Arrow, a
    folder that `datasets.save_to_disk` wrote, or a hub's files. Columns that fspo does not know are kept in `source`.

    Args:
        source: the file or folder.
        how: names of columns, the default user, and what becomes of repeated and contradictory rows.
        users: table of the users: id, description, group, traits. By default `views.users.jsonl` (or another table of
            that name) beside `views.csv`, if there is one; else the users are those who occur in the preferences.
        part: only the files of this part, such as `train`; by default all.

    Returns:
        The dataset, and what was left out of it.

    Raises:
        DataError: naming file, row and column of what is wrong; all repeated and contradictory rows at once.
        StorageError: a file can't be read.
    """
    faults = Faults()
    tables = [(table.name, table.rows(faults)) for table in find_tables(source, part)]
    beside = Path(users) if users is not None else _users_beside(Path(source))
    return _collected(tables, how or Reading(), faults, None if beside is None else read_users(beside))


def read_jsonl(
    path: str | Path, users_path: str | Path | None = None, *, columns: Mapping[str, str] | None = None
) -> PreferenceDataset:
    """Read one preference a line, and the users beside it; see `read_preferences`.

    Raises:
        DataError: naming file, row (the line, from 1) and column of what is wrong.
        StorageError: a file can't be read.
    """
    return read_preferences(path, Reading(columns), users=users_path).dataset


def to_trl_rows(dataset: PreferenceDataset, *, conversational: bool = False) -> Iterator[dict[str, Any]]:
    """Yield the rows of TRL's preference format, as `DPOTrainer` takes them, with the user beside.

    Args:
        dataset: what to convert.
        conversational: prompt and responses as lists of messages {"role", "content"} instead of plain text; always so
            if any prompt is a conversation.

    Yields:
        {"prompt", "chosen", "rejected", "user", "user_description", "user_group", "user_traits", "question", "source"};
        traits and source are JSON text, so that all rows have the same columns.
    """
    conversational = conversational or has_conversations(dataset)
    for preference in dataset.preferences:
        user = dataset.users[preference.user]
        yield {
            **(_as_messages(preference) if conversational else _as_text(preference)),
            "user": user.id,
            "user_description": user.description,
            "user_group": user.group,
            "user_traits": to_json(dict(user.traits)),
            "question": preference.question,
            "source": to_json(dict(preference.source)),
        }


def has_conversations(dataset: PreferenceDataset) -> bool:
    """Whether any prompt is a conversation."""
    return any(row.turns for row in dataset.preferences)


def _as_text(row: Preference) -> dict[str, Any]:
    return {"prompt": row.prompt, "chosen": row.chosen, "rejected": row.rejected}


def _as_messages(row: Preference) -> dict[str, Any]:
    answers = {"chosen": row.chosen, "rejected": row.rejected}
    return {"prompt": messages(row.messages)} | {
        name: messages([Turn("assistant", text)]) for name, text in answers.items()
    }


def from_trl_rows(
    rows: Iterable[Mapping[str, Any]],
    *,
    columns: Mapping[str, str] | None = None,
    user: str | None = None,
    file: str | Path = "rows",
) -> PreferenceDataset:
    """Make a dataset of rows in TRL's preference format, such as a `datasets.Dataset`.

    Text may be plain or conversational, and the prompt may be implicit: what chosen and rejected both begin with. Where
    these two are whole conversations, that is the prompt, also beside a prompt that is text.

    `columns` has fspo's name of a column -> the rows' own, such as {"user": "annotator"}. `user` is that of all rows
    that name none; without it such a row is refused. `file` is what errors call the rows.

    Raises:
        DataError: naming file, row (from 1) and column of what is wrong.
    """
    faults, how = Faults(), Reading(columns, user, implicit_prompt=True)
    return _collected([(str(file), enumerate(map(dict, rows), start=1))], how, faults).dataset


def from_table(table: Table, *, file: str, user: str | None = None, how: Reading | None = None) -> PreferenceDataset:
    """Make a dataset of a table in memory: a pandas DataFrame, a `datasets.Dataset`, or any rows by column name.

    The columns are `user`, `prompt`, `chosen`, `rejected` and, if you like, `question`, with text or messages as in
    `from_trl_rows`; others are kept in `source`. A dataset is returned as it is. Rows without a user are those of
    `user`, or refused without one. Errors call the table `file`.

    Raises:
        DataError: naming table, row (from 1) and column of what is wrong.
    """
    if isinstance(table, PreferenceDataset):
        return table
    how = how or Reading(user=user, implicit_prompt=True, columns_can_be_named=False)
    faults = Faults()
    return _collected([(file, numbered_rows(table, file, faults))], how, faults).dataset


def numbered_rows(table: Any, file: str, faults: Faults) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (row number from 1, columns by name) of a table in memory; `faults` takes rows that are none.

    Raises:
        DataError: it is no table; `file` is what the error calls it.
    """
    records = table.to_dict("records") if hasattr(table, "iloc") and hasattr(table, "columns") else table
    if isinstance(records, str | bytes | Mapping) or not isinstance(records, Iterable):
        raise DataError(
            f"{file} must be a pandas DataFrame, a datasets.Dataset, a list of rows or a PreferenceDataset, not "
            f"{type(table).__name__}."
        )
    return _numbered(records, file, faults)


def person_of(given: PersonLike) -> Person:
    """What a model may see of a person, from any form in which people are given.

    Args:
        given: a `Person`; a table of one person's preferences (rows, `Preference` objects, a pandas DataFrame, a
            `datasets.Dataset`, or a `PreferenceDataset` of one user, whose description counts too), in which the column
            `user` may be missing; a `User`, of whom only the description is known; None for nobody.

    Raises:
        DataError: naming row and column of what is wrong, or the preferences are of several users.
    """
    if given is None or isinstance(given, Person):
        return given or Person()
    if isinstance(given, User):
        return Person(description=given.description)
    if isinstance(given, str):
        raise DataError(
            f"A person is given by their preferences, not by the id '{given}'; call person('{given}') of the dataset."
        )
    rows: Any = given
    if isinstance(given, list | tuple):
        rows = [preference_row(row) if isinstance(row, Preference) else row for row in given]
    own = from_table(rows, file="person", user="this person")
    if len(own.users) > 1:
        raise DataError(f"The preferences of one person are needed, and these are of {len(own.users)} users.")
    return Person(own.preferences, "".join(user.description for user in own.users.values()))


def write_trl(dataset: PreferenceDataset, path: str | Path, *, conversational: bool = False) -> Path:
    """Write TRL's preference format, as Parquet or JSONL by the suffix of `path`; TRL trains on it as it is.

    Raises:
        DataError: the suffix is another one.
        StorageError: the disk is full or the folder can't be written.
    """
    path = Path(path)
    conversational = conversational or has_conversations(dataset)
    rows = to_trl_rows(dataset, conversational=conversational)
    with writing(path) as temporary:
        if _suffix(path) == ".jsonl":
            _write_lines(temporary, rows)
        else:
            columns = ("prompt", "chosen", "rejected", "user", *TRL_USER, "question", "source")
            write_parquet(temporary, columns, rows, messages=columns[:3] if conversational else ())
    return path


def read_trl(
    path: str | Path, *, columns: Mapping[str, str] | None = None, user: str | None = None
) -> PreferenceDataset:
    """Read TRL's preference format from any table on disk; see `from_trl_rows` and `read_preferences`.

    Raises:
        DataError: naming file, row and column of what is wrong.
        StorageError: the file can't be read.
    """
    return read_preferences(path, Reading(columns, user, implicit_prompt=True)).dataset


def _users_beside(path: Path) -> Path | None:
    """The table of users beside a table of preferences, such as `views.users.jsonl` beside `views.csv.gz`."""
    names = (f"{stem_of(path)}.users{suffix}" for suffix in (".jsonl", *SUFFIXES))
    return next((path.with_name(name) for name in names if path.is_file() and path.with_name(name).is_file()), None)


def _numbered(records: Iterable[Any], file: str, faults: Faults) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, record in enumerate(records, start=1):
        with faults.row():
            if not isinstance(record, Mapping):
                raise DataError(f"{file}, row {number}: must have named columns, and is a {type(record).__name__}.")
            yield number, {str(name): _cell(str(name), value) for name, value in record.items()}


def _cell(column: str, value: Any) -> Any:
    """A cell without what tables make of it: arrays become lists, marks of a missing value nothing.

    What stands in a column of one's own, such as a date, becomes what JSON can hold.
    """
    if hasattr(value, "tolist"):
        value = value.tolist()
    if type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and math.isnan(value)):
        return None
    own = column not in PREFERENCE_COLUMNS and column not in TRL_USER
    return json.loads(json.dumps(value, default=str)) if own else value


@dataclass
class _Collector:
    """Preferences and users as their rows are read."""

    how: Reading
    faults: Faults
    known: dict[str, User] | None
    """The users, where a table of their own names them."""
    users: dict[str, User] = field(default_factory=dict)
    preferences: list[Preference] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    notes: dict[str, None] = field(default_factory=dict)
    strangers: dict[str, None] = field(default_factory=dict)
    """Ids in the rows that no known user has."""
    matching: bool = False
    """Whether a row is of a known user."""

    def check_match(self) -> None:
        """Say in one sentence that the rows and the table of users are of different people.

        Raises:
            DataError: there are several users in the rows, and none of them is known.
        """
        if self.matching or len(self.strangers) < 2 or not self.known:
            return
        raise DataError(
            f"None of the users in the preferences ({_shown(self.strangers)}) is in the table of users "
            f"({_shown(self.known)}); give the table that belongs to these preferences with {option('users', 'FILE')}."
        )

    def read(self, file: str, rows: _Rows) -> None:
        names = TableNames(file, self.how.columns)
        for number, row in rows:
            with self.faults.row(first=not names.found):
                columns = names.of(row, number)
                how = self.how
                table = TableColumns(tuple(row), NAMES, how.user_can_be_named, columns, how.columns_can_be_named)
                self.preferences.append(self._preference(rename(row, columns, file, number), table, file, number))
                self.places.append(Place(file, number))
        for columns in names.found:
            self._say(columns)

    def _say(self, columns: Mapping[str, str]) -> None:
        named = self.how.columns or {}
        matched = [f"{ours} from '{theirs}'" for ours, theirs in columns.items() if ours not in named]
        if matched:
            self.notes[f"Columns: {', '.join(matched)}; other names can be given with {option('column')}."] = None

    def _preference(self, row: dict[str, Any], table: TableColumns, file: str, number: int) -> Preference:
        """The preference of a row of `table`."""
        if self.how.user is not None and row.get("user") in (None, ""):
            row = {**row, "user": self.how.user}
        read = _with_hh_messages(row)
        if read != row:
            self.notes[_HH_NOTE] = None
        row = _divide_conversations(read, file, number, self.how.implicit_prompt)
        about = {}
        if self.known is None:
            about = {TRL_USER[name]: row.pop(name) for name in TRL_USER if name in row}
        preference = parse_preference(row, file=file, number=number, table=table)
        if self.known is None and preference.user.strip():
            self._meet(parse_user({"id": preference.user, **about}, file=file, number=number), file, number)
        users = self.users if self.known is None else self.known
        if preference.user in users:
            self.matching = True
        elif preference.user.strip():
            self.strangers[preference.user] = None
        problem = row_problem(preference, users, number, () if self.faults else users)
        if problem is not None:
            raise problem.error(file)
        return preference

    def _meet(self, user: User, file: str, number: int) -> None:
        """Take a user whom a row describes."""
        problem = user_problem(user, number)
        if problem is not None:
            columns = {"id": "user", **{ours: theirs for theirs, ours in TRL_USER.items()}}
            raise replace(problem, column=columns[problem.column]).error(file)
        if self.users.setdefault(user.id, user) != user:
            what = f"not the same as in an earlier row of user '{user.id}'."
            raise Problem(number, "user_description, user_group or user_traits", what).error(file)


def _collected(
    tables: Iterable[tuple[str, _Rows]], how: Reading, faults: Faults, users: dict[str, User] | None = None
) -> Imported:
    """The dataset of tables (name, numbered rows); without `users` these are those of the rows."""
    found = _Collector(how, faults, users)
    try:
        with faults.row():
            for file, rows in tables:
                found.read(file, rows)
        with faults.told_with():
            settled = settle(found.preferences, found.places, how.on_duplicate, how.on_contradiction)
    except DataError:
        found.check_match()
        raise
    people = users if users is not None else _in_use(found.users, settled.preferences)
    dataset = PreferenceDataset(people, settled.preferences)
    return Imported(dataset, settled.left_out, settled.first, (*found.notes, *settled.notes))


def _shown(ids: Collection[str]) -> str:
    return ", ".join(map(repr, islice(ids, _SHOWN))) + (", ..." if len(ids) > _SHOWN else "")


def _in_use(users: Mapping[str, User], preferences: Iterable[Preference]) -> dict[str, User]:
    used = {row.user for row in preferences}
    return {id: user for id, user in users.items() if id in used}


def read_users(path: Path) -> dict[str, User]:
    """Read a table of users (id, description, group, traits), or a folder of such tables, by their ids.

    Raises:
        DataError: naming file, row and column of what is wrong.
        StorageError: the file can't be read.
    """
    found: dict[str, User] = {}
    for table in find_tables(path):
        rows = list(table.rows())
        parsed = (parse_user(row, file=table.name, number=number) for number, row in rows)
        own = by_id(parsed, file=table.name, rows=[number for number, _ in rows])
        twice = next((id for id in own if id in found), None)
        if twice is not None:
            raise DataError(f"{table.name}: user '{twice}' is in another table of {path} too; delete one of them.")
        found |= own
    return found


def _lean_user(user: User) -> dict[str, Any]:
    return {name: value for name, value in user_row(user).items() if value or name == "id"}


def _lean_preference(preference: Preference) -> dict[str, Any]:
    row = preference_row(preference)
    if preference.turns:
        row["prompt"] = row.pop(TURNS)
    return {name: value for name, value in row.items() if value or PREFERENCE_COLUMNS[name]}


def _with_hh_messages(row: dict[str, Any]) -> dict[str, Any]:
    """The row with messages in the place of text of HH's form; a prompt may end with an empty turn of the assistant."""
    texts = {name: row[name] for name in _TEXTS if isinstance(row.get(name), str)}
    found = {name: _hh_messages(text) for name, text in texts.items() if _HH.match(text)}
    beside = {name: text.strip() for name, text in texts.items()} if "prompt" in found else {}
    return {**row, **beside, **found}


def _hh_messages(text: str) -> list[dict[str, str]]:
    _, *parts = _HH_TURN.split(text)
    said = [
        {"role": _HH_ROLES[who], "content": words.strip()} for who, words in zip(parts[::2], parts[1::2], strict=True)
    ]
    return said if said[-1]["content"] else said[:-1]


def _divide_conversations(row: dict[str, Any], file: str, number: int, implicit_prompt: bool) -> dict[str, Any]:
    """The row with its responses as text, and its prompt as text or as the messages of a conversation."""
    row = {name: as_messages(value) if name in _TEXTS else value for name, value in row.items()}
    chosen, rejected, prompt = row.get("chosen"), row.get("rejected"), row.get("prompt")
    if isinstance(chosen, list) and isinstance(rejected, list) and not isinstance(prompt, list):
        shared = _shared_start(chosen, rejected)
        answers_alone = isinstance(prompt, str) and len(chosen) == len(rejected) == 1
        if not shared and not answers_alone:
            what = "both conversations must begin with the question, and they begin with different messages."
            raise Problem(number, "chosen", what).error(file)
        if shared:
            # As TRL does it: whatever text stands beside them, the prompt is what both conversations begin with.
            row["prompt"], row["chosen"], row["rejected"] = chosen[:shared], chosen[shared:], rejected[shared:]
            said = [parse_turn(message, "chosen", file, number) for message in chosen[:shared]]
            last = said[-1].text if said[-1].role == "user" else ""
            if isinstance(prompt, str) and wording(prompt) != wording(last):
                row.setdefault("prompt_beside", prompt)  # kept in the source, like all columns of one's own
    elif isinstance(chosen, str) and isinstance(rejected, str) and implicit_prompt and _lacks_prompt(row):
        row.update(_divided(chosen, rejected))
    for column in ("chosen", "rejected"):
        if isinstance(row.get(column), list):
            row[column] = _only_answer(row[column], column, file, number)
    return row


def _shared_start(one: Sequence[Any], other: Sequence[Any]) -> int:
    """How many items both begin with; at least one is left of each, so that there is something to prefer."""
    count = 0
    while count < min(len(one), len(other)) - 1 and one[count] == other[count]:
        count += 1
    return count


def _lacks_prompt(row: Mapping[str, Any]) -> bool:
    """Whether the prompt of a row of text can only be what both responses begin with.

    A column of another name may be the prompt: such a row lacks a name for it, and is not divided.
    """
    return "prompt" not in row and row.keys() <= {*PREFERENCE_COLUMNS, *TRL_USER}


def _divided(chosen: str, rejected: str) -> dict[str, str]:
    """The words that two texts begin with as the prompt, and the rest of each; nothing where they begin differently."""
    shared = _shared_start(chosen, rejected)
    while shared and not chosen[shared - 1].isspace():
        shared -= 1
    if not chosen[:shared].strip():
        return {}
    return {
        "prompt": chosen[:shared].strip(),
        "chosen": chosen[shared:].lstrip(),
        "rejected": rejected[shared:].lstrip(),
    }


def _only_answer(answer: list[Any], column: str, file: str, number: int) -> str:
    if len(answer) != 1:
        what = f"has, after the prompt, {counted(len(answer), 'messages')}, and fspo takes one answer of the assistant."
        raise Problem(number, column, what).error(file)
    turn = parse_turn(answer[0], column, file, number)
    if turn.role != "assistant":
        raise Problem(number, column, f"must be a message of the assistant, not of the role {turn.role}.").error(file)
    return turn.text


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in (".jsonl", ".parquet"):
        raise DataError(f"{path} must end in .jsonl or .parquet, which says what is in it.")
    return suffix


def _write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as handle:
        for row in rows:
            handle.write(to_json(row) + "\n")
