"""The dataset: users and their preferences, in memory and as two Parquet files anybody can read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import cached_property, lru_cache
from itertools import chain, islice
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

from fspo.errors import DataError, FspoError, StorageError
from fspo.files import FolderKind, read_json, to_json, write_json, writing
from fspo.identity import file_digest
from fspo.paths import expanded
from fspo.preferences.types import Person, Preference, Turn, User
from fspo.preferences.validation import (
    PREFERENCE_COLUMNS,
    TURNS,
    USER_COLUMNS,
    Problem,
    check_dataset,
    parse_preference,
    parse_user,
    user_problem,
)
from fspo.preferences.wording import wording
from fspo.printing import command, counted

if TYPE_CHECKING:
    import datasets
    import pandas as pd

    from fspo.preferences.conflicts import OnContradiction, OnDuplicate
    from fspo.preferences.splits import SplitDataset

__all__ = [
    "DATASET",
    "FORMAT",
    "SPLITS_FILE",
    "PreferenceDataset",
    "by_id",
    "is_dataset",
    "iterate_arrow",
    "iterate_parquet",
    "load_once",
    "loses_splits",
    "messages",
    "preference_row",
    "unknown",
    "user_row",
    "write_dataset",
    "write_parquet",
]

FORMAT = 1
"""Version of the layout on disk."""

_USERS, _PREFERENCES, _MANIFEST = "users.parquet", "preferences.parquet", "dataset.json"
SPLITS_FILE = "splits.json"
"""Beside a dataset: which users and questions belong to which part."""
_ROWS_AT_ONCE = 16_384
_SHOWN_NAMES = 3
"""Users or questions that a sentence names, at most."""


def _objection(folder: Path) -> str:
    """Why fspo did not write these tables: by `dataset.json`, or where it is missing by their columns."""
    if (folder / _MANIFEST).exists():
        try:
            manifest = read_json(folder / _MANIFEST)
        except StorageError:
            return f"its {_MANIFEST} is damaged"
        known = isinstance(manifest, dict) and {"format", "users", "preferences"} <= manifest.keys()
        return "" if known else f"fspo did not write its {_MANIFEST}"
    tables = {_PREFERENCES: PREFERENCE_COLUMNS, _USERS: USER_COLUMNS}
    for name, columns in tables.items():
        if (folder / name).exists() and not _has_columns(folder / name, columns):
            return f"fspo did not write its {name}"
    return ""


def _has_columns(path: Path, columns: Iterable[str]) -> bool:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names = pq.read_schema(path).names
        return [name for name in names if name != TURNS] == list(columns)
    except (pa.ArrowException, OSError):
        return False


DATASET = FolderKind(
    "a dataset",
    needs=(_PREFERENCES,),
    may=(_USERS, _MANIFEST, SPLITS_FILE),
    keeps_others=True,
    objection=_objection,
)
"""What a new dataset replaces of an old one; splits belong to the old one."""


class PreferenceDataset:
    """Users and their preferences; never changed, always valid.

    `users` is id -> user; these and the preferences are in the order given.
    """

    users: Mapping[str, User]
    preferences: tuple[Preference, ...]

    def __init__(
        self,
        users: Mapping[str, User] | Iterable[User],
        preferences: Iterable[Preference] = (),
        *,
        file: str = "dataset",
        rows: Sequence[int] | None = None,
    ) -> None:
        """Check and keep users and preferences.

        Errors name `file`, where the preferences come from, and their `rows` there, counted from 1 by default.

        Raises:
            DataError: a user occurs twice, or a preference is empty, undecided, repeated or of an unknown user.
        """
        people = by_id(users.values() if isinstance(users, Mapping) else users)
        kept = tuple(preferences)
        check_dataset(people, kept, file=file, rows=rows)
        self._keep(people, kept)

    def _keep(self, users: dict[str, User], preferences: tuple[Preference, ...]) -> None:
        object.__setattr__(self, "users", MappingProxyType(users))
        object.__setattr__(self, "preferences", preferences)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        """Refuse: a dataset is never changed."""
        raise AttributeError(f"A dataset can't be changed ({name}); make a new one with select or merge.")

    @classmethod
    def _checked(cls, users: dict[str, User], preferences: tuple[Preference, ...]) -> PreferenceDataset:
        """A dataset of rows that are known to be valid."""
        dataset = cls.__new__(cls)
        dataset._keep(users, preferences)
        return dataset

    def __len__(self) -> int:
        """How many preferences there are."""
        return len(self.preferences)

    def __iter__(self) -> Iterator[Preference]:
        """The preferences in order."""
        return iter(self.preferences)

    def __eq__(self, other: object) -> bool:
        """Same users and same preferences, in the same order."""
        if not isinstance(other, PreferenceDataset):
            return NotImplemented
        return list(self.users.items()) == list(other.users.items()) and self.preferences == other.preferences

    def __hash__(self) -> int:
        """By contents."""
        return hash(self.fingerprint)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as its rows, for data loader workers."""
        return PreferenceDataset._checked, (dict(self.users), self.preferences)

    def __repr__(self) -> str:
        """The size, not the contents."""
        return f"PreferenceDataset({len(self.users)} users, {len(self)} preferences, {self.question_count} questions)"

    @cached_property
    def _by_user(self) -> dict[str, tuple[Preference, ...]]:
        rows: dict[str, list[Preference]] = {user: [] for user in self.users}
        for preference in self.preferences:
            rows[preference.user].append(preference)
        return {user: tuple(own) for user, own in rows.items()}

    @cached_property
    def _questions(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(preference.question_id for preference in self.preferences))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the contents in order, as hexadecimal digits: what a resumable stage remembers its input by."""
        digest = hashlib.sha256()
        for row in chain(map(user_row, self.users.values()), map(preference_row, self.preferences)):
            digest.update(json.dumps(row, sort_keys=True).encode() + b"\n")
        return digest.hexdigest()

    def of_user(self, user: str) -> tuple[Preference, ...]:
        """The preferences of one user, in order.

        Raises:
            DataError: there is no such user.
        """
        if user not in self.users:
            raise unknown("user", user, self.users)
        return self._by_user[user]

    def person(self, user: str) -> Person:
        """All that a model may see of one user: the preferences, and the description.

        Raises:
            DataError: there is no such user.
        """
        return Person(self.of_user(user), self.users[user].description)

    def questions(self) -> tuple[str, ...]:
        """The ids of all questions, in the order they first occur.

        Where prompts are their own ids, a question that is written in several ways has several ids: see
        `question_count`.
        """
        return self._questions

    @cached_property
    def question_count(self) -> int:
        """How many questions there are; prompts that differ only in blanks, case or Unicode form are one."""
        return len({preference.question_key for preference in self.preferences})

    def select(
        self, users: Collection[str] | None = None, questions: Collection[str] | None = None
    ) -> PreferenceDataset:
        """The part of the dataset with these users and these questions (None: all).

        A chosen user stays, even where none of its preferences does.

        Raises:
            DataError: a user or a question is not in the dataset.
        """
        _check_known("user", users, self.users)
        _check_known("question", questions, self.questions())
        keep_users = set(self.users) if users is None else set(users)
        keep_questions = None if questions is None else set(questions)
        return PreferenceDataset._checked(
            {id: user for id, user in self.users.items() if id in keep_users},
            tuple(
                preference
                for preference in self.preferences
                if preference.user in keep_users
                and (keep_questions is None or preference.question_id in keep_questions)
            ),
        )

    def merge(self, other: PreferenceDataset) -> PreferenceDataset:
        """Both datasets in one; a preference that both hold is kept once.

        Raises:
            DataError: the two know different things of one user, or contradict each other in a preference.
        """
        for id, user in other.users.items():
            if self.users.get(id, user) != user:
                raise DataError(f"The datasets describe user '{id}' differently; rename the user in one of them.")
        mine = {_key(preference) for preference in self.preferences}
        new = tuple(preference for preference in other.preferences if _key(preference) not in mine)
        return PreferenceDataset({**self.users, **other.users}, self.preferences + new)

    def split(
        self, *, test_users: float = 0.2, test_questions: float = 0.2, validation: float = 0.0, seed: int = 0
    ) -> SplitDataset:
        """Divide users and questions at random, so that whom and what is tested is never trained on.

        Args:
            test_users: share of the users held out for testing.
            test_questions: share of the questions held out.
            validation: share of both that is measured while training.
            seed: the same seed gives the same parts.

        Raises:
            ConfigError: nothing is left to train on.
            DataError: there are fewer users or questions than parts.
        """
        from fspo.preferences.splits import SplitDataset, held_out_shares, make_splits

        splits = make_splits(
            self,
            seed=seed,
            user_fractions=held_out_shares(test_users, validation),
            question_fractions=held_out_shares(test_questions, validation),
        )
        return SplitDataset(self, splits)

    def save(self, folder: str | Path) -> Path:
        """Write `users.parquet`, `preferences.parquet` and `dataset.json` into `folder`, beside whatever is there.

        A `splits.json` of other data goes: it would leave new users and questions out of every part.

        Raises:
            StorageError: the disk is full or the folder can't be written.
        """
        if loses_splits(self, Path(folder)):
            (Path(folder) / SPLITS_FILE).unlink()
        conversations = any(row.turns for row in self.preferences)
        return write_dataset(folder, self.users.values(), self.preferences, conversations=conversations)

    @classmethod
    def load(cls, folder: str | Path) -> PreferenceDataset:
        """Read a dataset that `save` wrote, or two Parquet files of one's own with the same columns.

        Raises:
            DataError: a file is missing, is not what `dataset.json` says, or a row is wrong.
        """
        folder = Path(expanded(folder))
        if not folder.is_dir():
            what = (
                f"{folder} is a file, and a dataset is a folder" if folder.exists() else f"There is no folder {folder}"
            )
            proposed = command("fspo", "data", "import", folder if folder.exists() else "TABLE", "FOLDER")
            raise DataError(f"{what}. `{proposed}` makes a dataset of a table.")
        for name in (_USERS, _PREFERENCES):
            if not (folder / name).is_file():
                raise DataError(
                    f"{folder} is not a dataset: it has no {name}. Make one with `fspo synth`, or import your own with "
                    "`fspo data import`."
                )
        _check_manifest(folder)
        users_file, file = str(folder / _USERS), str(folder / _PREFERENCES)
        users = by_id(
            (parse_user(row, file=users_file, number=number) for number, row in iterate_parquet(folder / _USERS)),
            file=users_file,
        )
        shared: dict[str, str] = {}
        rows = tuple(
            parse_preference(_share(row, shared), file=file, number=number)
            for number, row in iterate_parquet(folder / _PREFERENCES)
        )
        return cls(users, rows, file=file)

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        *,
        users: str | Path | None = None,
        columns: Mapping[str, str] | None = None,
        user: str | None = None,
        part: str = "",
        on_duplicate: OnDuplicate = "fail",
        on_contradiction: OnContradiction = "fail",
    ) -> PreferenceDataset:
        """Read the preferences of a file or folder, recognised by its contents.

        This takes the folder of a dataset, CSV, TSV, JSON Lines, a JSON list (each also as .gz), Parquet, Arrow,
        folders of such files, and folders that `datasets.save_to_disk` wrote. Names of columns that people use are
        matched; see `fspo.preferences.columns.NAMES`.

        Args:
            path: the file or folder; or `hub:owner/name`.
            users: a table of the users; `views.users.jsonl` beside `views.csv` by default, if there is one.
            columns: fspo's name of a column -> the table's, such as {"user": "annotator"}.
            user: the user of all rows that name none.
            part: only the files of this part, such as `train`; by default all.
            on_duplicate: rows that repeat an earlier one: `fail`, `skip` or `keep`.
            on_contradiction: rows of a pair that its user labels both ways: `fail`, `newest` or `drop`.

        Raises:
            DataError: naming file, row and column of what is wrong.
            StorageError: a file can't be read.
        """
        from fspo.preferences.formats import Reading, read_preferences

        how = Reading(columns, user, on_duplicate, on_contradiction)
        if how == Reading() and not users and not part and is_dataset(Path(expanded(path))):
            return cls.load(path)
        return read_preferences(expanded(path), how, users=users, part=part).dataset

    @classmethod
    def from_jsonl(
        cls, path: str | Path, users: str | Path | None = None, *, columns: Mapping[str, str] | None = None
    ) -> PreferenceDataset:
        """Read a file with one preference a line; `from_file` reads it too, and everything else."""
        return cls.from_file(path, users=users, columns=columns)

    @classmethod
    def from_pandas(
        cls,
        frame: pd.DataFrame,
        *,
        columns: Mapping[str, str] | None = None,
        user: str | None = None,
        on_duplicate: OnDuplicate = "fail",
        on_contradiction: OnContradiction = "fail",
    ) -> PreferenceDataset:
        """Take the rows of a DataFrame, with text or TRL's messages in `prompt`, `chosen` and `rejected`.

        Args:
            frame: the rows; columns that fspo does not know are kept in `source`.
            columns: fspo's name of a column -> the frame's; names that people use are matched without it.
            user: the user of all rows that name none.
            on_duplicate: rows that repeat an earlier one: `fail`, `skip` or `keep`.
            on_contradiction: rows of a pair that its user labels both ways: `fail`, `newest` or `drop`.

        Raises:
            DataError: naming row and column of what is wrong.
        """
        from fspo.preferences.formats import Reading, from_table

        how = Reading(columns, user, on_duplicate, on_contradiction, implicit_prompt=True)
        return from_table(frame, file="the DataFrame", how=how)

    @classmethod
    def from_datasets(
        cls,
        table: datasets.Dataset,
        *,
        columns: Mapping[str, str] | None = None,
        user: str | None = None,
        on_duplicate: OnDuplicate = "fail",
        on_contradiction: OnContradiction = "fail",
    ) -> PreferenceDataset:
        """Take the rows of a `datasets.Dataset`; arguments and errors as of `from_pandas`."""
        from fspo.preferences.formats import Reading, from_table

        how = Reading(columns, user, on_duplicate, on_contradiction, implicit_prompt=True)
        return from_table(table, file="the datasets.Dataset", how=how)

    @classmethod
    def from_hub(
        cls, name: str, part: str = "", *, columns: Mapping[str, str] | None = None, user: str | None = None
    ) -> PreferenceDataset:
        """Read the tables of a dataset on a hub, which are downloaded once.

        Args:
            name: `owner/name`, or `owner/name/path/to/file`.
            part: only the files of this part, such as `train`; by default all.
            columns: fspo's name of a column -> the files'.
            user: the user of all rows that name none.

        Raises:
            ConfigError: the name is no dataset's.
            DataError: there is no such dataset or part, or naming file, row and column of what is wrong.
            StorageError: the hub can't be reached.
        """
        from fspo.preferences.formats import Reading, read_preferences
        from fspo.preferences.hub import HUB

        return read_preferences(f"{HUB}{name}", Reading(columns, user, implicit_prompt=True), part=part).dataset

    def to_pandas(self) -> pd.DataFrame:
        """One row a preference, with what is known of the user beside it."""
        import pandas as pd

        from fspo.preferences.formats import to_trl_rows

        return pd.DataFrame(list(to_trl_rows(self)))

    def to_datasets(self, *, conversational: bool = False) -> datasets.Dataset:
        """One row a preference, as TRL's trainers take them: plain text, or messages where `conversational`."""
        import datasets

        from fspo.preferences.formats import to_trl_rows

        return datasets.Dataset.from_list(list(to_trl_rows(self, conversational=conversational)))


def is_dataset(folder: Path) -> bool:
    """Whether a folder has the two tables of a dataset."""
    return all((folder / name).is_file() for name in (_PREFERENCES, _USERS))


def load_once(folder: Path) -> PreferenceDataset:
    """The dataset in a folder, which each stage of a run needs: the latest one is kept until its files change.

    Raises:
        DataError: see `PreferenceDataset.load`.
        StorageError: a file can't be read.
    """
    files = (folder / name for name in (_USERS, _PREFERENCES, _MANIFEST))
    return _loaded(folder, tuple(file_digest(file) for file in files if file.is_file()))


@lru_cache(maxsize=1)
def _loaded(folder: Path, digests: tuple[str, ...]) -> PreferenceDataset:
    return PreferenceDataset.load(folder)


def loses_splits(dataset: PreferenceDataset, folder: Path) -> bool:
    """Whether writing a dataset into a folder removes its splits: they stay where the data are the same."""
    if not (folder / SPLITS_FILE).exists():
        return False
    try:
        return PreferenceDataset.load(folder).fingerprint != dataset.fingerprint
    except FspoError:  # damaged, so nobody knows what it held
        return True


def write_dataset(
    folder: str | Path, users: Iterable[User], preferences: Iterable[Preference], *, conversations: bool = False
) -> Path:
    """Write a dataset in bounded memory, row by row; what is wrong with a row comes out when it is loaded.

    If prompts are `conversations`, the table has one more column.

    Returns:
        The folder.

    Raises:
        StorageError: the disk is full or the folder can't be written.
    """
    folder, questions = Path(folder), set[str]()
    counts = {"users": 0, "preferences": 0}
    blank = {TURNS: ""} if conversations else {}

    def rows() -> Iterator[dict[str, str]]:
        for preference in preferences:
            counts["preferences"] += 1
            questions.add(preference.question_key)
            yield blank | _flat(preference_row(preference))

    def people() -> Iterator[dict[str, str]]:
        for user in users:
            counts["users"] += 1
            yield _flat(user_row(user))

    with writing(folder / _PREFERENCES) as preferences_file, writing(folder / _USERS) as users_file:
        write_parquet(users_file, USER_COLUMNS, people())
        write_parquet(preferences_file, (*PREFERENCE_COLUMNS, *blank), rows())
    digests = {name: file_digest(folder / name) for name in (_USERS, _PREFERENCES)}
    write_json(folder / _MANIFEST, {"format": FORMAT, **counts, "questions": len(questions), "sha256": digests})
    return folder


def user_row(user: User) -> dict[str, Any]:
    """A user as a row, ready for JSON."""
    return {"id": user.id, "description": user.description, "group": user.group, "traits": dict(user.traits)}


def preference_row(preference: Preference) -> dict[str, Any]:
    """A preference as a row, ready for JSON."""
    row = {
        "user": preference.user,
        "prompt": preference.prompt,
        "chosen": preference.chosen,
        "rejected": preference.rejected,
        "question": preference.question,
        "source": dict(preference.source),
    }
    return {**row, TURNS: messages(preference.turns)} if preference.turns else row


def messages(turns: Iterable[Turn]) -> list[dict[str, str]]:
    """Turns as chat messages, ready for JSON."""
    return [{"role": turn.role, "content": turn.text} for turn in turns]


def by_id(users: Iterable[User], *, file: str = "dataset", rows: Sequence[int] | None = None) -> dict[str, User]:
    """Users by their id.

    Raises:
        DataError: an id is empty or occurs twice.
    """
    people: dict[str, User] = {}
    for index, user in enumerate(users):
        number = rows[index] if rows is not None else index + 1
        problem = user_problem(user, number)
        if problem is None and user.id in people:
            problem = Problem(number, "id", f"user '{user.id}' occurs twice; delete one of them.")
        if problem is not None:
            raise problem.error(file)
        people[user.id] = user
    return people


def unknown(kind: str, name: str, known: Iterable[str]) -> DataError:
    """Say that there is no such user or question, which ones are close, and how many there are."""
    known = list(known)
    close, count = get_close_matches(name, known, n=_SHOWN_NAMES), counted(len(known), f"{kind}s")
    if close:
        hint = f"did you mean {' or '.join(map(repr, close))}? It has {count}."
    else:
        hint = f"it has {count}{', such as ' if known else ''}{', '.join(map(repr, known[:_SHOWN_NAMES]))}."
    return DataError(f"The dataset has no {kind} '{name}'; {hint}")


def _check_known(kind: str, names: Collection[str] | None, known: Collection[str]) -> None:
    if names is None:
        return
    if isinstance(names, str):
        raise DataError(f"Select {kind}s with a list of ids, not with the text '{names}'.")
    missing = sorted(set(names) - set(known))
    if missing:
        raise unknown(kind, missing[0], known)


def _key(preference: Preference) -> tuple[str, str, str, str]:
    return preference.user, wording(preference.prompt), preference.chosen, preference.rejected


def _flat(row: dict[str, Any]) -> dict[str, str]:
    """Objects as JSON text: the one form that pyarrow, pandas, datasets and DuckDB all read back the same."""
    return {name: value if isinstance(value, str) else to_json(value) for name, value in row.items()}


def _share(row: dict[str, Any], shared: dict[str, str]) -> dict[str, Any]:
    """Keep one copy of texts that recur, such as prompts and responses that many users judged."""
    return {name: shared.setdefault(value, value) if isinstance(value, str) else value for name, value in row.items()}


def write_parquet(
    path: Path, columns: Iterable[str], rows: Iterable[dict[str, Any]], messages: Collection[str] = ()
) -> None:
    """Write rows in bounded memory; all columns are text, save those of chat messages ({"role", "content"} lists)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    chat = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    schema = pa.schema([pa.field(name, chat if name in messages else pa.string(), nullable=False) for name in columns])
    rows = iter(rows)
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        while block := list(islice(rows, _ROWS_AT_ONCE)):
            writer.write_table(pa.Table.from_pylist(block, schema=schema))


def iterate_parquet(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (row number from 1, row).

    Raises:
        DataError: the file is missing or is not Parquet; or naming row and column of a text or time that can't be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE):
                for row in _rows_of(batch, str(path), number):
                    number += 1
                    yield number, row
    except (pa.ArrowException, ValueError, OSError) as error:
        raise DataError(
            f"{path} can't be read as Parquet ({error}). It may be damaged: make or fetch it again."
        ) from error


def iterate_arrow(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (row number from 1, row) of an Arrow file or stream, as the `datasets` library writes them.

    Raises:
        DataError: the file is not Arrow; or naming row and column of a text or time that can't be read.
    """
    import pyarrow as pa

    number = 0
    try:
        with pa.memory_map(str(path)) as source:
            is_file = source.read(6) == b"ARROW1"
            source.seek(0)
            reader = pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source)
            batches = map(reader.get_batch, range(reader.num_record_batches)) if is_file else reader
            for batch in batches:
                for row in _rows_of(batch, str(path), number):
                    number += 1
                    yield number, row
    except (pa.ArrowException, ValueError, OSError) as error:
        raise DataError(
            f"{path} can't be read as Arrow ({error}). It may be damaged: make or fetch it again."
        ) from error


def _rows_of(batch: Any, file: str, before: int) -> list[dict[str, Any]]:
    """The rows of a batch that comes after so many rows."""
    try:
        rows: list[dict[str, Any]] = batch.to_pylist()
    except ValueError:  # such as bytes that are no UTF-8 in a column of text
        for index in range(batch.num_rows):
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                try:
                    column[index].as_py()
                except ValueError as error:
                    raise Problem(before + index + 1, name, f"can't be read ({error}); fix or delete it.").error(
                        file
                    ) from error
        raise
    return rows


def _check_manifest(folder: Path) -> None:
    """Compare the files with `dataset.json`, where there is one."""
    path = folder / _MANIFEST
    if not path.exists():
        return
    manifest = read_json(path)
    version = manifest.get("format") if isinstance(manifest, dict) else None
    if version != FORMAT:
        raise DataError(f"{path} has format {version!r}, and this version of fspo reads format {FORMAT}.")
    digests = manifest.get("sha256", {})
    if not isinstance(digests, dict) or not digests.keys() <= {_USERS, _PREFERENCES}:
        raise DataError(f"{path} is damaged: its 'sha256' must name {_USERS} and {_PREFERENCES}; delete {path}.")
    for name, digest in digests.items():
        if file_digest(folder / name) != digest:
            raise DataError(
                f"{folder / name} is not the file that {_MANIFEST} describes: run the command that made it again, or, "
                f"if you changed it on purpose, delete {path}."
            )
