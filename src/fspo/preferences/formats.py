"""Preferences from and to what others use: tables in memory, JSONL for people, and TRL's preference format."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from fspo.errors import DataError, StorageError
from fspo.files import to_json, writing
from fspo.preferences.dataset import (
    PreferenceDataset,
    by_id,
    iterate_parquet,
    preference_row,
    user_row,
    write_parquet,
)
from fspo.preferences.types import Person, Preference, User
from fspo.preferences.validation import PREFERENCE_COLUMNS, Faults, Problem, parse_preference, parse_user, user_problem
from fspo.preferences.wording import wording

if TYPE_CHECKING:
    import datasets
    import pandas as pd

    Table: TypeAlias = pd.DataFrame | datasets.Dataset | Sequence[Mapping[str, Any]] | PreferenceDataset
    PersonLike: TypeAlias = Person | User | Table | Sequence[Preference] | None

__all__ = [
    "TRL_USER",
    "from_table",
    "from_trl_rows",
    "numbered_rows",
    "person_of",
    "read_jsonl",
    "read_trl",
    "to_trl_rows",
    "users_path_of",
    "write_jsonl",
    "write_trl",
]

_Numbered = Iterable[tuple[int, dict[str, Any]]]

TRL_USER = {"user_description": "description", "user_group": "group", "user_traits": "traits"}
"""Column of TRL's format -> column of a user."""


def users_path_of(path: Path) -> Path:
    """Where the users of a JSONL file of preferences are: `views.jsonl` -> `views.users.jsonl`."""
    return path.with_name(f"{path.stem}.users.jsonl")


def write_jsonl(dataset: PreferenceDataset, path: str | Path, users_path: str | Path | None = None) -> Path:
    """Write one preference a line to `path`, and one user a line to `users_path`.

    Args:
        dataset: what to write.
        path: file of the preferences: {"user", "prompt", "chosen", "rejected", "question", "source"}.
        users_path: file of the users: {"id", "description", "group", "traits"}; `views.users.jsonl` beside
            `views.jsonl` by default.

    Returns:
        The path of the preferences.

    Raises:
        StorageError: the disk is full or the folder can't be written.
    """
    path = Path(path)
    users_path = Path(users_path) if users_path is not None else users_path_of(path)
    with writing(path) as preferences, writing(users_path) as users:
        _write_lines(users, map(_lean_user, dataset.users.values()))
        _write_lines(preferences, map(_lean_preference, dataset.preferences))
    return path


def read_jsonl(
    path: str | Path, users_path: str | Path | None = None, *, columns: Mapping[str, str] | None = None
) -> PreferenceDataset:
    """Read one preference a line, and the users beside it.

    Where there is no file of users, the users are those who occur in the preferences.

    Args:
        path: file of the preferences; columns of one's own are kept in `source`.
        users_path: file of the users; `views.users.jsonl` beside `views.jsonl` by default, if there is one.
        columns: fspo's name of a column -> the file's, such as {"user": "annotator"}.

    Raises:
        DataError: naming file, row (the line, from 1) and column of what is wrong.
        StorageError: a file can't be read.
    """
    path = Path(path)
    numbers: list[int] = []
    preferences: list[Preference] = []
    faults = Faults()
    with faults.row():
        for number, row in _read_lines(path, faults):
            with faults.row():
                row = _renamed(row, columns, path, number)
                preferences.append(parse_preference(row, file=str(path), number=number, columns_can_be_named=True))
                numbers.append(number)
    beside = Path(users_path) if users_path is not None else users_path_of(path)
    if users_path is not None or beside.exists():
        users = _read_users(beside)
        faults.tell(users, preferences, numbers)
    else:
        users = {row.user: User(row.user) for row in preferences if row.user.strip()}
        faults.tell(users, preferences, numbers)
        for number, preference in zip(numbers, preferences, strict=True):
            if preference.user in users:
                _check_user(users[preference.user], {"id": "user"}, path, number)
    return PreferenceDataset(users, preferences, file=str(path), rows=numbers)


def to_trl_rows(dataset: PreferenceDataset, *, conversational: bool = False) -> Iterator[dict[str, Any]]:
    """Yield the rows of TRL's preference format, as `DPOTrainer` takes them, with the user beside.

    Args:
        dataset: what to convert.
        conversational: prompt and responses as lists of messages {"role", "content"} instead of plain text.

    Yields:
        {"prompt", "chosen", "rejected", "user", "user_description", "user_group", "user_traits", "question", "source"};
        traits and source are JSON text, so that all rows have the same columns.
    """
    for preference in dataset.preferences:
        user = dataset.users[preference.user]
        texts = {"prompt": preference.prompt, "chosen": preference.chosen, "rejected": preference.rejected}
        yield {
            **({name: _message(name, text) for name, text in texts.items()} if conversational else texts),
            "user": user.id,
            "user_description": user.description,
            "user_group": user.group,
            "user_traits": to_json(dict(user.traits)),
            "question": preference.question,
            "source": to_json(dict(preference.source)),
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
    these two are whole conversations, that is the prompt, also beside a prompt that is text. A prompt has to be one
    user message, because that is what fspo renders.

    Args:
        rows: the rows.
        columns: fspo's name of a column -> the rows' own, such as {"user": "annotator"}.
        user: the user of all rows that name none; without it a row without a user is refused.
        file: what to call the rows in errors.

    Raises:
        DataError: naming file, row (from 1) and column of what is wrong.
    """
    return _from_trl(enumerate(map(dict, rows), start=1), Path(file), columns, user, Faults())


def from_table(table: Table, *, file: str, user: str | None = None) -> PreferenceDataset:
    """Make a dataset of a table in memory: a pandas DataFrame, a `datasets.Dataset`, or any rows by column name.

    The columns are `user`, `prompt`, `chosen`, `rejected` and, if you like, `question`, with text or messages as in
    `from_trl_rows`; others are kept in `source`. A dataset is returned as it is.

    Args:
        table: the rows.
        file: what errors call the table.
        user: the user of all rows that name none; without it a row without a user is refused.

    Raises:
        DataError: naming table, row (from 1) and column of what is wrong.
    """
    if isinstance(table, PreferenceDataset):
        return table
    records: Any = table
    if hasattr(table, "iloc") and hasattr(table, "columns"):
        records = records.to_dict("records")
    if isinstance(records, str | bytes | Mapping) or not isinstance(records, Iterable):
        raise DataError(
            f"{file} must be a pandas DataFrame, a datasets.Dataset, a list of rows or a PreferenceDataset, not "
            f"{type(table).__name__}."
        )
    faults = Faults()
    return _from_trl(_numbered(records, file, faults), Path(file), None, user, faults, columns_can_be_named=False)


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
    """Read TRL's preference format from Parquet or JSONL; see `from_trl_rows`.

    Raises:
        DataError: naming file, row (the line, from 1) and column of what is wrong.
        StorageError: the file can't be read.
    """
    path, faults = Path(path), Faults()
    return _from_trl(numbered_rows(path, faults), path, columns, user, faults)


def numbered_rows(path: str | Path, faults: Faults | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (number from 1, columns by name) of a JSONL or Parquet file, whatever the columns are.

    Args:
        path: the file.
        faults: takes the rows that are no objects, which are passed over; without it the first is an error.

    Raises:
        DataError: the suffix is another one, or a row is no object.
        StorageError: the file can't be read.
    """
    path = Path(path)
    return _read_lines(path, faults) if _suffix(path) == ".jsonl" else iterate_parquet(path)


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


def _from_trl(
    rows: _Numbered,
    path: Path,
    columns: Mapping[str, str] | None,
    default_user: str | None,
    faults: Faults,
    *,
    columns_can_be_named: bool = True,
) -> PreferenceDataset:
    users: dict[str, User] = {}
    preferences: list[Preference] = []
    numbers: list[int] = []
    with faults.row():
        for number, row in rows:
            with faults.row():
                row = _renamed(row, columns, path, number)
                if default_user is not None and row.get("user") in (None, ""):
                    row = {**row, "user": default_user}
                preferences.append(_trl_preference(row, number, path, users, columns_can_be_named))
                numbers.append(number)
    faults.tell(users, preferences, numbers)
    return PreferenceDataset(users, preferences, file=str(path), rows=numbers)


def _trl_preference(
    row: dict[str, Any], number: int, path: Path, users: dict[str, User], columns_can_be_named: bool
) -> Preference:
    """The preference of a row, whose user joins `users`."""
    row = _plain(row, path, number)
    about = {TRL_USER[name]: row.pop(name) for name in TRL_USER if name in row}
    preference = parse_preference(row, file=str(path), number=number, columns_can_be_named=columns_can_be_named)
    if preference.user.strip():
        person = parse_user({"id": preference.user, **about}, file=str(path), number=number)
        _check_user(person, {"id": "user", **{ours: theirs for theirs, ours in TRL_USER.items()}}, path, number)
        if users.setdefault(person.id, person) != person:
            what = f"not the same as in an earlier row of user '{person.id}'."
            raise Problem(number, "user_description, user_group or user_traits", what).error(str(path))
    return preference


def _read_users(path: Path) -> dict[str, User]:
    lines = list(_read_lines(path))
    users = (parse_user(row, file=str(path), number=number) for number, row in lines)
    return by_id(users, file=str(path), rows=[number for number, _ in lines])


def _check_user(user: User, columns: Mapping[str, str], path: Path, number: int) -> None:
    """Refuse a user who can't be written, by the column of the preferences that tells of the user."""
    problem = user_problem(user, number)
    if problem is not None:
        raise replace(problem, column=columns[problem.column]).error(str(path))


def _lean_user(user: User) -> dict[str, Any]:
    return {name: value for name, value in user_row(user).items() if value or name == "id"}


def _lean_preference(preference: Preference) -> dict[str, Any]:
    row = preference_row(preference)
    return {name: value for name, value in row.items() if value or PREFERENCE_COLUMNS[name]}


def _message(column: str, text: str) -> list[dict[str, str]]:
    return [{"role": "user" if column == "prompt" else "assistant", "content": text}]


def _plain(row: dict[str, Any], path: Path, number: int) -> dict[str, Any]:
    """The row with lists of messages, and an implicit prompt, turned into text."""
    row = dict(row)
    chosen, rejected, prompt = row.get("chosen"), row.get("rejected"), row.get("prompt")
    if isinstance(chosen, list) and isinstance(rejected, list) and not isinstance(prompt, list):
        shared = _shared_start(chosen, rejected)
        answers_alone = isinstance(prompt, str) and len(chosen) == len(rejected) == 1
        if not shared and not answers_alone:
            what = "both conversations must begin with the question, and they begin with different messages."
            raise Problem(number, "chosen", what).error(str(path))
        if shared:
            # As TRL does it: whatever text stands beside them, the prompt is what both conversations begin with.
            row["prompt"], row["chosen"], row["rejected"] = chosen[:shared], chosen[shared:], rejected[shared:]
    elif isinstance(chosen, str) and isinstance(rejected, str) and _is_implicit(row):
        row.update(_divided(chosen, rejected))
    for column, role in (("prompt", "user"), ("chosen", "assistant"), ("rejected", "assistant")):
        if isinstance(row.get(column), list):
            row[column] = _only_message(row[column], role, column, path, number)
    if isinstance(prompt, str) and isinstance(row["prompt"], str) and wording(prompt) != wording(row["prompt"]):
        row.setdefault("prompt_beside", prompt)  # kept in the source, like all columns of one's own
    return row


def _shared_start(one: Sequence[Any], other: Sequence[Any]) -> int:
    """How many items both begin with; at least one is left of each, so that there is something to prefer."""
    count = 0
    while count < min(len(one), len(other)) - 1 and one[count] == other[count]:
        count += 1
    return count


def _is_implicit(row: Mapping[str, Any]) -> bool:
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


def _only_message(messages: list[Any], role: str, column: str, path: Path, number: int) -> str:
    if len(messages) != 1:
        count = f"{len(messages)} message{'' if len(messages) == 1 else 's'}"
        where = "the prompt has" if column == "prompt" else f"{column} has, after the prompt,"
        what = f"{where} {count}, and fspo takes one {role} message, without system prompt or earlier turns."
        raise Problem(number, column, what).error(str(path))
    message = messages[0]
    content = message.get("content") if isinstance(message, Mapping) else None
    if not isinstance(content, str) or message.get("role") != role:
        raise Problem(number, column, f'must be {{"role": "{role}", "content": text}}.').error(str(path))
    return content


def _renamed(row: dict[str, Any], columns: Mapping[str, str] | None, path: Path, number: int) -> dict[str, Any]:
    if not columns:
        return row
    for theirs in columns.values():
        if theirs not in row:
            there = ", ".join(row) or "none"
            raise Problem(number, theirs, f"missing; the row has the columns: {there}.").error(str(path))
    kept = {name: value for name, value in row.items() if name not in columns.values()}
    for ours, theirs in columns.items():
        if ours in kept:
            what = (
                f"the row has '{theirs}' too, and only one of them can be '{ours}'; rename the other, or leave it out."
            )
            raise Problem(number, ours, what).error(str(path))
    return kept | {ours: row[theirs] for ours, theirs in columns.items()}


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in (".jsonl", ".parquet"):
        raise DataError(f"{path} must end in .jsonl or .parquet, which says what is in it.")
    return suffix


def _write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as handle:
        for row in rows:
            handle.write(to_json(row) + "\n")


def _read_lines(path: Path, faults: Faults | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number from 1, object); blank lines are passed over, and bad ones where `faults` takes them.

    Unlike the logs that `fspo.files.read_jsonl` reads, data of one's own must be whole: a bad line is an error.
    """
    try:
        with path.open("rb") as handle:
            for number, line in enumerate(handle, start=1):
                if line.strip():
                    with nullcontext() if faults is None else faults.row():
                        yield number, _object(line, path, number)
    except OSError as error:
        raise StorageError(f"{path} can't be read ({error.strerror or error}).") from error


def _object(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        value = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
    except RecursionError as error:
        raise DataError(f"{path}, row {number}: too many lists and objects inside one another.") from error
    except ValueError as error:
        raise DataError(f"{path}, row {number}: not a line of JSON in UTF-8 ({error}).") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}, row {number}: must be an object with named columns, not {type(value).__name__}.")
    return value
