from __future__ import annotations

import errno
import json
import re
import shlex
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from fspo import files
from fspo.cli.main import app
from fspo.errors import DataError
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.formats import from_table
from fspo.preferences.splits import Splits
from fspo.runs.datasets import EpisodeSize, Source, few_held_out, read_published
from tests.preferences.test_published import ROLEPLAY, prism


def fspo(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["data", *map(str, arguments)])


def rows(users: int = 4, questions: int = 6) -> list[dict[str, str]]:
    return [
        {"user": f"u{u}", "prompt": f"What of {q}?", "chosen": f"{q} is fine.", "rejected": f"{q} is not for user {u}."}
        for u in range(users)
        for q in range(questions)
    ]


def jsonl(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return jsonl(tmp_path / "ratings.jsonl", rows())


@pytest.fixture
def folder(tmp_path: Path, source: Path) -> Path:
    assert fspo("import", source, tmp_path / "ratings").exit_code == 0
    return tmp_path / "ratings"


def test_import_and_export_give_back_what_went_in(tmp_path: Path, folder: Path) -> None:
    result = fspo("export", tmp_path / "again.jsonl", folder)
    assert result.output == (
        f"24 preferences of 4 users on 6 questions written to {tmp_path / 'again.jsonl'}, and the users to "
        f"{tmp_path / 'again.users.jsonl'}.\n"
    )
    assert fspo("import", tmp_path / "again.jsonl", tmp_path / "again").exit_code == 0
    assert PreferenceDataset.load(tmp_path / "again") == PreferenceDataset.load(folder)


@pytest.mark.parametrize("name", ["trl.jsonl", "trl.parquet"])
def test_through_trl_and_back(tmp_path: Path, folder: Path, name: str) -> None:
    path = tmp_path / name
    assert fspo("export", path, folder, "--format", "trl", "--conversational").exit_code == 0
    assert fspo("import", path, tmp_path / "again", "--format", "trl").exit_code == 0
    assert PreferenceDataset.load(tmp_path / "again") == PreferenceDataset.load(folder)


def test_parquet_folders_are_taken_over(tmp_path: Path, folder: Path) -> None:
    assert fspo("import", folder, tmp_path / "copy", "--format", "parquet").exit_code == 0
    assert fspo("export", tmp_path / "copy2", folder, "--format", "parquet").exit_code == 0
    assert PreferenceDataset.load(tmp_path / "copy2") == PreferenceDataset.load(tmp_path / "copy")


def test_parquet_of_other_types_is_kept_as_text_or_refused_by_row(tmp_path: Path, folder: Path) -> None:
    (folder / "dataset.json").unlink()
    table = pq.read_table(folder / "preferences.parquet")
    times = pa.array([datetime(2024, 5, day + 1) for day in range(24)])
    pq.write_table(table.append_column("rated", times), folder / "preferences.parquet")
    assert fspo("import", folder, tmp_path / "copy", "--format", "parquet").exit_code == 0
    assert PreferenceDataset.load(tmp_path / "copy").preferences[1].source == {"rated": "2024-05-02T00:00:00"}
    prices = pa.array([None] * 2 + [Decimal("1.5")] * 22)
    pq.write_table(table.append_column("price", prices), folder / "preferences.parquet")
    for verb in (("validate", folder), ("import", folder, tmp_path / "copy", "--format", "parquet", "--overwrite")):
        result = fspo(*verb)
        assert result.exit_code == 1
        assert "preferences.parquet, row 3, column 'price': holds a value of the type Decimal" in result.stderr


def test_columns_by_other_names(tmp_path: Path) -> None:
    records = [{"annotator" if key == "user" else key: value for key, value in row.items()} for row in rows()]
    path = jsonl(tmp_path / "other.jsonl", records)
    assert fspo("import", path, tmp_path / "out", "--column", "user=annotator").exit_code == 0
    result = fspo("import", path, tmp_path / "out2", "--column", "user")
    assert result.exit_code == 2
    assert "OURS=THEIRS" in result.stderr


def test_missing_columns_are_told_as_the_file_calls_them_with_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text("anotator,question,prefered,bad\nann,why?,so,thus\n")
    said = fspo("import", path, tmp_path / "out").stderr
    assert "own.csv, row 2, columns 'user', 'chosen', 'rejected': missing" in said
    assert "columns: anotator, question, prefered, bad." in said
    assert "--column user=anotator --column chosen=prefered --column rejected=NAME" in said
    said = fspo("import", path, tmp_path / "out", "--column", "user=annotator", "--column", "rejected=worst").stderr
    assert "columns 'annotator', 'worst': missing; did you mean 'anotator'?" in said
    path.write_text(path.read_text() + "bob,why?,so,thus\n" * 150)
    assert "more row" not in fspo("validate", path).stderr  # one problem of the file
    named = ["--column", "user=anotator", "--column", "chosen=prefered", "--column", "rejected=bad"]
    path.write_text(path.read_text().partition("bob")[0])
    assert fspo("import", path, tmp_path / "out", *named).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--column", "usr=user"], "a preference has no column 'usr'; write --column user=usr"),
        (["--column", "chosn=best"], "a preference has no column 'chosn'; write --column chosen=best"),
        (["--column", "zzz=best"], "a preference has no column 'zzz'; see `fspo data import -h`"),
        (["--column", "user=a", "--column", "user=b"], "--column user=b: 'user' is 'a' already"),
        (["--format", "prism", "--user", "bob"], "--user means nothing for the format prism; leave it out, or choose"),
        (["--format", "elix", "--on-duplicate", "skip"], "--on-duplicate means nothing for the format elix"),
        (["--format", "parquet", "--part", "train"], "--part means nothing for the format parquet"),
        (["--format", "parquet", "--column", "user=a"], "--column means nothing for the format parquet"),
        (["--format", "parquet", "--user", "bob"], "--user means nothing for the format parquet"),
    ],
)
def test_an_option_that_would_be_ignored_is_refused(
    tmp_path: Path, source: Path, arguments: list[str], message: str
) -> None:
    for verb in (["import", source, tmp_path / "out"], ["validate", source]):
        result = fspo(*verb, *arguments)
        assert result.exit_code == 2
        assert message in result.stderr
    assert not (tmp_path / "out").exists()


def test_columns_of_trl_s_users_can_be_named(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "trl.jsonl", [{**row, "about": "tall"} for row in rows()])
    column = ["--column", "user_description=about"]
    assert fspo("import", path, tmp_path / "out", "--format", "trl", *column).exit_code == 0
    assert PreferenceDataset.load(tmp_path / "out").users["u0"].description == "tall"


@pytest.mark.parametrize("arguments", [[], ["--format", "trl"]])
def test_a_file_without_rows_is_refused(tmp_path: Path, arguments: list[str]) -> None:
    path = jsonl(tmp_path / "empty.jsonl", [])
    for verb in (["import", path, tmp_path / "out"], ["validate", path]):
        result = fspo(*verb, *arguments)
        assert result.exit_code == 1
        assert result.stderr == f"Error: {path} holds no preferences; write one a row.\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"chosen": ""}, "row 3, column 'chosen'"),
        ({"rejected": "2 is fine."}, "row 3, column 'rejected'"),
        ({"prompt": 7}, "row 3, column 'prompt'"),
        ({"user": None}, "row 3, column 'user'"),
    ],
)
def test_a_bad_row_is_named_and_nothing_is_written(tmp_path: Path, change: dict[str, Any], where: str) -> None:
    records: list[dict[str, Any]] = list(rows())
    records[2] = records[2] | change
    path = jsonl(tmp_path / "bad.jsonl", records)
    for verb in (("validate", path), ("import", path, tmp_path / "out")):
        result = fspo(*verb)
        assert result.exit_code == 1
        assert f"{path}, {where}" in result.stderr
    assert not (tmp_path / "out").exists()


def test_validate_counts_and_knows_short_users(folder: Path, source: Path) -> None:
    assert fspo("validate", source).output == f"{source} is valid: 24 preferences of 4 users on 6 questions.\n"
    assert fspo("validate", folder, "--shots", 3, "--queries", 3).exit_code == 0
    result = fspo("validate", folder, "--shots", 4, "--queries", 3)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: User 'u0' has 6 preferences")


def test_validate_asks_every_part_of_a_divided_dataset(folder: Path) -> None:
    shares = ["--test-users", 0.25, "--test-questions", 0.5]
    assert fspo("split", folder, *shares).exit_code == 0
    assert fspo("validate", folder, "--shots", 2, "--queries", 1).exit_code == 0
    result = fspo("validate", folder, "--shots", 2, "--queries", 2)
    assert result.exit_code == 1
    assert re.match(r"Error: In the training part: User 'u\d' has 3 .* needs 4", result.stderr)
    assert fspo("split", folder, *shares[:2], "--test-questions", 0.34, "--overwrite").exit_code == 0
    error = fspo("validate", folder, "--shots", 2, "--queries", 2).stderr
    assert re.match(r"Error: In the test part: User 'u\d' has 2 .* needs 4", error)


def test_import_and_split_count_questions_alike(tmp_path: Path) -> None:
    spelled = [{**row, "prompt": row["prompt"].upper()} for row in rows(questions=2)]
    source = jsonl(tmp_path / "ratings.jsonl", [*rows(), *(row | {"chosen": "Yes."} for row in spelled)])
    assert "on 6 questions" in fspo("import", source, tmp_path / "out").output
    found = fspo("split", tmp_path / "out").output.splitlines()[0]
    assert sum(int(count) for count in re.findall(r"(\d+) questions?", found)) == 6


def test_a_split_says_which_share_holds_out_enough_users_for_intervals(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    assert fspo("import", jsonl(tmp_path / "ratings.jsonl", rows(users=12)), folder).exit_code == 0
    said = fspo("split", folder, "--dry-run").output
    assert "Only 2 of 12 users are held out, and intervals need at least 3" in said
    assert proposed(said) == ["split", str(folder), "--test-users", "0.25"]
    assert fspo("split", folder, "--test-users", "0.167", "--test-questions", "0.4").exit_code == 0
    again = fspo("split", folder, "--test-users", "0.167", "--test-questions", "0.4", "--overwrite").output
    assert "Only" not in fspo(*proposed(again)).output
    splits = Splits.load(folder / "splits.json")
    assert len(splits.users["test"]) == 3 and len(splits.questions["test"]) == 2  # as many questions as before


def test_the_split_that_is_suggested_repeats_the_options_of_the_call(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    assert fspo("import", jsonl(tmp_path / "ratings.jsonl", rows(users=12)), folder).exit_code == 0
    options = ["--test-questions", "0.4", "--validation", "0.1", "--seed", "12345678"]
    for mode in (["--dry-run"], [], ["--overwrite"]):
        said = fspo("split", folder, *options, *mode).output
        more = [] if "--dry-run" in mode else ["--overwrite"]
        assert proposed(said) == ["split", str(folder), "--test-users", "0.25", *options, *more]


def test_a_table_with_a_blank_in_its_name_is_in_quotes_in_the_command_that_imports_it(tmp_path: Path) -> None:
    table = jsonl(tmp_path / "my ratings.jsonl", rows())
    assert proposed(fspo("split", table).stderr) == ["import", str(table), "FOLDER"]


def proposed(said: str) -> list[str]:
    """The words of the command of `fspo data` that a sentence proposes, as a shell reads them."""
    return shlex.split(re.findall(r"`fspo data ([^`]*)`", said)[0])


def test_a_test_part_that_is_too_small_is_enlarged_by_the_command_that_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "my ratings"
    assert fspo("import", jsonl(tmp_path / "r.jsonl", rows(users=12, questions=20)), folder).exit_code == 0
    assert fspo("split", folder, "--test-users", 0.167).exit_code == 0
    validate = ("validate", folder, "--shots", 4, "--queries", 2)
    said = fspo(*validate).stderr
    assert "on 4 questions" in said and "one more user has too few" in said
    command = proposed(said)
    assert command[-5:] == ["--test-questions", "0.3", "--test-users", "0.2", "--overwrite"]
    assert fspo(*command).exit_code == 0 and fspo(*validate).exit_code == 0
    assert len(Splits.load(folder / "splits.json").users["test"]) == 2


def test_too_few_questions_for_both_parts_are_no_matter_of_their_division(tmp_path: Path) -> None:
    folder = tmp_path / "ratings"
    assert fspo("import", jsonl(tmp_path / "r.jsonl", rows(users=12, questions=20)), folder).exit_code == 0
    assert fspo("split", folder, "--test-users", 0.167).exit_code == 0
    said = fspo("validate", folder, "--shots", 8, "--queries", 4).stderr
    assert "`" not in said and "collect preferences on more questions" in said


@pytest.mark.parametrize("option", ["--test-users", "--test-questions", "--validation"])
@pytest.mark.parametrize("share", ["20", "-1", "nan"])
def test_a_share_is_from_0_to_1(tmp_path: Path, option: str, share: str) -> None:
    result = fspo("split", tmp_path, option, share)
    assert result.exit_code == 2 and "not a share between 0 and 1, such as 0.2" in result.stderr


def test_a_misspelled_verb_gets_a_suggestion() -> None:
    result = CliRunner().invoke(app, ["runn"])
    assert result.exit_code == 2 and "No such command 'runn'. Did you mean 'run'?" in result.stderr
    assert "Did you mean" not in CliRunner().invoke(app, ["xyzzy"]).stderr


@pytest.mark.parametrize("total", range(6, 40))
def test_the_share_that_is_suggested_holds_out_three_users(total: int) -> None:
    people = from_table(rows(users=total, questions=4), file="rows")
    few = people.split(test_users=0.01, validation=0.05).splits
    share = float(proposed(few_held_out(Path("ratings"), people, few, []))[-1])
    enough = people.split(test_users=share).splits
    assert len(enough.users["test"]) >= 3 and len(enough.users["train"]) >= 3
    assert few_held_out(Path("ratings"), people, enough, []) == ""


def test_the_split_that_is_suggested_holds_out_questions_where_none_is() -> None:
    people = from_table(rows(users=12, questions=20), file="rows")
    few = people.split(test_users=0.1, test_questions=0).splits
    command = proposed(few_held_out(Path("ratings"), people, few, [EpisodeSize(4, 4)]))
    share = {name: float(value) for name, value in zip(command[2::2], command[3::2], strict=True)}
    parts = people.split(test_users=share["--test-users"], test_questions=share["--test-questions"])
    assert len(parts.test.users) >= 3 and len(parts.test) > 0


def test_no_split_is_suggested_that_leaves_too_little_to_train_on() -> None:
    people = from_table(rows(users=12, questions=20), file="rows")
    few = people.split(test_users=0.1, test_questions=0).splits
    said = few_held_out(Path("ratings"), people, few, [EpisodeSize(4, 4), EpisodeSize(10, 10)])
    assert "`" not in said and said.endswith("collect preferences of more users.")
    some = from_table(rows(users=5, questions=20), file="rows")
    said = few_held_out(Path("ratings"), some, some.split(test_users=0.2).splits, [])
    assert "`" not in said and said.startswith("Only 1 of 5 users is held out")


def test_a_split_warns_of_a_training_part_that_is_too_small_for_the_run(tmp_path: Path) -> None:
    folder, file = tmp_path / "ratings", tmp_path / "run.yaml"
    assert fspo("import", jsonl(tmp_path / "r.jsonl", rows(users=12, questions=10)), folder).exit_code == 0
    settings = "training: {ipo: {queries: 2}, fspo: {shots: 6, queries: 2}}"
    file.write_text(f"methods: [base, ipo, fspo]\nfrom_base: [fspo]\n{settings}\n")
    split = ("split", folder, "--test-users", 0.25, "--dry-run")
    for given, enough in (
        ((), True),
        (("--test-questions", 0.3), False),
        (("--test-questions", 0.3, "--config", file), False),
        (("--test-questions", 0.3, "--config", file, "--set", "training.fspo.shots=4"), True),
        (("--test-questions", 0.3, "--config", file, "--set", "training.fspo.skip_short_users=true"), False),
    ):
        said = fspo(*split, *given).output
        assert "train: 9 users" in said
        assert ("In the training part: " not in said) is enough, said


def test_a_split_that_is_there_is_kept_before_the_data_are_read(tmp_path: Path) -> None:
    (tmp_path / "splits.json").write_text("{}")
    said = fspo("split", tmp_path)
    assert said.exit_code == 1 and "splits.json already exists" in said.stderr


def test_existing_data_is_kept_unless_told_otherwise(tmp_path: Path, folder: Path, source: Path) -> None:
    assert "already exists" in fspo("import", source, folder).stderr
    assert fspo("import", source, folder, "--overwrite").exit_code == 0
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.jpg").write_text("me")
    assert "is not a dataset" in fspo("import", source, tmp_path / "photos", "--overwrite").stderr
    assert (tmp_path / "photos" / "me.jpg").exists()
    assert "already exists" in fspo("export", source, folder).stderr
    assert fspo("export", source, folder, "--overwrite").exit_code == 0
    (tmp_path / "empty").mkdir()
    assert fspo("import", source, tmp_path / "empty", "--overwrite").exit_code == 0


def test_a_dataset_is_not_exported_onto_itself(tmp_path: Path, folder: Path) -> None:
    assert fspo("split", folder).exit_code == 0
    before = (folder / "splits.json").read_bytes()
    (tmp_path / "link").symlink_to(folder)
    for target in (folder, tmp_path / "link"):
        said = fspo("export", target, folder, "--format", "parquet", "--overwrite")
        assert said.exit_code == 2 and "is not replaced" in said.stderr
    assert (folder / "splits.json").read_bytes() == before


@pytest.mark.parametrize("there", [False, True])
def test_the_arguments_of_an_export_in_the_order_of_an_import_are_told(
    tmp_path: Path, folder: Path, there: bool
) -> None:
    target = tmp_path / "x.jsonl"
    if there:
        target.write_text("{}\n")
    result = fspo("export", folder, target)
    assert result.exit_code == 2 and proposed(result.stderr) == ["export", str(target), str(folder)]
    assert fspo(*proposed(result.stderr), "--overwrite").exit_code == 0


def test_a_split_says_that_few_users_are_left_to_train_on(folder: Path) -> None:
    assert "Only 1 of 4 users is left to train on" in fspo("split", folder, "--test-users", 0.75, "--dry-run").output
    assert "left to train on" not in fspo("split", folder, "--test-users", 0.25, "--dry-run").output


def test_an_export_overwrites_no_users_and_no_splits_unasked(tmp_path: Path, folder: Path) -> None:
    people = jsonl(tmp_path / "new.users.jsonl", [{"id": "mine"}])
    result = fspo("export", tmp_path / "new.jsonl", folder)
    assert result.exit_code == 1
    assert f"{people} already exists" in result.stderr
    assert people.read_text() == '{"id": "mine"}\n'
    assert fspo("export", tmp_path / "new.jsonl", folder, "--overwrite").exit_code == 0
    parquet = ["--format", "parquet"]
    assert fspo("export", tmp_path / "copy", folder, *parquet).exit_code == 0
    assert fspo("split", tmp_path / "copy").exit_code == 0
    assert "already exists" in fspo("export", tmp_path / "copy", folder, *parquet).stderr
    assert "splits.json" not in fspo("export", tmp_path / "copy", folder, *parquet, "--overwrite").output
    assert (tmp_path / "copy/splits.json").exists()  # the data are the same
    fewer = jsonl(tmp_path / "fewer.jsonl", rows(users=3))
    assert fspo("import", fewer, tmp_path / "fewer").exit_code == 0
    said = fspo("export", tmp_path / "copy", tmp_path / "fewer", *parquet, "--overwrite").output
    assert "splits.json belongs to the old data and is removed" in said
    assert not (tmp_path / "copy/splits.json").exists()


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("r.parquet", [], "r.parquet must end in .jsonl for the format jsonl"),
        (
            "r.csv",
            ["--format", "trl"],
            "for the format trl; rename it, or choose --format parquet for a folder.",
        ),
        ("r.parquet", ["--format", "parquet"], "r.parquet has the name of a file, and a dataset is a folder"),
        ("r.jsonl", ["--conversational"], "--conversational means nothing for the format jsonl"),
    ],
)
def test_a_file_is_named_after_what_is_in_it(
    tmp_path: Path, folder: Path, name: str, arguments: list[str], message: str
) -> None:
    result = fspo("export", tmp_path / name, folder, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize("broken", ["fspo.preferences.dataset.write_parquet", "fspo.files._put_in_place"])
def test_a_dataset_that_can_not_be_replaced_stays_with_its_splits(
    tmp_path: Path, folder: Path, source: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    assert fspo("split", folder).exit_code == 0

    def full(*_: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    splits, fewer = (folder / "splits.json").read_text(), jsonl(tmp_path / "fewer.jsonl", rows(users=3))
    with monkeypatch.context() as patch:
        patch.setattr(broken, full)
        result = fspo("import", fewer, folder, "--overwrite")
    assert result.exit_code == 1
    assert "The disk is full" in result.stderr
    assert (folder / "splits.json").read_text() == splits
    assert len(PreferenceDataset.load(folder)) == 24
    assert sorted(path.name for path in folder.iterdir()) == [
        "dataset.json",
        "preferences.parquet",
        "splits.json",
        "users.parquet",
    ]


def test_a_dataset_is_the_old_one_or_the_new_one_whenever_its_import_is_killed(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fspo("split", folder).exit_code == 0
    seen: list[tuple[int, bool]] = []

    def watched(move: Callable[..., Any]) -> Callable[..., Any]:
        def moved(*paths: Any) -> Any:
            result = move(*paths)
            seen.append((len(PreferenceDataset.load(folder)), (folder / "splits.json").exists()))
            return result

        return moved

    fewer = jsonl(tmp_path / "fewer.jsonl", rows(users=3))
    for where, name in ((Path, "replace"), (Path, "rename"), (files, "_exchange")):
        monkeypatch.setattr(where, name, watched(getattr(where, name)))
    result = fspo("import", fewer, folder, "--overwrite")
    assert result.exit_code == 0, result.stderr
    assert set(seen) == {(24, True), (18, False)}


def test_replacing_a_dataset_leaves_other_files_and_removes_its_splits(tmp_path: Path, folder: Path) -> None:
    (folder / "raw").mkdir()
    (folder / "raw" / "answers.csv").write_text("mine")
    (folder / "latest.csv").symlink_to("raw/answers.csv")
    assert fspo("split", folder).exit_code == 0
    fewer = jsonl(tmp_path / "fewer.jsonl", rows(users=3))
    would = fspo("import", fewer, folder, "--overwrite", "--dry-run")
    assert "splits.json belongs to the old data and would be removed" in would.output
    assert (folder / "splits.json").exists()
    result = fspo("import", fewer, folder, "--overwrite")
    assert "splits.json belongs to the old data and is removed; divide the new data" in result.output
    assert len(PreferenceDataset.load(folder)) == 18
    assert not (folder / "splits.json").exists()
    assert (folder / "raw" / "answers.csv").read_text() == (folder / "latest.csv").read_text() == "mine"
    assert (folder / "latest.csv").is_symlink()
    assert "splits.json" not in fspo("import", fewer, folder, "--overwrite").output


def test_the_same_data_keep_their_splits(tmp_path: Path, folder: Path, source: Path) -> None:
    assert fspo("split", folder).exit_code == 0
    before = (folder / "splits.json").read_bytes()
    for dry in (["--dry-run"], []):
        result = fspo("import", source, folder, "--overwrite", *dry)
        assert result.exit_code == 0 and "splits" not in result.output
        assert (folder / "splits.json").read_bytes() == before
    (folder / "preferences.parquet").write_bytes(b"damaged")
    assert "is removed" in fspo("import", source, folder, "--overwrite").output
    assert not (folder / "splits.json").exists()


def test_the_option_for_a_column_by_another_name_is_told(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "own.jsonl", [{**row, "question_id": f"q{n}"} for n, row in enumerate(rows())])
    result = fspo("import", path, tmp_path / "out")
    assert "column 'question_id': unknown; did you mean 'question'?" in result.stderr
    assert "--column question=question_id" in result.stderr
    assert fspo("import", path, tmp_path / "out", "--column", "question=question_id").exit_code == 0
    assert PreferenceDataset.load(tmp_path / "out").questions()[:2] == ("q0", "q1")


def test_a_table_of_one_person_is_told_of_the_option(tmp_path: Path) -> None:
    alone = jsonl(
        tmp_path / "mine.jsonl", [{key: value for key, value in row.items() if key != "user"} for row in rows(1)]
    )
    refused = fspo("validate", alone)
    assert refused.exit_code == 1 and "add --user ID" in refused.output
    assert fspo("validate", alone, "--user", "ann").exit_code == 0


def test_a_target_below_a_file_is_refused_before_anything_is_written(source: Path) -> None:
    for dry in ([], ["--dry-run"]):
        found = CliRunner().invoke(app, ["data", "import", str(source), str(source / "data"), *dry])
        assert found.exit_code != 0 and f"{source} is a file" in found.output.replace("\n", "")


def test_a_dry_run_writes_nothing(tmp_path: Path, folder: Path, source: Path) -> None:
    assert "Would write 24 preferences" in fspo("import", source, tmp_path / "new", "--dry-run").output
    assert "Would write 24 preferences" in fspo("export", tmp_path / "new.jsonl", folder, "--dry-run").output
    assert "Would write" in fspo("split", folder, "--dry-run").output
    assert not (tmp_path / "new").exists()
    assert not (tmp_path / "new.jsonl").exists()
    assert not (folder / "splits.json").exists()


@pytest.mark.parametrize("file_format", ["jsonl", "trl"])
def test_rows_that_are_no_objects_are_counted_with_the_others(tmp_path: Path, file_format: str) -> None:
    path = jsonl(tmp_path / "rows.jsonl", rows())
    good = path.read_text().splitlines()
    path.write_text("\n".join([*good, '{"user": 1.5}', "[1, 2]", "torn {", good[0], '{"user": "u0"}']) + "\n")
    result = fspo("validate", path, "--format", file_format)
    assert result.exit_code == 1
    assert f"{path}, row {len(good) + 1}, columns 'prompt'" in result.stderr
    n = len(good) + 2
    assert "(3 more rows with problems: " in result.stderr
    assert all(f"row {row}" in result.stderr for row in (n, n + 1, n + 3))


def test_an_option_for_a_model_needs_one(source: Path) -> None:
    result = fspo("validate", source, "--max-length", 100)
    assert result.exit_code == 2 and "--max-length is for --model" in result.stderr


@pytest.mark.parametrize("verb", [["validate"], ["show"], ["export", "."], ["export", "new.jsonl"]])
def test_a_verb_without_a_dataset_asks_for_one(verb: list[str]) -> None:
    result = fspo(*verb)
    assert result.exit_code == 2
    assert "folder" in result.stderr and "configs/" not in result.stderr


def test_a_dataset_of_a_hub_is_read_like_any_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = jsonl(tmp_path / "part.jsonl", rows())
    monkeypatch.setattr("fspo.preferences.hub.fetch", lambda name, part: [file])
    assert fspo("import", "hub:somebody/else", tmp_path / "out").exit_code == 0
    assert len(PreferenceDataset.load(tmp_path / "out")) == 24
    file.write_text('{"user": "ann"}\n')
    assert "hub:somebody/else, row 1, columns 'prompt'" in fspo("validate", "hub:somebody/else").stderr


def test_a_table_is_recognised_and_what_was_done_with_it_is_said(tmp_path: Path) -> None:
    text = "Annotator,Question,Preferred,rejected,created_at\n"
    text += "ann,Why?,So.,Hence.,2026-01-01\nann,Why?,So.,Hence.,2026-01-01\nann,Why?,Hence.,So.,2026-02-01\n"
    source = tmp_path / "ratings.csv"
    source.write_text(text + "ben,Why?,So.,Hence.,2026-01-01\n")
    refused = fspo("import", source, tmp_path / "out")
    assert refused.exit_code == 1 and "--on-duplicate" in refused.stderr and "--on-contradiction" in refused.stderr
    options = ["--on-duplicate", "skip", "--on-contradiction", "newest"]
    done = fspo("import", source, tmp_path / "out", *options)
    assert done.exit_code == 0, done.stderr
    assert "Columns: user from 'Annotator', prompt from 'Question', chosen from 'Preferred'" in done.output
    assert "the newest counts, by the column 'created_at'" in done.output
    assert f"Left out: 2 rows of a pair that its user labels both ways. The first: {source}, row 2." in done.output
    assert [(row.user, row.chosen) for row in PreferenceDataset.load(tmp_path / "out")] == [
        ("ann", "Hence."),
        ("ben", "So."),
    ]
    card = (tmp_path / "out/README.md").read_text()
    assert "- 2 rows of a pair that its user labels both ways; the first: ratings.csv, row 2." in card
    assert "by the column 'created_at'" in card and str(tmp_path) not in card
    assert fspo("validate", source, *options).exit_code == 0


def test_conversations_are_exported_as_messages(tmp_path: Path) -> None:
    turns = [("system", "Be brief."), ("user", "Why?"), ("assistant", "How so?"), ("user", "Go on.")]
    prompt = [{"role": role, "content": text} for role, text in turns]
    path = jsonl(tmp_path / "c.jsonl", [{**rows()[0], "prompt": prompt}, rows()[1]])
    assert fspo("import", path, tmp_path / "out").exit_code == 0
    assert fspo("export", tmp_path / "trl.jsonl", tmp_path / "out", "--format", "trl").exit_code == 0
    first, second = map(json.loads, (tmp_path / "trl.jsonl").read_text().splitlines())
    assert first["prompt"] == prompt and first["chosen"] == [{"role": "assistant", "content": "0 is fine."}]
    assert second["prompt"] == [{"role": "user", "content": "What of 1?"}]
    assert fspo("import", tmp_path / "trl.jsonl", tmp_path / "again").exit_code == 0
    assert PreferenceDataset.load(tmp_path / "again") == PreferenceDataset.load(tmp_path / "out")
    assert "prompt:   System: Be brief." in fspo("show", tmp_path / "out", "--user", "u0").output


def test_the_working_folder_is_named_in_full(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert f"written to {tmp_path / 'here'}.\n" in fspo("import", source, ".").output


def test_a_damaged_manifest_is_named(folder: Path, source: Path) -> None:
    (folder / "dataset.json").write_text("{")
    result = fspo("import", source, folder, "--overwrite")
    assert result.exit_code == 2
    assert "its dataset.json is damaged" in result.stderr and "preferences.parquet" not in result.stderr


def test_users_are_shown_one_a_line(tmp_path: Path) -> None:
    odd = [row | {"user": row["user"] + "\nu9: 100 preferences."} for row in rows(users=2)]
    assert fspo("import", jsonl(tmp_path / "odd.jsonl", odd), tmp_path / "odd").exit_code == 0
    text = fspo("show", tmp_path / "odd").stdout
    assert len(text.splitlines()) == 4 and r"u0\nu9: 100 preferences." in text
    assert fspo("show", tmp_path / "odd", "--user", "a\nb").stderr.count("\n") == 1


def test_show_users_and_preferences(folder: Path) -> None:
    text = fspo("show", folder, "--limit", 2).output
    assert "u0: 6 preferences." in text
    assert "2 of 4 users" in text and "--limit 4" in text
    text = fspo("show", folder, "--user", "u1", "--limit", 1).output
    assert "rejected: 0 is not for user 1." in text
    assert "1 of 6 preferences" in text and "--limit 6" in text
    assert "--limit" not in fspo("show", folder, "--user", "u1", "--limit", 6).output
    said = fspo("show", folder, "--user", "u11").stderr
    assert "did you mean 'u1'?" in said and "4 users" in said
    said = fspo("show", folder, "--user", "nobody").stderr
    assert "4 users" in said and "'u0', 'u1', 'u2'" in said


def test_split_holds_out_users_and_questions(folder: Path) -> None:
    result = fspo("split", folder, "--test-users", 0.25, "--test-questions", 0.5)
    assert "train: 3 users, 3 questions, 9 preferences" in result.output
    splits = Splits.load(folder / "splits.json")
    assert len(splits.users["test"]) == 1
    assert "already exists" in fspo("split", folder).stderr
    assert fspo("split", folder, "--seed", 1, "--overwrite").exit_code == 0
    assert fspo("split", folder, "--test-users", 0.9, "--validation", 0.2, "--overwrite").exit_code == 2


def test_the_dataset_of_a_configuration(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(f"data: {folder}\n")
    assert "24 preferences" in fspo("show", "--config", path).output
    assert "24 preferences" in fspo("validate", "--config", path).output
    for arguments in (("show", folder), ("validate", folder), ("export", tmp_path / "rows.jsonl", folder)):
        for option in (("--config", path), ("--set", "seed=1")):
            result = fspo(*arguments, *option)
            assert result.exit_code == 2 and option[0] in result.stderr
    assert not (tmp_path / "rows.jsonl").exists()
    result = fspo("show", "--config", path, "--set", f"data={tmp_path / 'no'}")
    assert result.exit_code == 1
    assert f"no folder {tmp_path / 'no'}" in result.stderr and "fspo data import" in result.stderr


def test_published_data_is_read_in_its_own_columns(tmp_path: Path) -> None:
    row = {"prompt": "Why?", "response_x": "So.", "response_y": "Hence.", "scorer_level": "child", "label": 0}
    source = jsonl(tmp_path / "elix.jsonl", [row, row])
    done = fspo("import", source, tmp_path / "out", "--format", "elix")
    assert done.exit_code == 0, done.output
    assert "Left out: 1 row repeating an earlier one." in done.output
    assert "1 preference of 1 user" in done.output
    for option in ("--drawn-users=3", "--seed=0", "--pairs=2"):
        refused = fspo("import", source, tmp_path / "no", "--format", "elix", option)
        assert f"{option.split('=')[0]} means nothing for the format elix" in refused.stderr
    assert (tmp_path / "out/README.md").read_text().count("1 row repeating an earlier one; the first:") == 1


def test_the_format_of_published_data_is_named_where_its_columns_are_found(tmp_path: Path) -> None:
    row = {"prompt": "Why?", "response_x": "So.", "response_y": "Hence.", "scorer_level": "child", "label": 0}
    for record, named in ((row, "add --format elix or reviews."), (prism("i", "a", True), "add --format prism.")):
        source = jsonl(tmp_path / "theirs.jsonl", [record])
        assert named in fspo("import", source, tmp_path / "out").stderr
    assert "--format" not in fspo("import", jsonl(tmp_path / "own.jsonl", [{"a": 1}]), tmp_path / "out").stderr


def test_published_rows_that_can_not_be_used_are_told_by_file_and_row_and_kept_in_the_card(tmp_path: Path) -> None:
    half = ROLEPLAY | {"level": 3, "score_persona": {"persona_uuid": None, "persona_description": "\ud83d"}}
    source = jsonl(tmp_path / "theirs.jsonl", [ROLEPLAY, half])
    done = fspo("import", source, tmp_path / "out", "--format", "roleplay")
    assert done.exit_code == 0, done.stderr
    assert f"Left out: 1 row with half of a surrogate pair. The first: {source}, row 2." in done.output
    dataset = PreferenceDataset.load(tmp_path / "out")
    assert [row.user for row in dataset] == ["17"]
    card = (tmp_path / "out/README.md").read_text()
    assert "- 1 row with half of a surrogate pair; the first: " in card
    assert str(tmp_path) not in card
    # A card belongs to its data and goes with it; what somebody wrote about the data stays.
    assert fspo("import", source, tmp_path / "mine", "--format", "roleplay").exit_code == 0
    (tmp_path / "mine/README.md").write_text("My notes.")
    for folder in ("out", "mine"):
        own = jsonl(tmp_path / "own.jsonl", rows())
        assert fspo("import", own, tmp_path / folder, "--overwrite").exit_code == 0
    assert not (tmp_path / "out/README.md").exists()
    assert (tmp_path / "mine/README.md").read_text() == "My notes."


def test_people_of_prism_are_never_mixed(tmp_path: Path) -> None:
    nowhere = [
        prism(None, "Yes.", True, user_id="ann", user_prompt="Is it warm?"),
        prism(None, "Nobody.", False, user_id="ben", user_prompt="Who won?"),
    ]
    source = jsonl(tmp_path / "u.jsonl", [*nowhere, prism("i", "a", "False"), prism("i", "b", "True")])
    done = fspo("import", source, tmp_path / "out", "--format", "prism")
    assert done.exit_code == 0, done.stderr
    assert "Left out: 2 rows without a user or an interaction. The first: " in done.output
    assert [(row.user, row.chosen, row.rejected) for row in PreferenceDataset.load(tmp_path / "out")] == [
        ("user0", "b", "a")
    ]


def test_only_the_part_that_is_asked_for_is_read(tmp_path: Path) -> None:
    row = {"prompt": "Why?", "response_x": "So.", "response_y": "Hence.", "scorer_level": "child", "label": 0}
    folder = tmp_path / "test-results"
    folder.mkdir()
    jsonl(folder / "latest-train.jsonl", [row])
    with pytest.raises(DataError, match=r"part 'test' \(there are latest-train.jsonl\)"):
        read_published(str(folder), Source.ELIX, part="test")
    jsonl(folder / "test-0.jsonl", [row | {"prompt": "How?"}])
    assert [row.prompt for row in read_published(str(folder), Source.ELIX, part="test").dataset] == ["How?"]
    assert len(read_published(str(folder), Source.ELIX).dataset) == 2


def test_spellings_of_one_question_are_told_and_counted_as_one(tmp_path: Path) -> None:
    row = {"user": "ann", "prompt": "Is it warm?", "chosen": "Yes.", "rejected": "No."}
    respelt = [
        row,
        row | {"prompt": "is it  warm? "},
        row | {"prompt": "IS IT WARM?", "chosen": "No.", "rejected": "Yes."},
        row | {"prompt": "Is it warm\uff1f", "rejected": "Never."},
    ]
    source = jsonl(tmp_path / "ratings.jsonl", [*respelt, row | {"prompt": "Why?"}])
    source.write_text("\n" + source.read_text())  # an editor counts blank lines too
    said = "Questions written in several ways: 1, such as 'Is it warm?' and 'is it  warm? '."
    result = fspo("import", source, tmp_path / "out")
    assert result.exit_code == 0 and said in " ".join(result.output.split("\n"))
    for place, blank in ((source, 1), (tmp_path / "out", 0)):
        result = fspo("validate", place)
        assert result.exit_code == 0, result.stderr
        assert "5 preferences of 1 user on 2 questions" in result.output
        assert said in result.output
        assert f"with the same label: row {2 + blank} (as row {1 + blank})" in result.output
        assert f"with the opposite label: row {3 + blank} (as row {1 + blank})" in result.output


def test_a_split_with_one_question_on_both_sides_is_refused_with_what_to_do(tmp_path: Path) -> None:
    row = {"chosen": "Yes.", "rejected": "No."}
    prompts = [(f"Is it {n}?", f"is it  {n}? ") for n in range(6)]
    records = [{**row, "user": user, "prompt": way} for user in ("ann", "ben") for ways in prompts for way in ways]
    folder = tmp_path / "out"
    assert fspo("import", jsonl(tmp_path / "r.jsonl", records), folder).exit_code == 0
    assert fspo("split", folder, "--test-users", 0.5, "--test-questions", 0.5).exit_code == 0
    assert fspo("validate", folder).exit_code == 0
    # As they were divided before spellings counted as one question.
    parts = {"train": [one for one, _ in prompts], "test": [other for _, other in prompts]}
    users = {"train": ["ann"], "test": ["ben"]}
    (folder / "splits.json").write_text(json.dumps({"users": users, "questions": parts}))
    result = fspo("validate", folder)
    assert result.exit_code == 1
    assert "Prompt 'Is it 0?' is in training data and test data alike (there as 'is it  0? '" in result.stderr
    assert "(5 more like it); divide the data again with `fspo data split --overwrite`" in result.stderr
    assert fspo("split", folder, "--test-users", 0.5, "--test-questions", 0.5, "--overwrite").exit_code == 0
    assert fspo("validate", folder).exit_code == 0


def test_feedback_with_whole_conversations_is_taken(tmp_path: Path) -> None:
    question = {"role": "user", "content": "Why?"}
    said = [[question, {"role": "assistant", "content": text}] for text in ("So.", "Hence.")]
    row = {"prompt": "Why?", "prompt_id": "x1", "chosen": said[0], "rejected": said[1], "messages": said[0]}
    path = jsonl(tmp_path / "feedback.jsonl", [row])
    done = fspo("import", path, tmp_path / "out", "--format", "trl", "--user", "everybody")
    assert done.exit_code == 0, done.stderr
    (only,) = PreferenceDataset.load(tmp_path / "out").preferences
    assert (only.prompt, only.chosen, only.rejected) == ("Why?", "So.", "Hence.")


def test_a_damaged_text_is_named_by_file_row_and_column(tmp_path: Path) -> None:
    texts = pa.array([b"So.", b"Hence.", b"\xff\xfe"], pa.binary())
    torn = pa.Array.from_buffers(pa.string(), 3, texts.buffers())
    columns = {"user": ["ann"] * 3, "prompt": ["Why?"] * 3, "chosen": ["Yes."] * 3, "rejected": torn}
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    result = fspo("import", tmp_path / "rows.parquet", tmp_path / "out", "--format", "trl")
    assert result.exit_code == 1
    assert f"{tmp_path / 'rows.parquet'}, row 3, column 'rejected': can't be read" in result.stderr
    whole = json.dumps(ROLEPLAY)
    (tmp_path / "rows.jsonl").write_text(f"{whole}\n{whole[:40]}\n{whole}\n")
    result = fspo("import", tmp_path / "rows.jsonl", tmp_path / "out", "--format", "roleplay")
    assert result.exit_code == 1
    assert f"{tmp_path / 'rows.jsonl'}, row 2: not a line of JSON" in result.stderr
    assert not (tmp_path / "out").exists()
