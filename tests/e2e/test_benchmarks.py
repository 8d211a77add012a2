"""Benchmarks by the real command, on a finished run: what it was trained on is refused, its own results stay."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.splits import Splits
from tests.e2e.conftest import run
from tests.e2e.hub import hub
from tests.evaluation.benchmarks.rows import Row, bench_rows, written

pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_trained_methods_on_a_benchmark_from_a_hub(copied: Path, tmp_path: Path) -> None:
    before = (copied / "metrics.json").read_bytes()
    with hub() as state:
        rows = "".join(json.dumps(row) + "\n" for row in bench_rows(users=3, shown=3, asked=1)).encode()
        state.files["MichaelR207/prism_personalized_0125"] = {"data/test-0.jsonl": rows, "README.md": b"a card"}
        reach: dict[str, Any] = {"HF_ENDPOINT": state.address, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf")}
        done = run(
            "eval", copied, "--benchmark", "reward-bench-prism", "--set", "evaluation.robustness.users=0", **reach
        )
    text = " ".join(done.stdout.split())
    assert "fspo" in text and "P-GenRM" in text and "oracle" in text
    found = json.loads((copied / "benchmarks/reward-bench-prism/comparison.json").read_text())
    assert found["ours"].keys() == {"base", "few-shot", "pref-ft", "ipo", "fspo"}
    assert found["data"]["source"] == "hub:MichaelR207/prism_personalized_0125"
    assert (copied / "metrics.json").read_bytes() == before
    # Measuring a benchmark has not changed what the run's own evaluation was made with.
    assert run("report", copied, undrawn=True).returncode == 0


def test_a_user_seen_in_training_is_refused_by_name(copied: Path, tmp_path: Path) -> None:
    dataset, splits = PreferenceDataset.load(copied / "data"), Splits.load(copied / "data/splits.json")
    seen = sorted(splits.part(dataset, "train").users)[0]
    rows: list[Row] = [row | {"user_id": seen} if row["user_id"] == "user1" else row for row in bench_rows(shown=3)]
    source = written(tmp_path / "rows.jsonl", rows)
    error = run("eval", copied, "--benchmark", "reward-bench-arena", "--data", source, code=1).stderr
    assert f"User '{seen}' is in training data and test data alike, which is a leak" in error
    assert error.count("\n") == 1


def test_making_a_method_anew_removes_what_was_measured_with_it(copied: Path, tmp_path: Path) -> None:
    source = written(tmp_path / "rows.jsonl", bench_rows(users=3, shown=3, asked=1))
    few = ("--set", "evaluation.robustness.users=0")
    run("eval", copied, "--benchmark", "reward-bench-arena", "--data", source, *few)
    part = copied / "benchmarks/reward-bench-arena"
    run("eval", copied, "--on-existing", "overwrite", "--set", "evaluation.answers=0", "--set", "evaluation.users=3")
    assert (part / "comparison.json").exists()
    run("train", copied, "--method", "ipo", "--on-existing", "overwrite", "--yes")
    assert not part.exists()
