from __future__ import annotations

from pathlib import Path

from benchmarks.serving import SMALL, measure


def test_all_parts_measure(tiny_model_path: Path) -> None:
    results = measure(str(tiny_model_path), SMALL)
    assert results["failed"] == 0
    assert results["same_answers"] and results["warm_speedup"] > 1
    assert 0 < results["peak_bytes"] <= results["budget_bytes"]
    assert results["answers_right"] == results["answers_checked"] == SMALL.checked
    assert 0 < results["hit_rate"] < 1 and 0 < results["lru_hit_rate"] < 1
    assert results["requests_per_second"] > 0 and results["sequential_requests_per_second"] > 0
    assert results["sequential_same_answers"] == SMALL.sequential
    assert set(results["first_seconds"]) == {"p50", "p90", "p99"}
