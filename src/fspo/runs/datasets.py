"""Datasets as `fspo data` takes and leaves them: read in any format, checked, and put in their place."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from fspo.errors import ConfigError, DataError, FspoError
from fspo.files import check_replaceable, is_empty, replace_folder, write_text
from fspo.modeling.fitting import Room, long_rows, more_of
from fspo.modeling.rendering import EpisodeRenderer
from fspo.preferences.card import CARD, is_imported_card
from fspo.preferences.columns import TIME
from fspo.preferences.conflicts import OnContradiction, OnDuplicate
from fspo.preferences.dataset import DATASET, SPLITS_FILE, PreferenceDataset, is_dataset, loses_splits
from fspo.preferences.formats import TRL_USER, Reading, read_preferences, users_path_of
from fspo.preferences.published import PUBLISHED, Drawn, Imported, from_published
from fspo.preferences.sampling import EpisodeSampler, TooFewPreferences, check_no_leak
from fspo.preferences.splits import SPLITS, Splits
from fspo.preferences.tables import find_tables
from fspo.preferences.types import Split
from fspo.preferences.validation import PREFERENCE_COLUMNS, find_respelt
from fspo.printing import column_option, command, counted, nearest
from fspo.runs.made import check_file_target

__all__ = [
    "EpisodeSize",
    "Format",
    "Import",
    "Source",
    "check_episodes_of",
    "check_lengths",
    "check_options",
    "check_splits_of",
    "check_target",
    "columns_of",
    "few_held_out",
    "few_trained_on",
    "larger_test",
    "notes_on",
    "put",
    "read",
    "read_published",
    "short_to_train",
    "size",
]


_SOME_QUESTIONS = 0.2
"""Share of the questions that is proposed where none is held out."""
_MOST_HELD_OUT = 0.6
"""Share of the questions that it makes sense to hold out."""


class Format(StrEnum):
    """A file format of preferences."""

    JSONL = "jsonl"
    TRL = "trl"
    PARQUET = "parquet"


class Source(StrEnum):
    """What preferences can be imported from: any table, or the columns of published data."""

    AUTO = "auto"
    JSONL = "jsonl"
    TRL = "trl"
    PARQUET = "parquet"
    ROLEPLAY = "roleplay"
    ELIX = "elix"
    REVIEWS = "reviews"
    REWARD_BENCH = "reward-bench"
    PRISM = "prism"
    PERSONAL_LLM = "personal-llm"

    @property
    def is_published(self) -> bool:
        """Whether it is published data."""
        return self not in (Source.AUTO, Source.JSONL, Source.TRL, Source.PARQUET)


_TABLES = (Source.AUTO, Source.JSONL, Source.TRL)

_TAKEN_BY: dict[str, tuple[str, ...]] = {
    "--users": _TABLES,
    "--user": _TABLES,
    "--column": _TABLES,
    "--on-duplicate": _TABLES,
    "--on-contradiction": _TABLES,
    "--part": (*_TABLES, *(kind for kind in Source if kind.is_published)),
    "--conversational": (Format.TRL,),
    "--drawn-users": (Source.PERSONAL_LLM,),
    "--concentration": (Source.PERSONAL_LLM,),
    "--pairs": (Source.PERSONAL_LLM,),
    "--seed": (Source.PERSONAL_LLM,),
}
"""Option -> the formats that it means something for."""


def check_options(file_format: Format | Source, **given: object) -> None:
    """Refuse an option that would be ignored.

    Raises:
        ConfigError: an option is given that the format does not take.
    """
    for name, value in given.items():
        taken = _TAKEN_BY[f"--{name}"]
        if value and file_format not in taken:
            formats = [choice for choice in taken if choice != Source.AUTO]
            raise ConfigError(
                f"--{name} means nothing for the format {file_format}; leave it out, or choose --format "
                f"{' or '.join(formats)}."
            )


def columns_of(columns: Iterable[str] | None) -> dict[str, str] | None:
    """Our names of columns -> the file's, from `OURS=THEIRS`.

    Raises:
        ConfigError: one is not written so, names no column of a preference, or is given twice.
    """
    known = [*PREFERENCE_COLUMNS, *TRL_USER, TIME[0]]
    pairs: dict[str, str] = {}
    for column in columns or ():
        ours, equals, theirs = column.partition("=")
        if not (ours and equals and theirs):
            raise ConfigError(f"--column {column}: write it as OURS=THEIRS, such as user=annotator.")
        if ours not in known:
            close = nearest(theirs if theirs in known else ours, known)
            hint = (
                f"write {column_option({close: ours if theirs == close else theirs})}"
                if close
                else "see `fspo data import -h`"
            )
            raise ConfigError(f"--column {column}: a preference has no column '{ours}'; {hint}.")
        if ours in pairs:
            raise ConfigError(f"--column {column}: '{ours}' is '{pairs[ours]}' already; name one column for it.")
        pairs[ours] = theirs
    return pairs or None


@dataclass(frozen=True)
class Import:
    """What is read, and how."""

    source: str
    """A file, a folder, or `hub:owner/name`."""
    file_format: Source = Source.AUTO
    users: Path | None = None
    columns: Sequence[str] = ()
    """As `OURS=THEIRS`."""
    user: str | None = None
    part: str = ""
    on_duplicate: OnDuplicate = "fail"
    on_contradiction: OnContradiction = "fail"
    drawn: Mapping[str, Any] = field(default_factory=dict)
    """How users are drawn, if published data has none; see `fspo.preferences.published.Drawn`."""

    @property
    def options(self) -> dict[str, object]:
        """The options that were given, by their name on the command line."""
        given: dict[str, object] = {
            "users": self.users,
            "user": self.user,
            "column": self.columns,
            "on-duplicate": "" if self.on_duplicate == "fail" else self.on_duplicate,
            "on-contradiction": "" if self.on_contradiction == "fail" else self.on_contradiction,
            "part": self.part,
        }
        return given | {"drawn-users" if name == "users" else name: str(value) for name, value in self.drawn.items()}


def read(what: Import) -> Imported:
    """Read preferences from any table, a dataset's folder, or published data.

    Raises:
        ConfigError: an option is given that the format does not take, or that is written wrongly.
        DataError: naming file, row and column of what is wrong; or there are no preferences.
        StorageError: a file can't be read, or a hub can't be reached.
    """
    saved = what.file_format is Source.AUTO and is_dataset(Path(what.source))
    file_format = Source.PARQUET if saved else what.file_format
    check_options(file_format, **what.options)
    if file_format.is_published:
        return read_published(what.source, file_format, part=what.part, **what.drawn)
    if file_format is Source.PARQUET:
        imported = Imported(PreferenceDataset.load(what.source), {})
    else:
        how = Reading(
            columns_of(what.columns),
            what.user,
            what.on_duplicate,
            what.on_contradiction,
            implicit_prompt=file_format is Source.TRL,
            user_can_be_named=True,
        )
        try:
            imported = read_preferences(what.source, how, users=what.users, part=what.part)
        except DataError as error:
            raise _with_published_kinds(error, what) from error
    if not len(imported.dataset):
        raise DataError(f"{what.source} holds no preferences; write one a row.")
    return imported


def _with_published_kinds(error: DataError, what: Import) -> DataError:
    """The error, and which published data has the columns of the first row."""
    try:
        _, row = next(find_tables(what.source, what.part)[0].rows())
    except (FspoError, StopIteration):
        return error
    kinds = [kind for kind, published in PUBLISHED.items() if row.keys() >= set(published.columns)]
    return DataError(f"{error} For published data, add --format {' or '.join(kinds)}.") if kinds else error


def read_published(source: str, kind: Source, *, part: str = "", **drawn: Any) -> Imported:
    """Read published data from a file or a folder of them, or from a hub (`hub:owner/name`).

    Files are read together in the order of their names; of a folder or a whole hub dataset only those of this `part`,
    such as `test`.

    Raises:
        ConfigError: an option is out of its range.
        DataError: naming file, row and column of what is wrong; or nothing can be used.
        StorageError: a file can't be read, or the hub can't be reached.
    """
    tables = find_tables(source, part)
    file = [source]

    def rows() -> Iterator[tuple[int, dict[str, Any]]]:
        for table in tables:
            file[0] = f"{source} ({table.path.name})" if len(tables) > 1 else source
            yield from table.rows()

    return from_published(rows(), kind, file=lambda: file[0], drawn=Drawn(**drawn))


def check_target(target: Path, file_format: Format, *, overwrite: bool, spare: Iterable[Path] = ()) -> None:
    """Check that a dataset may be written to `target` in this format.

    A dataset that is there may be replaced if `overwrite`, but not what it was read from (`spare`).

    Raises:
        ConfigError: the name says something else than what would be in it.
        DataError: it is there already, or what is there may not be replaced.
        StorageError: it can't be written.
    """
    suffix = target.suffix.lower()
    if file_format is Format.PARQUET:
        if suffix in (".jsonl", ".parquet"):
            raise ConfigError(f"{target} has the name of a file, and a dataset is a folder; name a folder.")
        _check_folder(target, overwrite, spare)
        return
    suffixes = (".jsonl",) if file_format is Format.JSONL else (".jsonl", ".parquet")
    if suffix not in suffixes:
        others = "trl for a Parquet file, or parquet" if file_format is Format.JSONL else "parquet"
        raise ConfigError(
            f"{target} must end in {' or '.join(suffixes)} for the format {file_format}; rename it, or choose --format "
            f"{others} for a folder."
        )
    for path in (target, *([users_path_of(target)] if file_format is Format.JSONL else [])):
        if path.exists() and not overwrite:
            raise DataError(f"{path} already exists; name another file, or add --overwrite to replace it.")
        check_file_target(path)


def _check_folder(folder: Path, overwrite: bool, spare: Iterable[Path]) -> None:
    check_replaceable(folder, DATASET, spare=spare)
    if not is_empty(folder) and not overwrite:
        raise DataError(f"{folder} already exists; name another folder, or add --overwrite to replace it.")


def put(dataset: PreferenceDataset, out: Path, card: str = "", spare: Iterable[Path] = ()) -> None:
    """Write a dataset: whole where there is none, and in the place of an old one beside what else is there.

    The card of an earlier import goes with the old data; a README.md that somebody else wrote stays. The old splits go
    if `loses_splits`.

    What the dataset was read from (`spare`) is not replaced.

    Raises:
        ConfigError: the folder holds something else than a dataset, or what must be spared.
        StorageError: the disk is full or the folder can't be written; the old dataset and its splits stay.
    """
    old = out / CARD
    kept = old.is_file() and not is_imported_card(old.read_text(encoding="utf-8", errors="replace"))
    names = (*DATASET.may, *([] if kept else [CARD]))
    lost = loses_splits(dataset, out)
    kind = replace(DATASET, may=tuple(name for name in names if lost or name != SPLITS_FILE))
    # The folder as a whole, since its tables one by one would be neither dataset in between.
    with replace_folder(out, kind, spare=spare) as staging:
        dataset.save(staging)
        if card and not kept:
            write_text(staging / CARD, card)


def notes_on(dataset: PreferenceDataset, source: str | Path) -> list[str]:
    """What to know of a valid dataset, one sentence each, by the rows of the file or folder that it was read from."""
    notes = find_respelt(dataset.preferences)
    if not notes or not Path(source).is_file():
        return notes
    numbers = [number for table in find_tables(source) for number, _ in table.rows()]  # blank lines count
    return find_respelt(dataset.preferences, numbers) if len(numbers) == len(dataset) else notes


@dataclass(frozen=True)
class EpisodeSize:
    """What an episode of a training takes."""

    shots: int
    queries: int
    skip_short_users: bool = False

    def sampler(self, part: PreferenceDataset) -> EpisodeSampler:
        """Draws such episodes.

        Raises:
            DataError: a user has too few preferences, or nobody has enough.
        """
        return EpisodeSampler(
            part, shots=self.shots, queries=self.queries, seed=0, skip_short_users=self.skip_short_users
        )

    def users(self, part: PreferenceDataset) -> int:
        """How many users of a training part can be learned from: none where the training would refuse the part."""
        try:
            return len(self.sampler(part).users)
        except DataError:
            return 0


def few_held_out(
    folder: Path,
    dataset: PreferenceDataset,
    splits: Splits,
    sizes: Iterable[EpisodeSize],
    given: Mapping[str, float] | None = None,
) -> str:
    """That too few users are held out for intervals, and the command that holds out enough.

    Empty if there are enough, or none. No command is proposed that leaves too little for episodes of these sizes.
    `given` are the options of the `fspo data split` that made the splits, which the command repeats.
    """
    from fspo.evaluation.statistics.intervals import MINIMUM_USERS

    total, held_out = sum(map(len, splits.users.values())), len(splits.users["test"])
    if not 0 < held_out < MINIMUM_USERS:
        return ""
    said = f"{_only(held_out, total)} held out, and intervals need at least {MINIMUM_USERS}"
    share = math.ceil(100 * MINIMUM_USERS / total) / 100
    questions = {} if splits.questions["test"] else {"test-questions": _SOME_QUESTIONS}
    proposed = _proposed(folder, dataset, splits, {"test-users": share, **questions}, sizes, given)
    return f"{said}: `{proposed}` holds out enough." if proposed else f"{said}: collect preferences of more users."


def few_trained_on(splits: Splits) -> str:
    """That too few users are left to train on; empty if there are enough, or none."""
    from fspo.evaluation.statistics.intervals import MINIMUM_USERS

    total, trained_on = sum(map(len, splits.users.values())), len(splits.users["train"])
    if not 0 < trained_on < MINIMUM_USERS:
        return ""
    return (
        f"{_only(trained_on, total)} left to train on, and a policy learns from how users differ: hold out fewer with "
        "`fspo data split`, or collect preferences of more users."
    )


def short_to_train(part: PreferenceDataset, sizes: Iterable[EpisodeSize]) -> str:
    """That users of the training part have too few preferences for episodes of these sizes; empty if none has."""
    for size in sizes:
        try:
            size.sampler(part)
        except DataError as error:
            facts = error.facts if isinstance(error, TooFewPreferences) else str(error)
            return f"In the training part: {facts} Hold out fewer questions, or lower the shots or queries of training."
    return ""


def _only(count: int, total: int) -> str:
    return f"Only {count} of {counted(total, 'users')} {'is' if count == 1 else 'are'}"


def check_splits_of(folder: Path, dataset: PreferenceDataset) -> None:
    """Check that nothing held out by a dataset's `splits.json`, where there is one, is in its training part.

    Raises:
        DataError: naming what is in both.
    """
    path = folder / SPLITS_FILE
    if not path.is_file():
        return
    splits = Splits.load(path)
    train = splits.part(dataset, "train")
    for split in ("validation", "test"):
        check_no_leak(train, splits.part(dataset, split), name=split)


def check_episodes_of(folder: Path, dataset: PreferenceDataset, shots: int, queries: int) -> None:
    """Check that every user has enough for an episode: in each part of a dataset that is divided, else in the whole.

    Raises:
        DataError: naming the part, the user, and how many preferences are needed.
    """
    path = folder / SPLITS_FILE
    if not path.is_file():
        try:
            EpisodeSampler(dataset, shots=shots, queries=queries, seed=0)
        except TooFewPreferences as error:
            raise DataError(f"{error.facts} Lower --shots or --queries, or collect more.") from error
        return
    splits = Splits.load(path)
    for split in SPLITS:
        part = splits.part(dataset, split)
        if not len(part):
            continue
        # Held-out users without held-out preferences are not asked for anything.
        users = [user for user in part.users if split == "train" or part.of_user(user)]
        try:
            EpisodeSampler(part, shots=shots, queries=queries, seed=0, users=users)
        except TooFewPreferences as error:
            remedy = "divide the data with other shares (`fspo data split --overwrite`)"
            if split == "test":
                proposed = larger_test(folder, dataset, splits, error, [EpisodeSize(shots, queries)])
                more = "collect preferences on more questions"
                remedy = f"hold out more questions: `{proposed}`" if proposed else more
            raise DataError(
                f"In the {'training' if split == 'train' else split} part: {error.facts} Lower --shots or --queries, "
                f"or {remedy}."
            ) from error


def larger_test(
    folder: Path, dataset: PreferenceDataset, splits: Splits, error: TooFewPreferences, sizes: Iterable[EpisodeSize]
) -> str:
    """The command that holds out enough questions for the users of the test part; empty where none does.

    The training part keeps enough for episodes of these sizes. If the folder has a `splits.json`, the command holds out
    as many users as that.
    """
    everything = sum(map(len, splits.questions.values()))
    there = min(user.unrelated for user in error.short)
    share = len(splits.questions["test"]) / max(everything, 1) * error.needed / max(there, 1)
    if not there or share > _MOST_HELD_OUT:
        return ""
    return _proposed(folder, dataset, splits, {"test-questions": math.ceil(round(100 * share, 6)) / 100}, sizes)


def _proposed(
    folder: Path,
    dataset: PreferenceDataset,
    splits: Splits,
    shares: Mapping[str, float],
    sizes: Iterable[EpisodeSize],
    given: Mapping[str, float] | None = None,
) -> str:
    """The command that divides a dataset by these shares and, for the rest, by the `given` options.

    Without `given`, the rest is divided as now if the dataset has a `splits.json`.

    Empty if there would be too few users to learn from by episodes of one of these sizes, and now there are more.
    """
    from fspo.evaluation.statistics.intervals import MINIMUM_USERS

    divided = (folder / SPLITS_FILE).exists()
    if given is None:
        given = _shares(splits) if divided else {}
    options = {**shares, **{name: value for name, value in given.items() if name not in shares}}
    named: dict[str, Any] = {name.replace("-", "_"): value for name, value in options.items()}
    try:
        then = dataset.split(**named).train
    except (ConfigError, DataError):
        return ""
    now = splits.part(dataset, "train")
    anything = EpisodeSize(0, 1, skip_short_users=True)
    if any(size.users(then) < min(size.users(now), MINIMUM_USERS) for size in (anything, *sizes)):
        return ""
    words = [word for name, value in options.items() for word in (f"--{name}", _in_words(value))]
    return command("fspo", "data", "split", folder, *words, *(["--overwrite"] if divided else []))


def _in_words(value: float) -> str:
    """A share, or a seed with all its digits."""
    return str(value) if isinstance(value, int) else f"{value:g}"


def _shares(splits: Splits) -> dict[str, float]:
    """The options of `fspo data split` that hold out as many users and questions as now."""
    held_out = {"test-users": splits.users, "test-questions": splits.questions}
    found = {name: _share_of("test", ids, splits) for name, ids in held_out.items()}
    return found | ({"validation": _share_of("validation", splits.users, splits)} if splits.users["validation"] else {})


def _share_of(part: Split, ids: Mapping[Split, Collection[str]], splits: Splits) -> float:
    """The share of users or questions in a part."""
    count, total = len(ids[part]), max(sum(map(len, ids.values())), 1)
    # Shares with few digits can't be added: two of them may leave out a user that both round up to.
    return round(count / total, 3) if splits.users["validation"] else _short_share(count, total)


def _short_share(count: int, total: int) -> float:
    """The share with the fewest digits that, of so many in total, gives this count."""
    shares = (round(count / total, digits) for digits in (1, 2, 3))
    return next((share for share in shares if share and abs(share * total - count) < 0.49), count / total)


def check_lengths(source: Path, dataset: PreferenceDataset, model: str, max_length: int | None) -> None:
    """Check that a model can read every preference of a dataset whole, with the description of its user.

    Raises:
        DataError: it can't, naming the first row and how many more there are.
        ModelError: the model can't be obtained, or does not go with its tokenizer.
    """
    from fspo.modeling.loading import context_length, load_tokenizer
    from fspo.modeling.vocabulary import check_vocabulary, rows_of

    tokenizer = load_tokenizer(model)
    check_vocabulary(tokenizer, rows_of(model), model)
    limit = max_length or context_length(model)
    found = long_rows(dataset, [Room(EpisodeRenderer(tokenizer, context="both", max_length=limit, layout="labelled"))])
    if found:
        raise DataError(
            f"{source}: {found[0].said(found[0].number)} with its longer response, and {model} reads at most "
            f"{limit:,}. Shorten or delete the row, or let long_rows leave it out of training and evaluation."
            f"{more_of(found)}"
        )


def size(dataset: PreferenceDataset) -> str:
    """How much there is of a dataset, in words."""
    users, questions = counted(len(dataset.users), "users"), counted(dataset.question_count, "questions")
    return f"{counted(len(dataset), 'preferences')} of {users} on {questions}"
