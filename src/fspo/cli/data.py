"""`fspo data`: preference datasets in, out, checked, shown and split."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fspo.cli.options import (
    ConfigFile,
    DryRun,
    Overrides,
    add_verb,
    check_one_named,
    configured,
    console,
    help_text,
)
from fspo.cli.store_options import opened
from fspo.errors import ConfigError, DataError
from fspo.files import check_writable
from fspo.paths import expanded, shown
from fspo.preferences.card import imported_card
from fspo.preferences.conflicts import OnContradiction, OnDuplicate
from fspo.preferences.dataset import SPLITS_FILE, PreferenceDataset, is_dataset, loses_splits
from fspo.preferences.formats import users_path_of, write_jsonl, write_trl
from fspo.preferences.published import Imported
from fspo.preferences.types import Split
from fspo.printing import command, counted, one_line
from fspo.runs.datasets import (
    EpisodeSize,
    Format,
    Import,
    Source,
    check_episodes_of,
    check_lengths,
    check_options,
    check_splits_of,
    check_target,
    few_held_out,
    few_trained_on,
    notes_on,
    put,
    read,
    short_to_train,
    size,
)

__all__ = ["app", "export", "from_store", "import_", "show", "split", "validate"]

_HELD_OUT = 0.2
"""Of users and of questions, held out by default."""
_HELP = """Import, export, validate, show and split preference datasets.

Examples:
  fspo data validate ratings.csv

  fspo data import ratings.csv data/ratings

  fspo data split data/ratings
"""


app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, help=help_text(_HELP))

FileFormat = Annotated[
    Format,
    typer.Option(
        "--format",
        "-f",
        help=(
            "jsonl: one {user, prompt, chosen, rejected} per line; trl: TRL's {prompt, chosen, rejected} plus user, "
            "in JSONL or Parquet; parquet: a folder with users.parquet and preferences.parquet."
        ),
    ),
]
Columns = Annotated[
    list[str] | None,
    typer.Option("--column", metavar="OURS=THEIRS", help="Your name for a column: user=judge. Can be repeated."),
]
Users = Annotated[
    Path | None,
    typer.Option(
        help="Table of the users: id, description, group, traits. By default ratings.users.jsonl beside ratings.csv."
    ),
]
User = Annotated[str | None, typer.Option(help="The user of rows without one.")]
Folder = Annotated[Path | None, typer.Argument(help="Folder of the dataset; by default the one of --config.")]


OnDuplicateOption = Annotated[
    OnDuplicate,
    typer.Option(
        "--on-duplicate",
        help="Rows that repeat an earlier one (same user, prompt, pair and label): refuse, leave out, or keep them.",
    ),
]
OnContradictionOption = Annotated[
    OnContradiction,
    typer.Option(
        "--on-contradiction",
        help=(
            "Rows of a pair that its user labels both ways: refuse them, let the newest row count (by a column such as "
            "timestamp, else the last row), or leave all of them out."
        ),
    ),
]
Part = Annotated[str, typer.Option(help="Only the files of this part of a folder or hub dataset, such as train.")]


@add_verb(app, "import")
def import_(
    source: Annotated[str, typer.Argument(help="File or folder to read, or hub:owner/name.")],
    out: Annotated[Path, typer.Argument(help="Folder of the dataset to write.")],
    file_format: Annotated[
        Source,
        typer.Option(
            "--format",
            "-f",
            help=(
                "auto: recognise the table by its contents; trl: also take as the prompt the words that both responses "
                "begin with, if there is no prompt; parquet: a dataset's folder. The others are the columns of "
                "published data: roleplay, elix, reviews (the FSPO paper's), reward-bench (PersonalRewardBench), prism "
                "(PRISM's utterances), personal-llm (PersonalLLM)."
            ),
        ),
    ] = Source.AUTO,
    users: Users = None,
    columns: Columns = None,
    user: User = None,
    on_duplicate: OnDuplicateOption = "fail",
    on_contradiction: OnContradictionOption = "fail",
    part: Part = "",
    drawn_users: Annotated[
        int | None, typer.Option(help="personal-llm: simulated users, each with random weights. [default: 100]")
    ] = None,
    concentration: Annotated[
        float | None, typer.Option(help="personal-llm: Dirichlet concentration of these weights. [default: 0.05]")
    ] = None,
    pairs: Annotated[
        int | None, typer.Option(help="personal-llm: pairs that a user labels for each prompt. [default: 1]")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="personal-llm: same seed, same users. [default: 0]")] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Replace an existing dataset, and its splits if the data differ; other files stay.",
        ),
    ] = False,
    dry_run: DryRun = False,
) -> None:
    """Import your own preferences into a dataset folder, which a run uses as its `data`.

    It takes CSV, TSV, JSON Lines, JSON lists (each also as .gz), Parquet, Arrow, folders of such files, a hub's dataset
    (hub:owner/name), and what `datasets.save_to_disk` wrote. The columns are user, prompt, chosen and rejected; other
    usual names (annotator, instruction, preferred, ...) are recognised, and --column names any other. Every row is
    checked; errors name file, row and column. Rows that are left out are counted by reason, here and in the README.md
    of the dataset.

    Examples:
      fspo data import ratings.csv data/ratings

      fspo data import ratings.jsonl.gz data/ratings --column user=judge --on-duplicate skip

      fspo data import my-hub-folder data/ratings --part train --on-contradiction newest

      fspo data import hub:MichaelR207/prism_personalized_0125 data/prism --format reward-bench

      fspo data import personalllm.parquet data/drawn --format personal-llm --drawn-users 200 --pairs 2

      fspo run --config my.yaml --set data=data/ratings
    """
    source = expanded(source)
    drawn: dict[str, Any] = {"users": drawn_users, "concentration": concentration, "pairs": pairs, "seed": seed}
    drawn = {name: value for name, value in drawn.items() if value is not None}
    what = Import(source, file_format, users, columns or (), user, part, on_duplicate, on_contradiction, drawn)
    spare = (Path(source), *([users] if users is not None else []))
    check_target(out, Format.PARQUET, overwrite=overwrite, spare=spare)
    imported = read(what)
    _say_how(imported)
    _say_notes(imported.dataset, source)
    says_something = file_format.is_published or imported.left_out or imported.notes
    card = imported_card(imported, file_format, source) if says_something else ""
    _write(imported.dataset, out, dry_run, card=card, spare=spare)


@add_verb(app, "from-store")
def from_store(
    store: Annotated[str, typer.Argument(help="Folder of a server's store, or URL of its Postgres database.")],
    out: Annotated[Path, typer.Argument(help="Folder of the dataset to write.")],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing dataset, and its splits if the data differ.")
    ] = False,
    dry_run: DryRun = False,
) -> None:
    """Write the preferences of a server's users who allow training as a dataset.

    Users have pseudonyms instead of names, and each preference says how it was made. Of preferences that contradict
    each other the newest counts. The store notes that the dataset holds them, and `fspo train` notes which policies
    are trained on it, so that a later deletion names both.

    Examples:
      fspo data from-store fspo-store data/people

      fspo run --config my.yaml --set data=data/people
    """
    check_target(out, Format.PARQUET, overwrite=overwrite)
    with opened(store, existing=True) as people:
        from fspo.serving.connection import public_place
        from fspo.serving.people_data import exports_in, people_dataset, record_export

        dataset = people_dataset(people, public_place(store), None if dry_run else out)
        _write(dataset, out, dry_run)
        if not dry_run:
            for held in exports_in(dataset):
                record_export(people, held, out, policy=False)


@add_verb(app, "export")
def export(
    target: Annotated[Path, typer.Argument(help="File to write: .jsonl, or .parquet for trl; a folder for parquet.")],
    folder: Folder = None,
    file_format: FileFormat = Format.JSONL,
    conversational: Annotated[
        bool, typer.Option("--conversational", help="trl: messages with roles instead of plain text.")
    ] = False,
    config: ConfigFile = None,
    overrides: Overrides = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing export.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Write a dataset as JSONL, which people can read, or in the format of TRL's trainers.

    Examples:
      fspo data export ratings.jsonl data/ratings

      fspo data export ratings.parquet data/ratings --format trl --conversational

      fspo data export demo.jsonl --config configs/demo.yaml
    """
    check_options(file_format, conversational=conversational)
    if folder is None and config is None:
        raise ConfigError(
            f"{target} is the target. Name the folder of the dataset after it, or with --config the run that the "
            "dataset belongs to."
        )
    folder = _folder(folder, config, overrides)
    if is_dataset(target) and not folder.is_dir():
        raise ConfigError(
            f"{target} is a dataset, and {folder} is not: name the target first and the dataset after it, as in "
            f"`{command('fspo', 'data', 'export', folder, target)}`."
        )
    dataset = PreferenceDataset.load(folder)
    spare = (folder,) if file_format is Format.PARQUET else ()
    check_target(target, file_format, overwrite=overwrite, spare=spare)
    _say_notes(dataset, folder)
    if file_format is Format.PARQUET:
        _write(dataset, target, dry_run, spare=spare)
        return
    users = f", and the users to {users_path_of(target)}" if file_format is Format.JSONL else ""
    if dry_run:
        console().print(f"Would write {size(dataset)} to {target}{users}.", markup=False)
        return
    if file_format is Format.TRL:
        write_trl(dataset, target, conversational=conversational)
    else:
        write_jsonl(dataset, target)
    console().print(f"{size(dataset)} written to {target}{users}.", markup=False)


@add_verb(app, "validate")
def validate(
    source: Annotated[
        Path | None, typer.Argument(help="File or dataset folder to check; by default the dataset of --config.")
    ] = None,
    file_format: Annotated[
        Source,
        typer.Option("--format", "-f", help="auto: recognise the table by its contents; see `fspo data import`."),
    ] = Source.AUTO,
    users: Users = None,
    columns: Columns = None,
    user: User = None,
    on_duplicate: OnDuplicateOption = "fail",
    on_contradiction: OnContradictionOption = "fail",
    part: Part = "",
    shots: Annotated[
        int, typer.Option(min=0, help="Also check that every user has enough for this many shots ...")
    ] = 0,
    queries: Annotated[int, typer.Option(min=0, help="... and this many queries.")] = 0,
    model: Annotated[
        str | None,
        typer.Option(help="Also check that this model can read every preference with its user's description."),
    ] = None,
    max_length: Annotated[
        int | None, typer.Option(min=1, help="With --model: limit in tokens. [default: the model's limit]")
    ] = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Check preferences without writing anything; exit with 1 if something is wrong.

    In a split dataset, the training part must hold nothing held out, and every part needs enough shots and queries.
    Questions that differ only in blanks, case or Unicode form are one question.

    Examples:
      fspo data validate ratings.jsonl

      fspo data validate data/ratings --shots 8 --queries 8

      fspo data validate data/ratings --model Qwen/Qwen3-0.6B --max-length 2048
    """
    if max_length is not None and model is None:
        raise ConfigError("--max-length is for --model; name a model too, or leave --max-length out.")
    source = _folder(source, config, overrides)
    what = Import(str(source), file_format, users, columns or (), user, part, on_duplicate, on_contradiction)
    imported = read(what)
    dataset = imported.dataset
    check_splits_of(source, dataset)
    if shots or queries:
        check_episodes_of(source, dataset, shots, max(queries, 1))
    if model is not None:
        check_lengths(source, dataset, model, max_length)
    _say_how(imported)
    console().print(f"{source} is valid: {size(dataset)}.", markup=False)
    _say_notes(dataset, source)


@add_verb(app, "show")
def show(
    folder: Folder = None,
    user: Annotated[str | None, typer.Option(help="Show this user's preferences.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many users, or preferences of the user, to show.")] = 10,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Show the users of a dataset, or the preferences of one user.

    Examples:
      fspo data show data/ratings

      fspo data show --config configs/demo.yaml --user elix-written-0001 --limit 3
    """
    dataset = PreferenceDataset.load(_folder(folder, config, overrides))
    out = console()
    out.print(f"{size(dataset)}\n", markup=False)
    if user is None:
        for person in list(dataset.users.values())[:limit]:
            group = f" [{person.group}]" if person.group else ""
            count = counted(len(dataset.of_user(person.id)), "preferences")
            out.print(one_line(f"{person.id}{group}: {count}. {person.description}".rstrip()), markup=False)
        _say_hidden(limit, len(dataset.users), "users")
        return
    rows = dataset.of_user(user)
    for row in rows[:limit]:
        out.print(f"prompt:   {row.prompt}\nchosen:   {row.chosen}\nrejected: {row.rejected}\n", markup=False)
    _say_hidden(limit, len(rows), "preferences")


def _say_hidden(limit: int, total: int, what: str) -> None:
    if total > limit:
        console().print(f"Shown: {limit:,} of {counted(total, what)}; --limit {total} shows all.", markup=False)


def _share(value: float) -> float:
    if not 0 <= value <= 1:
        raise typer.BadParameter(f"{value:g} is not a share between 0 and 1, such as 0.2.")
    return value


@add_verb(app, "split")
def split(
    folder: Annotated[Path, typer.Argument(help="Folder of the dataset.")],
    test_users: Annotated[
        float, typer.Option(callback=_share, help="Share of the users held out for testing.")
    ] = _HELD_OUT,
    test_questions: Annotated[
        float, typer.Option(callback=_share, help="Share of the questions held out for testing.")
    ] = _HELD_OUT,
    validation: Annotated[float, typer.Option(callback=_share, help="Share of both for validation.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Same seed, same splits.")] = 0,
    config: ConfigFile = None,
    overrides: Overrides = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing splits.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Split a dataset's users and questions into train, validation and test, and write splits.json.

    No user and no question is in two splits. A warning says if the training part is too small for the shots and queries
    of the run in --config, or else for the default ones.

    Examples:
      fspo data split data/ratings

      fspo data split data/ratings --test-users 0.3 --seed 1 --overwrite

      fspo data split data/ratings --config my.yaml --dry-run
    """
    path = folder / SPLITS_FILE
    if path.exists() and not overwrite:
        raise DataError(f"{path} already exists; add --overwrite to divide the dataset again.")
    dataset, episodes = PreferenceDataset.load(folder), _episode_sizes(config, overrides)
    check_writable(path)
    splits = dataset.split(
        test_users=test_users, test_questions=test_questions, validation=validation, seed=seed
    ).splits
    names: tuple[Split, ...] = ("train", "validation", "test")
    sizes = "; ".join(
        f"{name}: {counted(len(splits.users[name]), 'users')}, "
        f"{counted(dataset.select(questions=splits.questions[name]).question_count, 'questions')}, "
        f"{counted(len(splits.part(dataset, name)), 'preferences')}"
        for name in names
    )
    if not dry_run:
        splits.save(path)
    console().print(f"{'Would write' if dry_run else 'Written to'} {path}: {sizes}.", markup=False)
    options = (("test-questions", test_questions, _HELD_OUT), ("validation", validation, 0), ("seed", seed, 0))
    given = {name: value for name, value, default in options if value != default}
    few = few_held_out(folder, dataset, splits, episodes, given)
    notes = (few, few_trained_on(splits), short_to_train(splits.part(dataset, "train"), episodes))
    for note in filter(None, notes):
        console().print(note, markup=False)


def _episode_sizes(config: Path | None, overrides: list[str] | None) -> list[EpisodeSize]:
    """The episodes of a run's trainings; without a configuration, those of a training by default."""
    if config is None and not overrides:
        from fspo.training.config import TrainingConfig

        usual = TrainingConfig()
        return [EpisodeSize(usual.shots, usual.queries)]
    from fspo.runs.checks import episode_sizes

    return episode_sizes(configured(None, config, overrides, None))


def _folder(named: Path | None, config: Path | None, overrides: list[str] | None) -> Path:
    """The dataset that is named, or else the folder of that of a run."""
    if named is not None:
        check_one_named(named, config, overrides)
        return named
    if config is None:
        raise ConfigError("No dataset is named; name its folder, or with --config the run that it belongs to.")
    settings = configured(None, config, overrides, None)
    return settings.data or settings.output / "data"


def _say_how(imported: Imported) -> None:
    for note in imported.notes:
        console().print(note, markup=False)
    for why, count in imported.left_out.items():
        console().print(f"Left out: {counted(count, why)}. The first: {imported.first[why]}.", markup=False)


def _say_notes(dataset: PreferenceDataset, source: str | Path) -> None:
    for note in notes_on(dataset, source):
        console().print(note, markup=False)


def _write(dataset: PreferenceDataset, out: Path, dry_run: bool, card: str = "", spare: tuple[Path, ...] = ()) -> None:
    lost, place = loses_splits(dataset, out), shown(out)
    gone = f"{shown(out / SPLITS_FILE)} belongs to the old data"
    if dry_run:
        console().print(f"Would write {size(dataset)} to {place}.", markup=False)
        if lost:
            console().print(f"{gone} and would be removed.", markup=False)
        return
    put(dataset, out, card, spare)
    console().print(f"{size(dataset)} written to {place}.", markup=False)
    if lost:
        console().print(f"{gone} and is removed; divide the new data with `fspo data split`.", markup=False)
