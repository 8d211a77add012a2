from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import interval_coverage

KEPT = Path(__file__).parents[2] / "docs/results/interval_coverage"


def test_a_few_studies_run_and_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    interval_coverage.main(["--studies", "3", "--out", str(tmp_path)])
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures == json.loads((tmp_path / "figures.json").read_text())
    assert figures["studies"] == 3 * len(figures["shares"]) >= 3 * 8
    assert "| users | items |" in (tmp_path / "README.md").read_text()


def test_the_kept_intervals_cover_the_truth_and_naive_ones_do_not() -> None:
    figures = json.loads((KEPT / "figures.json").read_text())
    assert figures["studies_per_setting"] >= 1000
    assert 0.93 <= figures["coverage"] <= 0.97
    assert figures["naive_coverage"] < 0.85
    for row in figures["shares"]:
        assert 0.93 <= row["coverage"] <= 0.97, row
        assert row["naive_coverage"] < 0.91, row
    for section in ("differences", "ranking", "length_controlled"):
        assert all(0.93 <= row["coverage"] <= 0.97 for row in figures[section]), section
    assert all(0.03 <= row["false_alarms"] <= 0.07 for row in figures["differences"])
