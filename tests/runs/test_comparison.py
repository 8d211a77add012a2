"""The ranking of a run's methods on several domains, from its files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from fspo.errors import DataError
from fspo.evaluation.benchmarks.benchmark import BenchmarkConfig
from fspo.files import read_json, write_json
from fspo.runs.comparison import OBSERVER, standings_of, write_standings
from fspo.runs.config import RunConfig
from fspo.runs.costs import training_costs
from fspo.runs.folder import RunFolder
from tests.evaluation.run_folder import write_run_folder


def evaluated(tmp_path: Path) -> RunFolder:
    """A run with one benchmark, where `mine` is the best method on its own domain and `fspo` on the benchmark."""
    config = {
        "output": tmp_path,
        "synthesis": {"domain": "advice"},
        "benchmarks": {"elix-written": {}},
        "methods": ["few-shot", "fspo", "mine"],
        "readers": {"mine": {"reader": "ridge"}},
    }
    write_run_folder(tmp_path, light=True)
    other = tmp_path / "benchmarks" / "elix-written"
    shutil.copytree(tmp_path / "evaluation", other)
    metrics = read_json(tmp_path / "metrics.json")
    for place, value in ((tmp_path, 0.9), (other, 0.6)):
        accuracy = {"value": value, "low": value - 0.1, "high": 1.0, "users": 16, "items": 128}
        write_json(place / "metrics.json", {**metrics, "mine": {"reward_accuracy": accuracy}})
    details = read_json(tmp_path / "evaluation" / "details.json")
    costs = {"mine": {"train_seconds": 2.5, "parameters": 1234.0, "bytes_per_user": 256.0, "user_seconds": 0.004}}
    write_json(tmp_path / "evaluation" / "details.json", {**details, "costs": costs})
    return RunFolder(RunConfig.model_validate(config))


def test_methods_are_ranked_on_every_domain(tmp_path: Path) -> None:
    folder = evaluated(tmp_path)
    found = standings_of(folder)
    assert [one.domain for one in found] == ["advice", "elix-written"]
    first, second = ({row.method: row.rank for row in one.standings} for one in found)
    assert (first["mine"], first["fspo"], first[OBSERVER]) == (1, 2, None)
    assert (second["fspo"], second["mine"]) == (1, 3)
    out = write_standings(folder, found)
    record = read_json(out / "metrics.json")
    assert list(record["ranking"])[:2] == ["fspo", "mine"]
    assert record["ranking"]["mine"] == pytest.approx(0.75)
    assert record["domains"]["advice"]["mine"]["costs"]["bytes_per_user"] == 256
    assert record["domains"]["advice"]["ipo"]["behind"]["value"] == pytest.approx(0.23)
    page = (out / "README.md").read_text(encoding="utf-8")
    row = next(line for line in page.splitlines() if line.startswith("| 1 | `mine` | 90.0%"))
    assert row.endswith("| 2.5 s | 1,234 | 256 | 0.004 s |")
    fspo = next(line for line in page.splitlines() if "| `fspo` |" in line)
    assert "| 65.0% | 27.0 points | 72.0% |" in fspo, "label flip, user swap and win rate"
    assert "## Over all domains" in page and "Readers write no answers" in page


def test_what_is_not_evaluated_is_named(tmp_path: Path) -> None:
    folder = RunFolder(RunConfig.model_validate({"output": tmp_path}))
    with pytest.raises(DataError, match=r"has no metrics.json; run `fspo eval`"):
        standings_of(folder)


def test_a_benchmark_of_the_same_name_as_the_runs_domain_stands_beside_it(tmp_path: Path) -> None:
    folder = evaluated(tmp_path)
    shutil.copytree(tmp_path / "benchmarks" / "elix-written", tmp_path / "benchmarks" / "advice")
    both = folder.config.model_copy(update={"benchmarks": {"advice": BenchmarkConfig()}})
    found = standings_of(RunFolder(both))
    assert [one.domain for one in found] == ["advice", "advice (benchmark)"]
    assert list(read_json(write_standings(folder, found) / "metrics.json")["domains"]) == [one.domain for one in found]


def test_a_step_that_was_repeated_counts_once(tmp_path: Path) -> None:
    folder = evaluated(tmp_path)
    lines = [{"step": step, "tokens": 8, "seconds": seconds} for step, seconds in ((1, 1.0), (2, 9.0), (2, 2.0))]
    (folder.method("fspo") / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert training_costs(folder)["fspo"]["train_seconds"] == 3.0
