from __future__ import annotations

import io
import json
import shutil
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from benchmarks import learning_ablation
from benchmarks.learning_ablation import ROWS, configured, fewer_users
from fspo.preferences.splits import SplitDataset, make_splits
from tests.training.helpers import small_dataset

QUICK = (
    "synthesis.users=25",
    "training.fspo.lora={r: 2, alpha: 4}",
    "training.fspo.shots=2",
    "training.fspo.ladder=[1, 2]",
    "training.fspo.queries=1",
    "training.fspo.responses=3",
    "evaluation.users=3",
    "synthesis.questions=20",
    "evaluation.shots=2",
    "evaluation.ladder=[1, 2]",
    "evaluation.queries=1",
    "evaluation.ladder_queries=1",
)


@pytest.mark.parametrize("row", ROWS)
def test_every_row_is_a_configuration(row: str, tmp_path: Path) -> None:
    config = configured(row, tmp_path / "data", tmp_path)
    assert config.training["fspo"].shots == 8
    assert config.training["fspo"].follows_observer == (row not in ("ipo", "constant target"))


def test_rows_are_measured_on_the_same_items(tiny_model_path: Path, tmp_path: Path) -> None:
    settings = [part for setting in (f"model={tiny_model_path}", *QUICK) for part in ("--set", setting)]
    where = ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "out")]
    arguments = ["--rows", "recipe,pooled,twelve users", "--tokens", "1", *settings, *where]
    printed = io.StringIO()
    with redirect_stdout(printed):
        assert learning_ablation.main(arguments) == 0
    record = json.loads(printed.getvalue().splitlines()[-1])
    rows: dict[str, Any] = {row["name"]: row for row in record["rows"]}
    assert list(rows) == ["untrained", "recipe", "untrained, pooled", "recipe, pooled", "twelve users"]
    assert rows["untrained"]["tokens"] == 0
    assert rows["twelve users"]["tokens"] > 0
    assert {row["reward_accuracy"]["items"] for row in record["rows"]} == {3}
    assert rows["untrained"]["over_untrained"] == {}
    for row in record["rows"][1:]:
        gained = row["reward_accuracy"]["value"] - rows["untrained"]["reward_accuracy"]["value"]
        assert row["over_untrained"]["reward_accuracy"]["value"] == pytest.approx(gained)
    assert json.loads((tmp_path / "out" / "learning_ablation.json").read_text()) == record
    assert "| twelve users |" in (tmp_path / "out" / "README.md").read_text()


def test_a_dataset_with_half_a_judge_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(source: Path, target: Path) -> None:
        target.write_bytes(source.read_bytes()[:10])
        raise KeyboardInterrupt

    dataset = small_dataset(users=8, questions=14)
    shares = {"train": 0.5, "validation": 0.1, "test": 0.4}
    splits = make_splits(dataset, seed=0, user_fractions=shares, question_fractions=shares)
    SplitDataset(dataset, splits).save(tmp_path / "data")
    (tmp_path / "data" / "judge.json").write_text('{"attributes": ["length"]}')
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, "copyfile", killed)
        fewer_users(tmp_path / "data", tmp_path / "two", 2, 0)
    made = fewer_users(tmp_path / "data", tmp_path / "two", 2, 0)
    assert (made / "judge.json").read_text() == '{"attributes": ["length"]}'
    assert len(SplitDataset.load(made).splits.users["train"]) == 2


def test_a_row_that_there_is_not_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert learning_ablation.main(["--rows", "better", "--work", str(tmp_path)]) == 2
    assert "There is no row 'better' here" in capsys.readouterr().err
