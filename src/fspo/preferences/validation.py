"""Rows of users and preferences, checked: what is wrong is named by file, row and column."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, time
from typing import Any, get_args

from fspo.errors import DataError
from fspo.preferences.types import Preference, PromptLike, Role, Turn, User, as_turns, transcript
from fspo.preferences.wording import spellings, wording
from fspo.printing import column_option, nearest, option

__all__ = [
    "PREFERENCE_COLUMNS",
    "REPEAT",
    "TURNS",
    "USER_COLUMNS",
    "ColumnsError",
    "Faults",
    "Problem",
    "TableColumns",
    "check_dataset",
    "find_problems",
    "find_respelt",
    "json_value",
    "missing_columns",
    "parse_preference",
    "parse_turn",
    "parse_turns",
    "parse_user",
    "prompt_of",
    "repeats_on_purpose",
    "row_problem",
    "user_problem",
]

_RESPONSES = "response|answer|completion|output|reply|option|candidate|conversation|text"
_NUMBERED = re.compile(rf"(|(?:.*[\W_])?(?:{_RESPONSES}))[\W_]?(?:[a-d]|\d)", re.IGNORECASE)
"""The name of a column that numbers a response; the group is what names of the same kind share."""

PREFERENCE_COLUMNS: Mapping[str, bool] = {
    "user": True,
    "prompt": True,
    "chosen": True,
    "rejected": True,
    "question": False,
    "source": False,
}
"""Column of a preference -> whether it must be there."""

USER_COLUMNS: Mapping[str, bool] = {"id": True, "description": False, "group": False, "traits": False}
"""Column of a user -> whether it must be there."""


TURNS = "prompt_turns"
"""Column of a preference whose prompt is a conversation: its messages, as a list or as JSON."""

REPEAT = "repeat"
"""Key in the source of a preference that repeats an earlier one on purpose: which repetition it is, a number from 2."""

_OWN_REPEAT = "own_repeat"
"""Key in the source for a column of one's own that is called `repeat`."""

_ROLES: tuple[Role, ...] = get_args(Role)
_MESSAGES = 'must hold messages {"role": "system", "user" or "assistant", "content": text}.'

_COUNTED = 10_000
"""Faulty rows after which no more are looked for; each of them takes a while."""

_SHOWN = 5
"""Rows that a sentence names at most."""

_LISTED = 10
"""Invalid rows that an error names at most."""

_TEXT = frozenset({str})
_JSON_TYPES = _TEXT | {int, bool, type(None)}
"""Types whose values are all JSON as they are; checked first, since a dataset holds millions of them."""

_DEPTH = 100
"""Objects and lists inside one another that a value may hold."""


@dataclass(frozen=True)
class Problem:
    """What is wrong with one row. Rows count from 1, as lines in an editor do."""

    row: int
    column: str
    what: str

    def error(self, file: str) -> DataError:
        """The problem as an error that names the file."""
        return DataError(f"{file}, row {self.row}, column '{self.column}': {self.what}")


class ColumnsError(DataError):
    """Columns are missing or misspelt: in the first row of a table, this is a problem of the whole table."""


@dataclass(frozen=True)
class TableColumns:
    """The columns of a table, as errors show them."""

    found: tuple[str, ...]
    """The columns of the row by the table's own names."""
    names: Mapping[str, tuple[str, ...]]
    """fspo's name of a column -> other names that people give it."""
    user_can_be_named: bool = False
    """Whether the caller takes one user for all rows."""
    read_as: Mapping[str, str] = field(default_factory=dict)
    """fspo's name of a column -> the table's name of the one that is read as it."""
    can_be_named: bool = True
    """Whether the caller takes other names for columns."""


def parse_preference(
    row: Mapping[str, Any], *, file: str, number: int, table: TableColumns | None = None
) -> Preference:
    """Make a preference of one row; columns of one's own are kept in its source, dates there as ISO text.

    A column of one's own that is called `repeat` is kept as `own_repeat`: `repeat` is fspo's mark of a repetition.

    `table`: the columns as the reader of the error knows them, where they differ from those of the row.

    Raises:
        DataError: columns are missing, misspelt, of the wrong type, or nothing that JSON can hold; or both `repeat` and
            `own_repeat` are there.
    """
    turns, row = _prompt_turns(row, file, number)
    extra = _check_columns(row, PREFERENCE_COLUMNS, file, number, table)
    extra = {column: json_value(value, column, file, number) for column, value in extra.items()}
    if REPEAT in extra:
        extra = _beside_mark(extra, file, number)
    source = json_value(_mapping(row, "source", file, number), "source", file, number)
    return Preference(
        user=_text(row, "user", file, number, identifier=True),
        prompt=_text(row, "prompt", file, number),
        chosen=_text(row, "chosen", file, number),
        rejected=_text(row, "rejected", file, number),
        question=_text(row, "question", file, number, identifier=True),
        source={**extra, **source},
        turns=turns,
    )


def _beside_mark(extra: Mapping[str, Any], file: str, number: int) -> dict[str, Any]:
    """Columns of one's own, with `repeat` under the name that leaves fspo's mark free."""
    if _OWN_REPEAT in extra:
        what = f"would be kept as '{_OWN_REPEAT}', and there is a column of that name; rename one of them."
        raise ColumnsError(f"{file}, row {number}, column '{REPEAT}': {what}")
    return {_OWN_REPEAT if name == REPEAT else name: value for name, value in extra.items()}


def _prompt_turns(row: Mapping[str, Any], file: str, number: int) -> tuple[tuple[Turn, ...], Mapping[str, Any]]:
    """The turns of a row's prompt, if it is a conversation, and the row with their transcript as the prompt."""
    row = dict(row)
    value, column = row.pop(TURNS, None), TURNS
    if not value and isinstance(row.get("prompt"), list):
        value, column = row["prompt"], "prompt"
    if not value:
        return (), row
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise Problem(number, TURNS, "must be a list of messages, and is not valid JSON.").error(file) from None
    turns = parse_turns(value, column, file, number)
    text = transcript(turns)
    if column == TURNS and row.get("prompt") not in (None, "", text):
        what = f"not the text of the messages in '{TURNS}'; correct one of them, or leave the other out."
        raise Problem(number, "prompt", what).error(file)
    return (turns if len(turns) > 1 else ()), {**row, "prompt": text}


def parse_turns(value: Any, column: str, file: str, number: int) -> tuple[Turn, ...]:
    """The messages of a prompt ({"role", "content"} each); an empty system message is left out.

    Raises:
        DataError: naming file, row and column: they are no messages, or no prompt (see `as_turns`).
    """
    if not isinstance(value, list):
        raise Problem(number, column, f"must be a list of messages, not {type(value).__name__}.").error(file)
    turns = [parse_turn(message, column, file, number) for message in value]
    try:
        return as_turns(_without_empty_system(turns))
    except DataError as error:
        raise Problem(number, column, f"no prompt: {error}").error(file) from None


def parse_turn(message: Any, column: str, file: str, number: int) -> Turn:
    """One message: {"role", "content"}, with text, or parts of text, as its content.

    Raises:
        DataError: naming file, row and column: it is no such message.
    """
    turn = _turn_of(message)
    if turn is None:
        raise Problem(number, column, _MESSAGES).error(file)
    return turn


def prompt_of(given: PromptLike) -> str | tuple[Turn, ...]:
    """A prompt from any form in which prompts are given; an empty system message is left out.

    Raises:
        DataError: it is neither text nor messages, the text is empty, or the messages are no prompt (see `as_turns`).
    """
    if isinstance(given, str):
        if not given.strip():
            raise DataError("The prompt is empty; write a question or a request.")
        return given
    parts: Sequence[object] = given if isinstance(given, list | tuple) else [given]
    turns = [part if isinstance(part, Turn) else _turn_of(part) for part in parts]
    whole = [turn for turn in turns if turn is not None]
    if len(whole) < len(turns) or parts is not given:
        raise DataError(f"A prompt is text, or a list, which {_MESSAGES}")
    return as_turns(_without_empty_system(whole))


def _without_empty_system(turns: Sequence[Turn]) -> Sequence[Turn]:
    return turns[1:] if turns and turns[0].role == "system" and not turns[0].text.strip() else turns


def _turn_of(message: object) -> Turn | None:
    """One message {"role", "content"} as a turn; None if it is no such message."""
    found: Mapping[str, Any] = message if isinstance(message, Mapping) else {}
    role, content = found.get("role"), found.get("content")
    if isinstance(content, list) and all(isinstance(part, Mapping) and part.get("type") == "text" for part in content):
        content = "".join(str(part.get("text", "")) for part in content)
    named = next((known for known in _ROLES if known == role), None)
    return Turn(named, content) if named is not None and isinstance(content, str) else None


def parse_user(row: Mapping[str, Any], *, file: str, number: int) -> User:
    """Make a user of one row.

    Raises:
        DataError: a column is missing, misspelt, or of the wrong type.
    """
    extra = _check_columns(row, USER_COLUMNS, file, number)
    if extra:
        column = next(iter(extra))
        raise Problem(number, column, f"unknown; a user has {', '.join(USER_COLUMNS)}.").error(file)
    traits = _mapping(row, "traits", file, number)
    for name, weight in traits.items():
        if not _is_finite(weight):
            what = f"the weight of '{name}' must be a finite number, not {weight!r:.40}."
            raise Problem(number, "traits", what).error(file)
    return User(
        id=_text(row, "id", file, number, identifier=True),
        description=_text(row, "description", file, number),
        group=_text(row, "group", file, number),
        traits={name: float(weight) for name, weight in traits.items()},
    )


def user_problem(user: User, row: int) -> Problem | None:
    """What makes a user unusable, if anything does."""
    if not user.id.strip():
        return Problem(row, "id", "empty; every user needs an id.")
    return _unwritable(user, ("id", "description", "group"), row)


def find_problems(
    users: Mapping[str, User], preferences: Iterable[Preference], rows: Sequence[int] | None = None
) -> Iterator[Problem]:
    """Yield every row that can't be used, with the first thing wrong with it.

    A name close to an unknown user's is looked for in the first problem alone: among many users that takes long.

    `rows` are the numbers of the rows, counted from 1 by default.
    """
    seen: dict[tuple[str, str, str, str], int] = {}
    known: Iterable[str] = users
    for index, preference in enumerate(preferences):
        number = rows[index] if rows is not None else index + 1
        problem = row_problem(preference, users, number, known)
        if problem is None:
            problem = _repetition(preference, seen, number)
        if problem is not None:
            known = ()
            yield problem


def check_dataset(
    users: Mapping[str, User],
    preferences: Iterable[Preference],
    *,
    file: str = "dataset",
    rows: Sequence[int] | None = None,
) -> None:
    """Check that every row can be used.

    Raises:
        DataError: naming file, row and column of the first row that can't, where the next ones are, and how many more
            there are.
    """
    faults = Faults(count_all=True)
    for problem in find_problems(users, preferences, rows):
        faults.add(problem.error(file))
    faults.tell()


def find_respelt(preferences: Sequence[Preference], rows: Sequence[int] | None = None) -> list[str]:
    """What to know of questions that are written in several ways, one sentence each; nothing where there are none.

    They can be used, and count as one question: blanks, case and Unicode form make no other question.

    `rows` are the numbers of the rows, counted from 1 by default.
    """
    ways = spellings(row.prompt for row in preferences)
    if not ways:
        return []
    respelt = {prompt for own in ways for prompt in own}
    earlier: dict[tuple[str, str, frozenset[str]], tuple[int, str]] = {}
    repeated: list[tuple[int, int]] = []
    contradicted: list[tuple[int, int]] = []
    for index, row in enumerate(preferences):
        if row.prompt in respelt:
            number = index + 1 if rows is None else rows[index]
            first, chosen = earlier.setdefault((row.user, wording(row.prompt), row.pair), (number, row.chosen))
            if first != number:
                (repeated if chosen == row.chosen else contradicted).append((number, first))
    said = [
        f"Questions written in several ways: {len(ways):,}, such as {ways[0][0]!r:.60} and {ways[0][1]!r:.60}. Such "
        "spellings count as one question: blanks, case and Unicode form do not matter."
    ]
    for what, found in (("with the same label", repeated), ("with the opposite label", contradicted)):
        if found:
            shown = ", ".join(f"{later:,} (as row {first:,})" for later, first in found[:_SHOWN])
            more = f" and {len(found) - _SHOWN:,} more" if len(found) > _SHOWN else ""
            said.append(
                f"The same user, question and pair as in an earlier row, {what}: row{'s' if len(found) > 1 else ''} "
                f"{shown}{more}. Keep one row of each."
            )
    return said


class Faults:
    """The errors of rows that are read: the first one's sentence, the places of the next ones, and their number."""

    def __init__(self, *, count_all: bool = False) -> None:
        """Begin with none; `count_all` goes on however many there are."""
        self._first: DataError | None = None
        self._places: list[str] = []
        self._more, self._at_most = 0, None if count_all else _COUNTED

    @contextmanager
    def row(self, *, first: bool = False) -> Iterator[None]:
        """Read one row, or go through all of them; an error that ends it is kept.

        `first`: whether it is the first row of a table. Wrong columns there end the reading of the table.

        Raises:
            ColumnsError: the columns of the first row are wrong.
            DataError: the first that was kept, once there are very many.
        """
        try:
            yield
        except DataError as error:
            if first and isinstance(error, ColumnsError):
                raise
            self.add(error)
            if self._more == self._at_most:
                self.tell()

    def add(self, error: DataError) -> None:
        """Keep the error of one row."""
        if self._first is None:
            self._first = error
            return
        if self._more == self._at_most:  # what `row` has raised, in a `row` around it
            return
        self._more += 1
        if self._more < _LISTED:
            file = _place(self._first).rpartition(", row ")[0]
            self._places.append(_place(error).removeprefix(f"{file}, "))

    def __bool__(self) -> bool:
        """Whether there are any."""
        return self._first is not None

    @contextmanager
    def told_with(self) -> Iterator[None]:
        """Check rows together; an error of that is raised after those of single rows, in one message.

        Raises:
            DataError: any of them.
        """
        try:
            yield
        except DataError as error:
            self.tell(also=f" {error}")
            raise
        self.tell()

    def tell(self, also: str = "") -> None:
        """Raise the first, if there are any, with the places of the next ones and the number of all others.

        Args:
            also: the end of the message.

        Raises:
            DataError: the first that was kept.
        """
        if self._first is None:
            return
        others = ""
        if self._more:
            count = f"at least {self._more:,}" if self._more == self._at_most else f"{self._more:,}"
            more = self._more - len(self._places)
            listed = "; ".join([*self._places, *([f"and {more:,} more"] if more else [])])
            others = f" ({count} more row{'s' if self._more > 1 else ''} with problems: {listed}.)"
        raise DataError(f"{self._first}{others}{also}") from self._first


def _place(error: DataError) -> str:
    """Where an error of a row is: its file, row and column."""
    return str(error).partition(": ")[0]


def row_problem(preference: Preference, users: Mapping[str, User], number: int, known: Iterable[str]) -> Problem | None:
    """What makes a preference unusable, if anything does; `known` are the users whose names may be meant."""
    for column in ("user", "prompt", "chosen", "rejected"):
        if not getattr(preference, column).strip():
            return Problem(number, column, "empty; fill it in or delete the row.")
    if preference.user not in users:
        close = nearest(preference.user, known)
        hint = f" (did you mean '{close}'?)" if close else ""
        return Problem(number, "user", f"no user has the id '{preference.user}'{hint}.")
    if preference.chosen.strip() == preference.rejected.strip():
        return Problem(number, "rejected", "the same text as chosen, so nothing is preferred; delete the row.")
    return _unwritable(preference, ("user", "prompt", "chosen", "rejected", "question"), number)


def _unwritable(value: User | Preference, columns: Iterable[str], row: int) -> Problem | None:
    for column in columns:
        try:
            getattr(value, column).encode()
        except UnicodeEncodeError:
            return Problem(row, column, "holds half of a surrogate pair, which no file can hold; correct the text.")
    return None


def repeats_on_purpose(preference: Preference) -> bool:
    """Whether a preference has fspo's mark of a repetition."""
    number = preference.source.get(REPEAT)
    return isinstance(number, int) and number >= 2


def _repetition(preference: Preference, seen: dict[tuple[str, str, str, str], int], number: int) -> Problem | None:
    key = (preference.user, preference.prompt, preference.chosen, preference.rejected)
    same = seen.setdefault(key, number)
    if same != number and not repeats_on_purpose(preference):
        return Problem(number, "chosen", f"repeats row {same}: same user, prompt and pair; delete one of them.")
    opposite = seen.get((key[0], key[1], key[3], key[2]))
    if opposite is not None:
        what = f"contradicts row {opposite}: same user, prompt and pair, other label; delete one of them."
        return Problem(number, "chosen", what)
    return None


def _check_columns(
    row: Mapping[str, Any], known: Mapping[str, bool], file: str, number: int, table: TableColumns | None = None
) -> dict[str, Any]:
    """Refuse missing and misspelt columns, and return those that are the caller's own."""
    extra = {name: value for name, value in row.items() if name not in known}
    missing = [column for column, required in known.items() if required and column not in row]
    if missing:
        if table is not None:
            _check_unused(missing, table, file, number)
        there = ", ".join(row if table is None else table.found) or "none"
        raise missing_columns(
            missing, f"the row has the columns: {there}.{_remedy(missing, extra, table)}", file, number
        )
    for column, required in known.items():
        close = "" if required or column in row else nearest(column, extra, cutoff=0.8)
        if close:
            name = (
                f" If so, rename it, or import it with {column_option({column: close})}."
                if table and table.can_be_named
                else ""
            )
            raise ColumnsError(f"{file}, row {number}, column '{close}': unknown; did you mean '{column}'?{name}")
    return extra


def _check_unused(missing: Sequence[str], table: TableColumns, file: str, number: int) -> None:
    """Refuse a table whose column is missing only because it is read as another one."""
    for ours, theirs in table.read_as.items():
        if theirs in missing:
            given = column_option({ours: theirs})
            what = f"already used for '{ours}'; leave out {given}, or name another column for '{theirs}'."
            raise ColumnsError(f"{file}, row {number}, column '{theirs}': {what}")


def missing_columns(columns: Sequence[str], what: str, file: str, number: int) -> ColumnsError:
    """The error that names all columns that a row lacks; `what` is the rest of the sentence."""
    named = ", ".join(f"'{column}'" for column in columns)
    return ColumnsError(f"{file}, row {number}, column{'s' if len(columns) > 1 else ''} {named}: missing; {what}")


def _remedy(missing: Sequence[str], free: Iterable[str], table: TableColumns | None) -> str:
    """What to do about missing columns: the nearest column of the table for each of them, where there is one."""
    free = list(free)
    alike = _alternatives(free) if "chosen" in missing else []
    if alike:
        which = " and ".join(f"'{name}'" for name in alike)
        return (
            f" {which} don't say which response is preferred: write the preferred one of each row as 'chosen' and the "
            "other as 'rejected'."
        )
    meant: dict[str, str] = {}
    for column in missing:
        names = (column, *(table.names.get(column, ()) if table else ()))
        meant[column] = next((close for name in names if (close := nearest(name, free, cutoff=0.7))), "")
        free = [name for name in free if name != meant[column]]
    renamed = " and ".join(f"'{name}' to '{column}'" for column, name in meant.items() if name)
    if table is None or not table.can_be_named:
        return f" Did you mean to rename {renamed}?" if renamed else ""
    named = column_option({column: name or "NAME" for column, name in meant.items()})
    said = f" Rename {renamed}, or name yours with {named}." if renamed else f" Name yours with {named}."
    if table.user_can_be_named and "user" in missing:
        said += f" If all rows are of one user, add {option('user', 'ID')}."
    return said


def _alternatives(columns: Iterable[str]) -> list[str]:
    """Columns such as response_a and response_b, whose names only number the responses."""
    stems: dict[str, list[str]] = {}
    for name in columns:
        found = _NUMBERED.fullmatch(name)
        if found:
            stems.setdefault(found[1].lower(), []).append(name)
    return next((names for names in stems.values() if len(names) > 1), [])


def _text(row: Mapping[str, Any], column: str, file: str, number: int, *, identifier: bool = False) -> str:
    value = row.get(column)
    if value is None:
        return ""
    if identifier and isinstance(value, float) and value.is_integer():
        value = int(value)  # tables with an empty cell in a column of numbers make floats of all others
    if identifier and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise Problem(number, column, f"must be text, not {type(value).__name__}.").error(file)
    return value


def _mapping(row: Mapping[str, Any], column: str, file: str, number: int) -> Mapping[str, Any]:
    """A column that holds an object, or (as in Parquet) the object written as JSON."""
    value = row.get(column)
    if value is None or value == "":
        return {}
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise Problem(number, column, "must be a JSON object, and is not valid JSON.").error(file) from None
    if not isinstance(value, Mapping):
        raise Problem(number, column, f"must be an object (name: value), not {type(value).__name__}.").error(file)
    return value


def json_value(value: Any, column: str, file: str, number: int, depth: int = 0) -> Any:
    """A value as JSON holds it: Parquet has more types than JSON, and JSON has neither NaN nor infinity.

    Raises:
        DataError: it holds what JSON can't.
    """
    if type(value) in _JSON_TYPES:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str | int):
        return value
    if isinstance(value, date | time):
        return value.isoformat()
    if depth == _DEPTH:
        raise Problem(number, column, f"more than {_DEPTH} lists and objects inside one another.").error(file)
    if isinstance(value, list | tuple):
        return [
            item if type(item) in _JSON_TYPES else json_value(item, column, file, number, depth + 1) for item in value
        ]
    if isinstance(value, Mapping) and (_TEXT.issuperset(map(type, value)) or all(isinstance(n, str) for n in value)):
        return {
            name: item if type(item) in _JSON_TYPES else json_value(item, column, file, number, depth + 1)
            for name, item in value.items()
        }
    what = f"holds a value of the type {type(value).__name__}, which JSON doesn't have; make it text or a number."
    raise Problem(number, column, what).error(file)


def _is_finite(value: Any) -> bool:
    """Whether a value is a number that a float can hold."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False
