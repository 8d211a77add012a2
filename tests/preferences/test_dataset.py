from __future__ import annotations

import json
import pickle
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given

from fspo.errors import ConfigError, DataError, StorageError
from fspo.files import check_replaceable
from fspo.preferences.dataset import DATASET, PreferenceDataset, load_once
from fspo.preferences.types import Preference, Turn, User
from tests.preferences.worlds import datasets, grid
from tests.training.helpers import small_dataset


@given(datasets())
def test_a_dataset_comes_back_from_disk_as_it_was(dataset: PreferenceDataset) -> None:
    with tempfile.TemporaryDirectory() as folder:
        dataset.save(folder)
        again = PreferenceDataset.load(folder)
    assert again == dataset
    assert again.fingerprint == dataset.fingerprint
    assert list(again.users) == list(dataset.users)


def test_pyarrow_pandas_datasets_and_duckdb_read_it_without_us(tmp_path: Path) -> None:
    import datasets as hub
    import duckdb
    import pandas as pd

    dataset = grid()
    dataset.save(tmp_path)
    first = {
        "user": "u0",
        "prompt": "What about 0?",
        "chosen": "A long answer to 0",
        "rejected": "A short answer to 0",
        "question": "q0",
        "source": '{"model": "none", "seed": 0}',
    }
    path = tmp_path / "preferences.parquet"
    assert pq.read_table(path).to_pylist()[0] == first
    assert pd.read_parquet(path).iloc[0].to_dict() == first
    rows = hub.Dataset.from_parquet(str(path), cache_dir=str(tmp_path / "cache"))
    assert rows[0] == first and len(rows) == len(dataset)
    found = duckdb.sql(
        f"""SELECT "user", count(*), avg(len(chosen))
        FROM '{path}' p JOIN '{tmp_path}/users.parquet' u ON p."user" = u.id
        WHERE CAST(u.traits->>'length' AS DOUBLE) > 0 AND CAST(p.source->>'seed' AS INT) < 10 GROUP BY 1 ORDER BY 1"""
    ).fetchall()
    assert found == [("u0", 10, 18.0), ("u2", 10, 18.0), ("u4", 10, 18.0)]
    manifest = json.loads((tmp_path / "dataset.json").read_text())
    assert (manifest["format"], manifest["users"], manifest["preferences"], manifest["questions"]) == (1, 6, 72, 12)


def test_data_without_conversations_keep_their_fingerprint_and_columns(tmp_path: Path) -> None:
    rows = [Preference("ann", "why?", "so", "thus")]
    dataset = PreferenceDataset([User("ann")], rows)
    assert dataset.fingerprint == "d729d97fe58ab0622a014b20d3efe028fc92339c9a7efcb232430d2b018b670b"
    dataset.save(tmp_path)
    columns = ["user", "prompt", "chosen", "rejected", "question", "source"]
    assert pq.read_schema(tmp_path / "preferences.parquet").names == columns
    turns = (Turn("user", "why?"), Turn("assistant", "how so?"), Turn("user", "why?"))
    spoken = PreferenceDataset([User("ann")], [*rows, Preference.after("ann", turns, "so", "thus")])
    spoken.save(tmp_path)
    assert pq.read_schema(tmp_path / "preferences.parquet").names == [*columns, "prompt_turns"]
    check_replaceable(tmp_path, DATASET)
    assert PreferenceDataset.load(tmp_path) == spoken and spoken.question_count == 2


def test_saving_leaves_the_folder_s_other_files_alone_and_can_be_repeated(tmp_path: Path) -> None:
    (tmp_path / "responses.jsonl").write_text("{}\n")
    grid().save(tmp_path)
    grid(users=2).save(tmp_path)
    assert PreferenceDataset.load(tmp_path) == grid(users=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "dataset.json",
        "preferences.parquet",
        "responses.jsonl",
        "users.parquet",
    ]


def test_only_tables_that_fspo_wrote_are_replaced(tmp_path: Path) -> None:
    def refused(folder: Path, why: str) -> None:
        with pytest.raises(ConfigError, match=rf"is not a dataset \({why}\), so it is not replaced"):
            check_replaceable(folder, DATASET)

    dataset = grid().save(tmp_path / "set")
    check_replaceable(dataset, DATASET)
    (dataset / "dataset.json").unlink()
    check_replaceable(dataset, DATASET)
    (dataset / "users.parquet").unlink()
    check_replaceable(dataset, DATASET)
    for text in ('{"name": "data of somebody else"}', "[]"):
        (dataset / "dataset.json").write_text(text)
        refused(dataset, "fspo did not write its dataset.json")
    (dataset / "dataset.json").write_text("{")
    refused(dataset, "its dataset.json is damaged")
    (dataset / "dataset.json").unlink()
    pq.write_table(pa.table({"id": ["1"], "age": [30]}), dataset / "users.parquet")
    refused(dataset, "fspo did not write its users.parquet")

    own = tmp_path / "own"
    own.mkdir()
    columns = {"user": ["u"], "prompt": ["p"], "chosen": ["a"], "rejected": ["b"]}
    pq.write_table(pa.table(columns), own / "preferences.parquet")
    refused(own, "fspo did not write its preferences.parquet")
    (own / "preferences.parquet").write_text("not Parquet")
    refused(own, "fspo did not write its preferences.parquet")


def test_parquet_of_one_s_own_is_a_dataset_without_a_manifest(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1, 2]}), tmp_path / "users.parquet")
    columns = {"user": [1], "prompt": ["p"], "chosen": ["a"], "rejected": ["b"], "country": ["NZ"]}
    pq.write_table(pa.table(columns), tmp_path / "preferences.parquet")
    assert PreferenceDataset.load(tmp_path) == PreferenceDataset(
        [User("1"), User("2")], [Preference("1", "p", "a", "b", source={"country": "NZ"})]
    )


@pytest.mark.parametrize("digests", [[], {"other.parquet": "0"}, {"../users.parquet": "0"}])
def test_a_damaged_manifest_is_said(tmp_path: Path, digests: object) -> None:
    grid().save(tmp_path)
    (tmp_path / "dataset.json").write_text(json.dumps({"format": 1, "sha256": digests}))
    with pytest.raises(DataError, match=r"dataset\.json is damaged: its 'sha256' must name users\.parquet"):
        PreferenceDataset.load(tmp_path)


def test_text_that_is_not_utf_8_is_said(tmp_path: Path) -> None:
    grid(users=1, questions=1).save(tmp_path)
    table = pq.read_table(tmp_path / "preferences.parquet")
    text = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff\xfe"]).buffers())
    pq.write_table(table.set_column(1, "prompt", text), tmp_path / "preferences.parquet")
    (tmp_path / "dataset.json").unlink()
    with pytest.raises(DataError, match=r"preferences\.parquet, row 1, column 'prompt': can't be read \(.*utf-8"):
        PreferenceDataset.load(tmp_path)


def test_what_is_wrong_on_disk_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is not a dataset: it has no users\.parquet"):
        PreferenceDataset.load(tmp_path)
    grid().save(tmp_path)
    path = tmp_path / "preferences.parquet"
    table = pq.read_table(path)
    pq.write_table(table.slice(5), path)
    with pytest.raises(DataError, match=r"not the file that dataset\.json describes.*delete"):
        PreferenceDataset.load(tmp_path)
    (tmp_path / "dataset.json").write_text('{"format": 99}')
    with pytest.raises(DataError, match="format 99"):
        PreferenceDataset.load(tmp_path)
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(StorageError, match="not valid JSON"):
        PreferenceDataset.load(tmp_path)
    (tmp_path / "dataset.json").unlink()
    pq.write_table(table.rename_columns(["user", "prompt", "chosen", "rejectd", "question", "source"]), path)
    with pytest.raises(
        DataError, match=r"preferences\.parquet, row 1, column 'rejected': missing; .* rename 'rejectd' to 'rejected'\?"
    ):
        PreferenceDataset.load(tmp_path)
    pq.write_table(pa.concat_tables([table, table.slice(3, 1)]), path)
    with pytest.raises(DataError, match=r"preferences\.parquet, row 73, column 'chosen': repeats row 4"):
        PreferenceDataset.load(tmp_path)
    path.write_bytes(b"not Parquet at all")
    with pytest.raises(DataError, match="can't be read as Parquet"):
        PreferenceDataset.load(tmp_path)


def test_a_dataset_that_does_not_hold_together_can_not_be_made() -> None:
    with pytest.raises(DataError, match=r"row 2, column 'id': user 'a' occurs twice"):
        PreferenceDataset([User("a"), User("a")])
    with pytest.raises(DataError, match=r"row 1, column 'id': empty"):
        PreferenceDataset([User(" ")])
    with pytest.raises(DataError, match=r"row 1, column 'description': .*surrogate"):
        PreferenceDataset([User("a", "\udc00")])
    with pytest.raises(DataError, match="no user has the id 'b'"):
        PreferenceDataset([User("a")], [Preference("b", "p", "x", "y")])


def test_of_user_questions_and_length() -> None:
    dataset = grid(users=3, questions=4)
    assert len(dataset) == len(list(dataset)) == 12
    assert dataset.questions() == ("q0", "q1", "q2", "q3")
    assert [row.question for row in dataset.of_user("u1")] == ["q0", "q1", "q2", "q3"]
    assert {row.user for row in dataset.of_user("u1")} == {"u1"}
    assert PreferenceDataset([User("a")]).of_user("a") == ()
    with pytest.raises(DataError, match="no user 'u7'"):
        dataset.of_user("u7")


def test_select_keeps_what_was_asked_for_and_knows_what_there_is() -> None:
    dataset = grid()
    part = dataset.select(users=["u1", "u4"], questions={"q3"})
    assert list(part.users) == ["u1", "u4"] and [row.user for row in part] == ["u1", "u4"]
    assert part.questions() == ("q3",)
    assert list(dataset.select(questions=[]).users) == list(dataset.users)
    assert dataset.select() == dataset
    with pytest.raises(DataError, match="no question 'q99'; did you mean 'q9'"):
        dataset.select(questions=["q99"])
    with pytest.raises(DataError, match="list of ids"):
        dataset.select(users="u1")


def test_merge_unites_and_refuses_contradictions() -> None:
    dataset = grid()
    half, rest = dataset.select(questions=["q0", "q1"]), dataset.select(questions=["q1", "q2"])
    both = half.merge(rest)
    assert both == half.merge(both) and set(both) == set(dataset.select(questions=["q0", "q1", "q2"]))
    with pytest.raises(DataError, match="user 'u0' differently"):
        dataset.merge(PreferenceDataset([User("u0", "someone else")]))
    opposite = PreferenceDataset(dataset.users, [row.swap() for row in dataset])
    with pytest.raises(DataError, match="contradicts row 1"):
        dataset.merge(opposite)


def test_a_dataset_never_changes_and_travels_to_other_processes() -> None:
    dataset = grid()
    with pytest.raises(AttributeError, match="can't be changed"):
        dataset.preferences = ()
    with pytest.raises(TypeError):
        dataset.users["x"] = User("x")  # type: ignore[index]
    again = pickle.loads(pickle.dumps(dataset))
    assert again == dataset and hash(again) == hash(dataset)
    assert dataset != "another thing" and dataset != grid(users=2)
    assert repr(dataset) == "PreferenceDataset(6 users, 72 preferences, 12 questions)"


def test_texts_that_recur_are_held_in_memory_once(tmp_path: Path) -> None:
    grid().save(tmp_path)
    dataset = PreferenceDataset.load(tmp_path)
    one, other = dataset.of_user("u0")[0], dataset.of_user("u1")[0]
    assert one.prompt is other.prompt and one.chosen is other.rejected


def test_a_dataset_is_read_again_only_after_it_has_changed(tmp_path: Path) -> None:
    whole = grid()
    whole.save(tmp_path)
    first = load_once(tmp_path)
    assert load_once(tmp_path) is first
    whole.select(users=["u0"]).save(tmp_path)
    assert list(load_once(tmp_path).users) == ["u0"]
    (tmp_path / "users.parquet").write_bytes(b"")
    with pytest.raises(DataError, match=r"users\.parquet is not the file that dataset\.json describes"):
        load_once(tmp_path)


def test_a_preference_in_another_spelling_is_merged_once() -> None:
    one = PreferenceDataset([User("u")], [Preference("u", "Is it warm?", "a", "b")])
    other = PreferenceDataset(
        [User("u")], [Preference("u", "is it warm? ", "a", "b"), Preference("u", "Why?", "a", "b")]
    )
    assert [row.prompt for row in one.merge(other)] == ["Is it warm?", "Why?"]


def test_old_data_with_a_question_in_two_spellings_is_still_read(tmp_path: Path) -> None:
    rows = [Preference("u", "Is it warm?", "a", "b"), Preference("u", "is it warm? ", "b", "a")]
    dataset = PreferenceDataset([User("u")], rows)
    assert PreferenceDataset.load(dataset.save(tmp_path)) == dataset
    assert (len(dataset.questions()), dataset.question_count) == (2, 1)
    assert json.loads((tmp_path / "dataset.json").read_text())["questions"] == 1


def test_from_file_reads_the_folder_that_a_dataset_was_saved_in(tmp_path: Path) -> None:
    dataset = small_dataset(users=2)
    assert PreferenceDataset.from_file(dataset.save(tmp_path / "saved")) == dataset
