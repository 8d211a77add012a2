from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import pytest

import fspo
from benchmarks import models, sides, theory, training_step
from fspo.errors import TrainingError
from fspo.modeling.rendering import Branch, TokenizedEpisode
from tests.preloaded import forking

TINY = ["--model", "shape:tiny", "--threads", "1"]


@pytest.mark.slow
def test_both_sides_take_the_same_step_and_finished_rows_are_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_step, "subprocess", forking)
    options = [*TINY, "--out", str(tmp_path)]
    assert training_step.main([*options, "--rows", "2x4x6", "--attribute", "2x4x6"]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures == json.loads((tmp_path / "figures.json").read_text())
    (row,) = figures["rows"]
    assert {"peer", "shots", "queries", "response_tokens", "speedup", "memory_ratio"} <= set(row)
    assert row["loss_difference"] < 1e-4 < row["loss"]
    assert row["speedup"] == pytest.approx(row["seconds_peer"] / row["seconds_ours"])
    assert row["share_of_theory"] == pytest.approx(row["speedup"] / row["flop_ratio"])
    assert min(row["memory_ours"], row["memory_peer"], row["matmul_share"]) > 0
    parts = row["attribution"]
    assert math.prod(parts[part] for part in ("sharing", "head", "rest")) == pytest.approx(row["speedup"])
    page = (tmp_path / "README.md").read_text()
    assert "| 2 | 4 | 6 |" in page
    assert f"{'Both sides keep' if row['memory_kept'] else 'Neither side keeps'} freed memory" in page

    marked = json.loads((tmp_path / "figures.json").read_text())
    marked["rows"][0]["speedup"] = 1234.5
    (tmp_path / "figures.json").write_text(json.dumps(marked))
    assert training_step.main([*options, "--rows", "2x4x6"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["rows"] == marked["rows"]

    assert training_step.main([*options, "--rows", "2x4x6", "--seed", "1"]) == 2
    assert "other settings" in capsys.readouterr().err


def test_a_side_that_fails_is_noted_and_the_next_row_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(settings: training_step.Settings, row: training_step.Row, **more: object) -> dict[str, object]:
        raise TrainingError(f"The side peer of row {row.name} was killed.")

    monkeypatch.setattr(training_step, "_run", run)
    assert training_step.main([*TINY, "--out", str(tmp_path), "--rows", "2x2x6,4x2x6"]) == 1
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [failure["shots"] for failure in figures["failures"]] == [2, 4]
    assert figures["rows"] == []
    assert "Not measured, since a side failed: 2x2x6, 4x2x6" in (tmp_path / "README.md").read_text()


def test_rows_of_another_code_or_device_are_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[str] = []

    def measure(settings: training_step.Settings, row: training_step.Row, *_: object) -> dict[str, object]:
        measured.append(row.name)
        return asdict(row)

    def names(*wanted: str) -> list[str]:
        measured.clear()
        rows = [training_step.Row.of(name) for name in wanted]
        training_step.measure_rows(training_step.Settings(model="shape:tiny"), rows, out=tmp_path)
        return list(measured)

    monkeypatch.setattr(training_step, "_measure", measure)
    monkeypatch.setattr(training_step, "_page", lambda _: "")
    assert names("2x2x6") == ["2x2x6"]
    assert names("2x2x6", "4x2x6") == ["4x2x6"]
    monkeypatch.setattr(training_step, "device_name", lambda _: "another")
    assert names("2x2x6", "4x2x6") == ["2x2x6", "4x2x6"]
    (tmp_path / "fspo").mkdir()
    (tmp_path / "fspo" / "__init__.py").write_text("changed = True")
    monkeypatch.setattr(fspo, "__file__", str(tmp_path / "fspo" / "__init__.py"))
    assert names("2x2x6") == ["2x2x6"]
    assert [row["shots"] for row in json.loads((tmp_path / "figures.json").read_text())["rows"]] == [2]
    assert names("2x2x6") == []


def test_a_row_that_is_to_be_attributed_is_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[bool] = []
    row = training_step.Row(2, 2, 6)

    def measure(_: object, row: training_step.Row, attributed: bool, __: int) -> dict[str, object]:
        measured.append(attributed)
        return asdict(row) | ({"attribution": {"sharing": 1.0}} if attributed else {})

    def rows(*attributed: training_step.Row) -> list[dict[str, object]]:
        settings = training_step.Settings(model="shape:tiny")
        return list(training_step.measure_rows(settings, [row], attributed, out=tmp_path)["rows"])

    monkeypatch.setattr(training_step, "_measure", measure)
    monkeypatch.setattr(training_step, "_page", lambda _: "")
    assert "attribution" not in rows()[0]
    assert [found["attribution"] for found in rows(row)] == [{"sharing": 1.0}]
    assert rows(row) == rows()
    assert measured == [False, True]


@pytest.mark.parametrize("queries", [2, 8, 9, 16])
def test_the_peer_takes_two_pairs_at_once_only_of_many_that_go_in_two(
    queries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[object] = []

    class Found(dict[str, Any]):
        def __missing__(self, name: str) -> Any:
            return [] if name in ("losses", "seconds_each") else 1.0

    def run(*_: object, **more: object) -> Found:
        sizes.append(more.get("pairs_at_once", 1))
        return Found(losses=[0.0] if more["side"] == "ours" else [[0, 0.0]])

    monkeypatch.setattr(training_step, "_run", run)
    monkeypatch.setattr(training_step, "_fits", lambda *_: True)
    training_step._measure(training_step.Settings(), training_step.Row(2, queries, 6), False, 1)
    assert (2 in sizes) == (queries in (8, 16))


@pytest.mark.parametrize("side", ["ours", "peer"])
def test_both_sides_keep_memory(side: Literal["ours", "peer"], monkeypatch: pytest.MonkeyPatch) -> None:
    def kept() -> bool:
        raise InterruptedError("kept")

    monkeypatch.setattr(sides, "keep_memory", kept)
    with pytest.raises(InterruptedError, match="kept"):
        sides.run(sides.Job(side=side, model="shape:tiny", shots=1, queries=1, response_tokens=6))


def test_a_row_that_can_not_be_read_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        training_step.main(["--rows", "8x8"])
    assert "shots x queries x response tokens" in capsys.readouterr().err


def test_costs_are_those_of_the_formula_in_the_docstring() -> None:
    costs = theory.Costs(token=1000, seen=10, scored=100)
    trunk, queries, prompt, response = 7, 3, 2, 4
    branch = Branch((1, 1), ((1,) * response, (1,) * response), trunk, 1, 0)
    episode = TokenizedEpisode((1,) * trunk, (0, trunk), (branch,) * queries)
    seen = 7 * 8 / 2 + queries * (prompt * trunk + 3 + 2 * (response * (trunk + prompt) + 4 * 5 / 2))
    tokens = trunk + queries * (prompt + 2 * response)
    assert costs.ours(episode) == 1000 * tokens + 10 * seen + 100 * 2 * queries * response
    length = trunk + prompt + response
    apart = 2 * queries * (1000 * length + 10 * length * (length + 1) / 2)
    assert costs.peer(episode, every_position=False) == apart + 100 * 2 * queries * response
    assert costs.peer(episode, every_position=True) == apart + 100 * 2 * queries * (length - 1)


def test_responses_have_the_wanted_length(tiny_model_path: Path) -> None:
    for name in (str(tiny_model_path), "shape:tiny"):
        episode = models.load_episode(name, shots=2, queries=3, response_tokens=17, seed=0)
        assert [len(r) for b in episode.branches for r in b.responses] == [17] * 6
        assert len(episode.trunk_ids) > 2 * 2 * 12
