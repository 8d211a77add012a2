"""One row that no model here can read: found before anything is trained, and left out or refused, for all methods."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fspo.cli.main import app
from fspo.errors import DataError
from fspo.evaluation.config import EvaluationConfig
from fspo.evaluation.evaluate import evaluate
from fspo.files import read_json
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.splits import Splits
from fspo.training.config import LoraSettings, TrainingConfig
from fspo.training.train import train_policy
from tests.training.helpers import small_dataset

USERS, QUESTIONS = 6, 10
TRAINED, TESTED = 14, 57
"""Rows that are too long, counted from 1: one of the training part, one of the test part."""
SETTINGS = """
training:
  all: {shots: 2, queries: 2, steps: 8, users_per_step: 2, lora: {r: 2}}
evaluation: {shots: 2, ladder: [], queries: 2, answers: 0, robustness: {users: 0}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A dataset of one's own, with its splits."""
    rows = list(small_dataset(USERS, QUESTIONS))
    for number in (TRAINED, TESTED):
        rows[number - 1] = replace(rows[number - 1], rejected="It was long. " * 5000)
    dataset = PreferenceDataset(small_dataset(USERS, QUESTIONS).users, rows)
    dataset.save(tmp_path / "mine")
    held_out = {"train": {f"q{n}" for n in range(5)}, "test": {f"q{n}" for n in range(5, QUESTIONS)}}
    people = {"train": {f"u{n}" for n in range(4)}, "test": {"u4", "u5"}}
    Splits(people, held_out).save(tmp_path / "mine" / "splits.json")  # type: ignore[arg-type]
    return tmp_path / "mine"


def command(verb: str, folder: Path, model: Path, *settings: str, dry: bool = False) -> Any:
    file = folder.parent / "run.yaml"
    file.write_text(f"model: {model}\ndata: {folder}\nmethods: [base, few-shot, ipo, pref-ft]\n{SETTINGS}")
    options = [option for setting in settings for option in ("--set", setting)]
    line = [verb, "--config", str(file), "--output", str(folder.parent / "run"), *options]
    return CliRunner().invoke(app, [*line, *(["--dry-run"] if dry else [])])


def test_validation_names_the_row(folder: Path, tiny_model_path: Path) -> None:
    line = ["data", "validate", str(folder)]
    assert CliRunner().invoke(app, line).exit_code == 0
    found = CliRunner().invoke(app, [*line, "--model", str(tiny_model_path)])
    assert found.exit_code == 1
    assert f"row {TRAINED} (user 'u1', prompt 'What about book 3?') makes " in found.stderr
    assert "1 more row is too long" in found.stderr
    assert CliRunner().invoke(app, [*line, "--model", str(tiny_model_path), "--max-length", "400000"]).exit_code == 0


def test_a_dry_run_counts_the_rows_or_refuses_them(folder: Path, tiny_model_path: Path) -> None:
    said = command("run", folder, tiny_model_path, dry=True)
    assert said.exit_code == 0
    for part, of, row in (("the training part", 20, TRAINED), ("the test part", 10, TESTED)):
        line = f"Left out: 1 of {of} preferences of {part}, longer than the limit of 4,096 tokens; row {row} "
        assert said.output.count(line) == 1
    for settings, row in (("training.pref-ft.long_rows", TRAINED), ("evaluation.long_rows", TESTED)):
        refused = command("run", folder, tiny_model_path, f"{settings}=refuse", dry=True)
        assert refused.exit_code == 1
        assert f"preferences.parquet: row {row} (user " in refused.stderr
        assert f"set {settings} to leave-out" in refused.stderr


def test_no_method_is_trained_where_the_row_is_refused_for_one(folder: Path, tiny_model_path: Path) -> None:
    refused = command("run", folder, tiny_model_path, "training.pref-ft.long_rows=refuse")
    assert refused.exit_code == 1
    assert f"row {TRAINED} (user 'u1'" in refused.stderr
    assert not list((folder.parent / "run").glob("methods/*/policy.json"))


@pytest.mark.usefixtures("undrawn")
def test_all_methods_are_trained_and_measured_without_the_rows(folder: Path, tiny_model_path: Path) -> None:
    done = command("run", folder, tiny_model_path)
    assert done.exit_code == 0, done.output + done.stderr
    words = " ".join(done.output.split())
    for part, row, times in (("training", TRAINED, 2), ("test", TESTED, 1)):  # once for each training
        assert words.count(f"of the {part} part, longer than the limit of 4,096 tokens; row {row} (user ") == times
    run = folder.parent / "run"
    for name in ("ipo", "pref-ft"):
        assert read_json(run / "methods" / name / "training.json")["left_out"] == 1
        card = (run / "methods" / name / "README.md").read_text(encoding="utf-8")
        assert "Left out of the training part: 1 preference, too long for the model" in card
    assert read_json(run / "evaluation" / "details.json")["too_long"] == 1
    assert read_json(run / "metrics.json")["base"]["reward_accuracy"]["items"] == 4
    assert "some method can't read them whole" in (run / "report.html").read_text(encoding="utf-8").replace(
        "&#39;", "'"
    )


def test_a_user_who_has_too_few_left_is_explained_by_what_was_left_out(folder: Path, tiny_model_path: Path) -> None:
    for settings, part, row in (
        (("training.all.shots=3", "methods=[base,fspo]"), "the training part", TRAINED),
        (("evaluation.shots=3",), "the test part", TESTED),
    ):
        for dry in (True, False):
            refused = command("run", folder, tiny_model_path, *settings, dry=dry)
            assert refused.exit_code == 1
            assert "has 4 preferences" in refused.stderr
            assert f"Left out: 1 of {20 if row == TRAINED else 10} preferences of {part}, longer than" in refused.stderr
            assert f"row {row} (user " in refused.stderr


def test_library_calls_explain_it_too(folder: Path, tiny_model_path: Path, tmp_path: Path) -> None:
    splits, dataset = Splits.load(folder / "splits.json"), PreferenceDataset.load(folder)
    few: dict[str, Any] = {"lora": LoraSettings(r=2), "steps": 1, "users_per_step": 1}
    with pytest.raises(
        DataError, match=r"'u1' has 4 preferences .* Left out: 1 of 20 preferences of the training part"
    ):
        config = TrainingConfig(objective="ipo", shots=3, queries=2, **few)
        train_policy(config, splits.part(dataset, "train"), model=tiny_model_path, out=tmp_path / "out")
    with pytest.raises(DataError, match=r"'u5' has 4 preferences .* Left out: 1 of 10 preferences of the test part"):
        evaluate(
            EvaluationConfig(shots=3, queries=2, answers=0, ladder=()),
            splits.part(dataset, "test"),
            {"few-shot": None},
            model=str(tiny_model_path),
            out=tmp_path / "evaluation",
            judge=None,
        )
