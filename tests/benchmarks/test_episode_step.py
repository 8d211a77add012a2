from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import episode_step


def test_both_ways_take_the_same_step(
    tiny_model_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--shots", "3", "--queries", "2", "--shot-tokens", "12", "--response-tokens", "9", "--repeats", "1"]
    assert episode_step.main(["--model", str(tiny_model_path), *options, "--out", str(tmp_path)]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures == json.loads((tmp_path / "figures.json").read_text())
    assert figures["gradient_difference"] < 1e-4
    assert figures["logprob_difference"] < 1e-4
    assert figures["speedup"] == pytest.approx(figures["seconds_naive"] / figures["seconds_shared"])
    assert figures["tokens_naive"] > figures["tokens_shared"] > figures["tokens_trunk"] > 100
    assert figures["pairs"] == 2
