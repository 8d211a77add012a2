from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from benchmarks.serving import SMALL, _Timed, main, measure
from fspo.errors import ModelError
from fspo.serving.engine import GenerationRequest
from fspo.serving.engines.local import LocalEngine

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
    assert results["failed"] == results["fresh_failed"] == 0 and results["warm_speedup"] == warm["warm_speedup"]
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
    main(["--out", str(tmp_path), "--render"])
    assert (tmp_path / "README.md").read_text() == page


def test_requests_without_an_answer_are_counted_in_both_rounds(
    tiny_model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []

    async def failing(engine: LocalEngine, request: GenerationRequest) -> Any:
        begun.append(request.owner)
        if request.owner == "user-0" and begun.count("user-0") == 1:
            raise ModelError("The model failed.")
        return _Timed("text", 0.1, 0.2, 0, 1)

    monkeypatch.setattr("benchmarks.serving._ask", failing)
    monkeypatch.setattr("benchmarks.serving._plain", lambda _, sample: (["text"] * len(sample), 1.0))
    found = measure(str(tiny_model_path), SMALL, ["crowd"])
    assert begun[0] == "nobody", "the weights are loaded before the first round"
    assert found["failed"] == found["fresh_failed"] == 1


def test_the_saved_page_is_what_the_program_writes(tmp_path: Path) -> None:
    saved = Path(__file__).parents[2] / "docs/results/serving"
    (tmp_path / "serving.json").write_bytes((saved / "serving.json").read_bytes())
    main(["--out", str(tmp_path), "--render"])
    for name in ("README.md", "serving.json"):
        assert (tmp_path / name).read_text() == (saved / name).read_text(), name
