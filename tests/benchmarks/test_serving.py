from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from benchmarks.serving import SMALL, main

KEYS = ("warm_speedup", "budget_bytes", "peak_bytes", "hit_rate", "requests_per_second", "failed")


def test_all_parts_measure_also_one_after_the_other(
    tiny_model_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def measured(*parts: str) -> dict[str, Any]:
        main(["--model", str(tiny_model_path), "--small", "--out", str(tmp_path), "--parts", *parts])
        found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert found == json.loads((tmp_path / "serving.json").read_text())
        return found

    warm = measured("warm")
    assert set(warm["parts"]) == {"warm"} and warm["sizes"] == asdict(SMALL)
    results = measured("budget", "crowd")
    assert set(results["parts"]) == {"warm", "budget", "crowd"} and set(KEYS) <= results.keys()
    assert results["failed"] == 0 and results["warm_speedup"] == warm["warm_speedup"]
    assert results["same_answers"] and results["warm_speedup"] > 1
    assert 0 < results["peak_bytes"] <= results["budget_bytes"]
    assert results["answers_right"] == results["answers_checked"] == SMALL.checked
    assert 0 < results["hit_rate"] < 1 and 0 < results["lru_hit_rate"] < 1
    assert results["requests_per_second"] > 0 and results["sequential_requests_per_second"] > 0
    assert results["sequential_same_answers"] == SMALL.sequential
    assert set(results["first_seconds"]) == {"p50", "p90", "p99"}
    page = (tmp_path / "README.md").read_text()
    assert f"| {results['requests_per_second']:.3f} |" in page and "{" not in page
    assert f"{results['budget_bytes']:,} bytes" in page
