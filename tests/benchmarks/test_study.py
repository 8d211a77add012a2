"""Simulated people take part in a study through its pages while the server is killed; the benchmark has 200 of them."""

from __future__ import annotations

from pathlib import Path

from benchmarks.study import coverage, run, simulated_config


def test_every_vote_counts_once_although_the_server_is_killed(tmp_path: Path) -> None:
    config = simulated_config(tmp_path / "study", labels=2, comparisons=2)
    kinds = ["attentive"] * 6 + ["always-left", "careless"]
    found = run(config, kinds, kills=1, seed=0, pause=(0.1, 0.2), leaving=0.0)
    assert (found["lost"], found["doubled"], found["wrong"]) == (0, 0, 0)
    assert found["participants"] == found["finished"] == 8
    assert found["votes"] == 8 * (1 + 4 + 4)
    assert found["kills"] == 1 and found["repeated_votes"] > 0
    assert found["always_left"] == 0.5
    assert 0 < found["truth"] < 1 and found["win_rate"]["items"] <= 8 * 2


def test_coverage_is_measured_against_the_truth_of_many_studies(tmp_path: Path) -> None:
    found = coverage(simulated_config(tmp_path, labels=4, comparisons=6), studies=4, people=10)
    personal, neither = found["personal"], found["no_difference"]
    assert personal["truth"] - neither["truth"] > 0.05 and abs(neither["truth"] - 0.5) < 0.05
    assert 0 <= neither["significant"] <= personal["significant"] <= 1
