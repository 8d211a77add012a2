from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fspo.errors import DataError
from fspo.preferences.conflicts import REPEATED, OnContradiction, OnDuplicate, Place, settle
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.types import Preference, User
from tests.preferences.test_tables import write_csv, write_parquet


def row(prompt: str = "why?", *, swapped: bool = False, **source: Any) -> Preference:
    one = Preference("ann", prompt, "so", "thus", source=source)
    return one.swap() if swapped else one


def places(count: int) -> list[Place]:
    return [Place("t.csv", number) for number in range(2, count + 2)]


def settled(
    rows: list[Preference], on_duplicate: OnDuplicate = "fail", on_contradiction: OnContradiction = "fail"
) -> tuple[list[Preference], dict[str, int]]:
    found = settle(rows, places(len(rows)), on_duplicate, on_contradiction)
    return list(found.preferences), dict(found.left_out)


def test_repeated_rows_are_left_out_or_kept_by_number() -> None:
    rows = [row(), row("how?"), row(), row()]
    assert settled(rows, "skip") == (rows[:2], {REPEATED: 2})
    kept, left_out = settled(rows, "keep")
    assert [one.source.get("repeat") for one in kept] == [None, None, 2, 3] and not left_out
    assert len(PreferenceDataset([User("ann")], kept)) == 4


@pytest.mark.parametrize("value", ["", "no", "2", None, 0, 1, True])
def test_a_column_of_that_name_hides_no_repetition(value: Any) -> None:
    rows = [row(repeat=value), row(repeat=value)]
    assert settled(rows, "skip") == (rows[:1], {REPEATED: 1})
    with pytest.raises(DataError, match="repeats row 1"):
        PreferenceDataset([User("ann")], rows)


def test_a_column_of_one_s_own_called_repeat_is_no_mark(tmp_path: Path) -> None:
    good = {"user": "ann", "prompt": "why?", "chosen": "so", "rejected": "thus"}
    path = write_csv(tmp_path / "t.csv", [{**good, "repeat": number} for number in (1, 2, 3)])
    parquet = write_parquet(tmp_path / "t.parquet", [{**good, "repeat": number} for number in (2, 3, 4)])
    for table in (path, parquet):
        with pytest.raises(DataError, match="2 rows with the user, prompt, pair and label of an earlier row"):
            PreferenceDataset.from_file(table)
        kept = PreferenceDataset.from_file(table, on_duplicate="keep")
        assert [row.source.get("repeat") for row in kept] == [None, 2, 3]
    assert [row.source["own_repeat"] for row in kept] == [2, 3, 4]
    assert PreferenceDataset.from_pandas(kept.to_pandas()).preferences == kept.preferences
    two = write_csv(tmp_path / "two.csv", [{**good, "repeat": 1, "own_repeat": 5}])
    with pytest.raises(DataError, match=r"row 2, column 'repeat': .* 'own_repeat', .*; rename one"):
        PreferenceDataset.from_file(two)


def test_kept_repetitions_come_back_from_a_folder(tmp_path: Path) -> None:
    kept, _ = settled([row(), row()], "keep")
    dataset = PreferenceDataset([User("ann")], kept)
    assert PreferenceDataset.load(dataset.save(tmp_path / "data")) == dataset


@pytest.mark.parametrize("times", [("2026-01-02", "2026-01-01"), (20, 3), ("20", "3.5"), (None, None)])
def test_the_newest_label_counts(times: tuple[Any, Any]) -> None:
    rows = [
        row(created_at=time, swapped=swap) if time else row(swapped=swap)
        for time, swap in zip(times, (True, False), strict=True)
    ]
    kept, left_out = settled([*rows, row("how?")], on_contradiction="newest")
    newest = rows[0] if times[0] else rows[1]  # without a time, the last row
    assert kept == [one for one in rows if one == newest] + [row("how?")]
    assert left_out == {"rows of a pair that its user labels both ways": 1}


def test_how_the_newest_is_found_is_said() -> None:
    for time, said in (({"timestamp": 1}, "by the column 'timestamp'"), ({}, "by the order of the rows")):
        found = settle([row(**time), row(swapped=True, **time)], places(2), on_contradiction="newest")
        assert [said in note for note in found.notes] == [True]
    with pytest.raises(
        DataError, match=r"t\.csv, row 3, column 'date': must say when .* not 'soon'; .*contradiction=.drop."
    ):
        settle([row(date="2026-01-01"), row(swapped=True, date="soon")], places(2), on_contradiction="newest")


def test_contradictory_rows_are_dropped_together() -> None:
    rows = [row(), row(swapped=True), row(), row("how?")]
    assert settled(rows, on_contradiction="drop")[0] == rows[3:]
    kept, left_out = settled(rows, "skip", "newest")
    assert kept == [rows[0], rows[3]] and sum(left_out.values()) == 2


def test_all_of_them_are_listed_at_once(tmp_path: Path) -> None:
    good = {"user": "ann", "prompt": "why?", "chosen": "so", "rejected": "thus"}
    folder = tmp_path / "shards"
    folder.mkdir()
    write_parquet(folder / "0.parquet", [{**good, "prompt": f"Why {n}?"} for n in range(12)])
    again = [{**good, "prompt": f"Why {n}?"} for n in range(12)]
    write_parquet(folder / "1.parquet", [*again, {**again[3], "chosen": "thus", "rejected": "so"}])
    with pytest.raises(DataError) as caught:
        PreferenceDataset.from_file(folder)
    said = str(caught.value)
    assert "12 rows with the user, prompt, pair and label of an earlier row" in said and "; and 2 more" in said
    assert f"{folder}/1.parquet, row 1 ({folder}/0.parquet, row 1)" in said
    assert 'on_duplicate="skip"' in said and 'on_contradiction="newest"' in said
    kept = PreferenceDataset.from_file(folder, on_duplicate="skip", on_contradiction="newest")
    assert len(kept) == 12 and kept.preferences[-1].chosen == "thus"


def test_conflicts_of_frames_are_settled_too() -> None:
    import pandas as pd

    frame = pd.DataFrame([{"user": 1, "prompt": "why?", "chosen": "so", "rejected": "thus"}] * 2)
    with pytest.raises(DataError, match=r"the DataFrame, row 2 \(row 1\)"):
        PreferenceDataset.from_pandas(frame)
    assert len(PreferenceDataset.from_pandas(frame, on_duplicate="skip")) == 1


def test_the_file_is_named_once(tmp_path: Path) -> None:
    good = {"user": "ann", "prompt": "why?", "chosen": "so", "rejected": "thus"}
    path = write_csv(tmp_path / "t.csv", [good, good])
    with pytest.raises(DataError, match=r"1 row with .*t\.csv, row 3 \(row 2\)"):
        PreferenceDataset.from_file(path)


def test_a_column_can_be_named_as_the_time(tmp_path: Path) -> None:
    good = {"user": "ann", "prompt": "why?", "chosen": "so", "rejected": "thus", "when": "2026-02-01"}
    older = {**good, "chosen": "thus", "rejected": "so", "when": "2026-01-01"}
    path = write_csv(tmp_path / "t.csv", [good, older])
    for columns, chosen in (({"time": "when"}, "so"), (None, "thus")):
        (row,) = PreferenceDataset.from_file(path, columns=columns, on_contradiction="newest")
        assert row.chosen == chosen
