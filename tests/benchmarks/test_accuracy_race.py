from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import accuracy_race
from fspo.preferences.splits import make_splits
from tests.training.helpers import small_dataset

SIZES = ["--shots", "2", "--queries", "2", "--steps", "2", "--every", "1", "--episodes", "3"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    dataset = small_dataset(users=8, questions=14)
    folder = dataset.save(tmp_path / "data")
    shares = {"train": 0.5, "validation": 0.1, "test": 0.4}
    make_splits(dataset, seed=0, user_fractions=shares, question_fractions=shares).save(folder / "splits.json")
    return folder


@pytest.mark.slow
def test_both_sides_learn_the_same_from_the_same_pairs(
    tiny_model_path: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = [str(data), "--model", str(tiny_model_path), *SIZES, "--learning-rate", "0.01", "--out", str(out)]
    assert accuracy_race.main(command) == 0
    record = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert record == json.loads((out / "figures.json").read_text())
    peer, ours = record["sides"]["peer"], record["sides"]["ours"]
    assert [row["pairs"] for row in peer] == [0, 4, 8]
    assert peer[0]["margin"] == ours[0]["margin"] == 0
    assert peer[2]["margin"] != 0
    assert peer[0]["loss"] is ours[0]["loss"] is None
    for one, other in zip(peer[1:], ours[1:], strict=False):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert one["margin"] == pytest.approx(other["margin"], rel=1e-2, abs=1e-3)
    assert record["at_equal_pairs"]["ours"] == ours[2]
    assert record["at_equal_seconds"]["ours"]["seconds"] <= peer[2]["seconds"]
    assert record["speedup"] == pytest.approx(peer[2]["seconds"] / ours[2]["seconds"])
    assert "| equal pairs | 8 | 8 |" in (out / "README.md").read_text()
    assert (out / "accuracy.svg").read_text().startswith("<?xml")

    (out / "figures.json").write_text(json.dumps(record | {"sides": {"peer": peer}}))
    assert accuracy_race.main(command) == 0  # goes on with the side that is missing
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["sides"]["peer"] == peer


def test_data_that_is_not_there_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert accuracy_race.main([str(tmp_path / "none"), *SIZES]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
