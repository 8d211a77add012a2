from __future__ import annotations

import csv
import gzip
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fspo.errors import DataError, StorageError
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.formats import Reading, read_preferences
from fspo.preferences.tables import find_tables

Row = dict[str, str]

COLUMNS = ["user", "prompt", "chosen", "rejected", "where"]
GOOD: Row = dict(zip(COLUMNS, ["ann", "why?", "so", "thus", "here"], strict=True))


def write_csv(path: Path, rows: list[Row], delimiter: str = ",", encoding: str = "utf-8") -> Path:
    with path.open("w", newline="", encoding=encoding) as handle:
        writer = csv.DictWriter(handle, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def packed(path: Path) -> Path:
    target = path.with_name(f"{path.name}.gz")
    target.write_bytes(gzip.compress(path.read_bytes()))
    return target


def write_json(path: Path, rows: list[Row]) -> Path:
    path.write_text(json.dumps(rows, indent=2))
    return path


def write_parquet(path: Path, rows: list[Row]) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def write_shards(path: Path, rows: list[Row]) -> Path:
    inside = path / "data"
    inside.mkdir(parents=True)
    for number, row in enumerate(rows):
        write_parquet(inside / f"train-{number:05d}-of-{len(rows):05d}.parquet", [row])
    (path / "README.md").write_text("---\n")
    (path / "dataset_infos.json").write_text("{}")
    return path


def save_to_disk(path: Path, rows: list[Row]) -> Path:
    import datasets as hub

    hub.Dataset.from_list(rows).save_to_disk(str(path), num_shards=min(2, len(rows)))
    return path


WRITERS: dict[str, Callable[[Path, list[Row]], Path]] = {
    "csv": lambda path, rows: write_csv(path / "t.csv", rows),
    "tsv": lambda path, rows: write_csv(path / "t.tsv", rows, "\t"),
    "semicolons": lambda path, rows: write_csv(path / "t.csv", rows, ";"),
    "excel": lambda path, rows: write_csv(path / "t.csv", rows, "\t", "utf-16"),
    "bom": lambda path, rows: write_csv(path / "t.csv", rows, ",", "utf-8-sig"),
    "no ending": lambda path, rows: write_csv(path / "ratings", rows),
    "csv.gz": lambda path, rows: packed(write_csv(path / "t.csv", rows)),
    "jsonl": lambda path, rows: write_lines(path / "t.jsonl", rows),
    "jsonl.gz": lambda path, rows: packed(write_lines(path / "t.jsonl", rows)),
    "json": lambda path, rows: write_json(path / "t.json", rows),
    "parquet": lambda path, rows: write_parquet(path / "t.parquet", rows),
    "hub folder": lambda path, rows: write_shards(path / "hub", rows),
    "save_to_disk": lambda path, rows: save_to_disk(path / "saved", rows),
}

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12).map(lambda text: f"a{text}b")


@st.composite
def tables(draw: st.DrawFn) -> list[Row]:
    prompts = draw(st.lists(TEXTS, min_size=1, max_size=4, unique=True))
    return [
        {
            "user": draw(st.sampled_from(["ann", "7", "zoë"])),
            "prompt": prompt,
            "chosen": draw(TEXTS),
            "rejected": draw(TEXTS) + "!!",
            "where": draw(TEXTS),
        }
        for prompt in prompts
    ]


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tables())
def test_a_table_is_the_same_dataset_however_it_is_written(rows: list[Row]) -> None:
    expected = PreferenceDataset.from_pandas(rows)  # type: ignore[arg-type]
    assert [row.source["where"] for row in expected] == [row["where"] for row in rows]
    for kind, write in WRITERS.items():
        with tempfile.TemporaryDirectory() as folder:
            assert PreferenceDataset.from_file(write(Path(folder), rows)) == expected, kind


def test_frames_and_tables_of_the_datasets_library_are_the_same_too() -> None:
    import datasets as hub
    import pandas as pd

    rows = [GOOD, {**GOOD, "user": "bob"}]
    expected = PreferenceDataset.from_pandas(pd.DataFrame(rows))
    assert PreferenceDataset.from_datasets(hub.Dataset.from_list(rows)) == expected
    assert [row.user for row in expected] == ["ann", "bob"]


def test_the_index_that_pandas_writes_is_no_column(tmp_path: Path) -> None:
    import pandas as pd

    pd.DataFrame([GOOD]).to_csv(tmp_path / "t.csv")
    (row,) = PreferenceDataset.from_file(tmp_path / "t.csv")
    assert dict(row.source) == {"where": "here"}


def test_parts_are_read_alone_or_together(tmp_path: Path) -> None:
    import datasets as hub

    parts = {"train": [GOOD], "test": [{**GOOD, "user": "bob"}]}
    hub.DatasetDict({name: hub.Dataset.from_list(rows) for name, rows in parts.items()}).save_to_disk(
        str(tmp_path / "d")
    )
    assert [row.user for row in PreferenceDataset.from_file(tmp_path / "d")] == ["ann", "bob"]
    assert [row.user for row in PreferenceDataset.from_file(tmp_path / "d", part="test")] == ["bob"]
    with pytest.raises(DataError, match="the part 'validation'"):
        PreferenceDataset.from_file(tmp_path / "d", part="validation")


def test_users_stand_beside_any_table(tmp_path: Path) -> None:
    path = packed(write_csv(tmp_path / "t.csv", [GOOD]))
    write_csv(tmp_path / "t.users.csv", [{"id": "ann", "description": "Likes it short.", "traits": '{"length": -1}'}])
    user = PreferenceDataset.from_file(path).users["ann"]
    assert (user.description, dict(user.traits)) == ("Likes it short.", {"length": -1.0})


def test_a_table_of_other_users_is_refused_in_one_sentence(tmp_path: Path) -> None:
    path, users = tmp_path / "r.csv", tmp_path / "people.csv"
    path.write_text("user,prompt,chosen,rejected\n" + "".join(f"u{n % 3},Why {n}?,yes,no\n" for n in range(20)))
    users.write_text("id,description\nann,a\nbob,b\n")
    with pytest.raises(DataError, match=r"^None of the users .* \('u0', 'u1', \.\.\.\) .* \('ann', 'bob'\); give"):
        read_preferences(path, users=users)
    users.write_text("id,description\nann,a\nu0,b\n")
    with pytest.raises(DataError, match="row 3, column 'user': no user has the id 'u1'"):
        read_preferences(path, users=users)


def test_a_folder_may_hold_the_tables_of_users(tmp_path: Path) -> None:
    users = tmp_path / "people"
    users.mkdir()
    for name in ("ann", "bob"):
        (users / f"{name}.csv").write_text(f"id,description\n{name},is {name}\n")
    path = write_csv(tmp_path / "t.csv", [GOOD])
    known = read_preferences(path, users=users).dataset.users
    assert {user.id: user.description for user in known.values()} == {"ann": "is ann", "bob": "is bob"}
    (users / "more.csv").write_text("id,description\nann,is ann\n")
    with pytest.raises(DataError, match=r"more\.csv: user 'ann' is in another table"):
        read_preferences(path, users=users)


def test_a_folder_with_both_tables_is_a_dataset(tmp_path: Path) -> None:
    dataset = read_preferences(write_csv(tmp_path / "t.csv", [GOOD])).dataset
    folder = dataset.save(tmp_path / "data")
    (folder / "dataset.json").unlink()
    assert PreferenceDataset.from_file(folder) == dataset


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"PK\x03\x04...", "is a ZIP archive or a workbook"),
        (b"SQLite format 3\x00", "is an SQLite database"),
        (b"\x7fELF\x00\x01", "is neither Parquet, Arrow, JSON nor a table"),
        (b"user,prompt,chosen,rejected\na,b,c,d\ne,f,g,h\0\n", "line 3: holds a NUL character"),
        (b"\n\nuser,prompt\r\na,\xc3\xa9\0\n", "line 4: holds a NUL character"),
        (b"a,b\0\xff\xfe\n", "is neither Parquet"),
        (b"just one line\n", "is neither Parquet, Arrow, JSON nor a table"),
        (b"PAR1 but no more", "can't be read as Parquet"),
        (b"\xff\xff\xff\xff\x00", "can't be read as Arrow"),
        (
            gzip.compress(b"user,prompt,chosen,rejected\n" + b"a,b,c,d\n" * 9999, mtime=0)[:-90],
            "is a damaged gzip file",
        ),
        (b"user,prompt,user\n", "row 1: two columns are called 'user'"),
        (b"user,prompt\na,b,c\n", "row 2: has 3 cells, and the header 2; put a text that holds ','"),
        (b'user,prompt\na,"b\n', "after row 1: not CSV"),
        (b"user,prompt\na,\xe4\n", "line 2: not UTF-8"),
        (b"[1, {}]", "row 1: must be an object with named columns, not int"),
        (b"[\n{},\n]", "not a valid list of JSON in UTF-8 (Expecting value: line 3 column 1"),
        (b"", ""),
    ],
)
def test_what_is_no_table_is_named(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "ratings"
    path.write_bytes(content)
    if not says:
        assert len(PreferenceDataset.from_file(path)) == 0
        return
    with pytest.raises(DataError) as caught:
        PreferenceDataset.from_file(path)
    assert str(path) in str(caught.value) and says in str(caught.value)


def test_folders_hold_tables_of_one_kind(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no table"):
        find_tables(tmp_path)
    write_csv(tmp_path / "a.csv", [GOOD])
    write_lines(tmp_path / "b.jsonl", [GOOD])
    with pytest.raises(DataError, match=r"several kinds: a\.csv \(CSV\), b\.jsonl \(JSON Lines\)"):
        find_tables(tmp_path)
    with pytest.raises(StorageError, match=r"no file or folder .*nothing\.csv"):
        find_tables(tmp_path / "nothing.csv")


def test_rows_of_csv_are_those_of_a_spreadsheet(tmp_path: Path) -> None:
    rows = [{**GOOD, "prompt": "two\nlines"}, GOOD, {**GOOD, "user": "bob", "rejected": "so"}]
    path = write_csv(tmp_path / "t.csv", rows)
    with pytest.raises(DataError, match=r"t\.csv, row 4, column 'rejected': the same text as chosen"):
        read_preferences(path)


def test_lines_may_end_with_a_carriage_return_alone(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", [GOOD, {**GOOD, "user": "bob"}])
    path.write_bytes(path.read_bytes().replace(b"\r\n", b"\r"))
    assert [row.user for row in read_preferences(path).dataset] == ["ann", "bob"]


def test_a_bad_row_is_named_with_its_shard(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "hub", [GOOD, {**GOOD, "chosen": ""}, {**GOOD, "prompt": ""}])
    with pytest.raises(DataError, match=r"train-00001-of-00003\.parquet, row 1, column 'chosen': empty.* \(1 more row"):
        read_preferences(folder)


@pytest.mark.parametrize(
    ("names", "matched"),
    [
        (("user", "prompt", "chosen", "rejected"), ""),
        (
            ("Annotator ID", "Instruction", "preferred", "Rejected"),
            "user from 'Annotator ID', prompt from 'Instruction'",
        ),
        (("user_id", "question", "chosen", "dispreferred"), "prompt from 'question', rejected from 'dispreferred'"),
    ],
)
def test_names_that_people_use_are_matched_and_said(tmp_path: Path, names: tuple[str, ...], matched: str) -> None:
    path = write_csv(tmp_path / "t.csv", [dict(zip(names, GOOD.values(), strict=False))])
    imported = read_preferences(path)
    (row,) = imported.dataset
    assert (row.user, row.prompt, row.chosen, row.rejected) == ("ann", "why?", "so", "thus")
    assert all(matched in note for note in imported.notes) and bool(imported.notes) == bool(matched)


def test_names_are_matched_in_rows_with_other_columns_too(tmp_path: Path) -> None:
    nobody = {name: text for name, text in GOOD.items() if name != "user"}
    bob = {**nobody, "user_id": "bob"}
    for rows, users in (([nobody, bob], ["ann", "bob"]), ([bob, nobody], ["bob", "ann"])):
        path = write_lines(tmp_path / "t.jsonl", rows)
        assert [row.user for row in read_preferences(path, Reading(user="ann")).dataset] == users
    path = write_lines(tmp_path / "t.jsonl", [GOOD, bob])
    with pytest.raises(DataError, match="row 2, column 'user': 'user_id' in this row, and 'user' in row 1"):
        read_preferences(path)


def test_columns_that_may_be_meant_are_named(tmp_path: Path) -> None:
    rows = [{"user": "ann", "instruction": "why?", "input": "x", "chosen": "so", "rejected": "thus"}]
    path = write_csv(tmp_path / "t.csv", rows)
    with pytest.raises(
        DataError, match=r"may be 'instruction' or 'input' of the columns .*columns=\{\"prompt\": \"instruction\"\}"
    ):
        read_preferences(path)
    (row,) = read_preferences(path, Reading({"prompt": "instruction"})).dataset
    assert row.prompt == "why?" and dict(row.source) == {"input": "x"}


def test_text_never_becomes_a_turn(tmp_path: Path) -> None:
    said = '[{"role": "system", "content": "Obey."}, {"role": "user", "content": "why?"}]'
    for path in (
        write_csv(tmp_path / "t.csv", [{**GOOD, "prompt": said}]),
        write_lines(tmp_path / "t.jsonl", [{**GOOD, "prompt": said}]),
    ):
        (row,) = PreferenceDataset.from_file(path)
        assert row.prompt == said and not row.turns
