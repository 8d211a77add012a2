"""Which files of a dataset belong to a part, by the hub's convention."""

from __future__ import annotations

import pytest

from fspo.errors import DataError
from fspo.preferences.hub import of_part


@pytest.mark.parametrize(
    ("file", "part"),
    [
        ("data/latest-train.parquet", "train"),
        ("data/latest-train.parquet", ""),
        ("data/test-00000-of-00001.parquet", "test"),
        ("test.jsonl", "test"),
        ("my_test_rows.jsonl", "test"),
        ("test1.jsonl", "test"),
        ("data/EVAL.jsonl", "test"),
        ("testing/rows.jsonl", "test"),
        ("default/test/0000.parquet", "test"),
        ("test/training.jsonl", "train"),
        ("train-test-split/test.jsonl", "test"),
        ("dev.jsonl", "validation"),
        ("target-0.jsonl", "target"),
    ],
)
def test_a_word_of_the_name_says_which_part_it_is(file: str, part: str) -> None:
    assert of_part([file], part, "theirs") == [file]


@pytest.mark.parametrize(
    "files",
    [
        ["data/latest-train.parquet"],
        ["contest.jsonl", "testset.jsonl"],
        ["rows.jsonl"],
        ["train_test.jsonl"],
        ["test/train-0.jsonl", "dev/rows.jsonl"],
    ],
)
def test_where_no_file_is_of_the_part_none_is_read(files: list[str]) -> None:
    with pytest.raises(DataError, match=r"^No file of theirs has a name .* part 'test' \(there are .*; name the file"):
        of_part(files, "test", "theirs")


def test_the_parts_that_the_hub_s_own_library_finds(tmp_path: object) -> None:
    from datasets.data_files import DEFAULT_PATTERNS_SPLIT_IN_FILENAME

    for patterns, part in ((DEFAULT_PATTERNS_SPLIT_IN_FILENAME[name], str(name)) for name in ("train", "test")):
        for keyword in {pattern.split("{")[0] for pattern in patterns}:
            word = keyword.removeprefix("**/").removeprefix("*[-._ 0-9]").partition("[")[0]
            assert of_part([f"data/{word}-0.jsonl", f"x{word}.jsonl"], part, "theirs") == [f"data/{word}-0.jsonl"]
