"""The tour of docs/python.md and its notebook, as printed: on a tiny model, and its data on the built-in one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import fspo
from examples.tour import PAGE, code_of, notebook
from fspo import Policy, Results
from tests.e2e.conftest import ROOT

CELLS = json.loads((ROOT / "examples" / "tour.ipynb").read_text(encoding="utf-8"))["cells"]
CODE = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]


def test_the_notebook_is_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert notebook(page)["cells"] == CELLS
    assert [block.strip() for block in code_of(page)] == CODE


def run_cells(cells: list[str], changes: dict[str, str], names: dict[str, Any] | None = None) -> dict[str, Any]:
    names = {} if names is None else names
    for number, cell in enumerate(cells):
        for printed, instead in changes.items():
            assert sum(printed in one for one in cells) == 1
            cell = cell.replace(printed, instead)
        exec(compile(cell, f"cell {number}", "exec"), names)
    return names


@pytest.mark.filterwarnings("ignore:::peft", "ignore:`is_gradient_checkpointing`:FutureWarning")  # of peft's own
@pytest.mark.usefixtures("undrawn")
def test_the_tour_runs_up_to_the_making_of_data(
    speaking_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    *cells, data = CODE
    assert "fspo.synthesize" in data
    small = {'"smollm2-135m"': repr(str(speaking_model_path)), "last_layers=10": "last_layers=2"}
    names = run_cells(cells, small)
    assert isinstance(names["policy"], Policy)
    methods = {name.rpartition(": ")[2] for name in names["compared"].methods["method"]}
    assert methods == {"fspo", "base", "few-shot", "brevity"}
    assert Results.load("runs/tour/results").metrics.equals(names["results"].metrics)
    assert (tmp_path / "runs/tour/results/report.html").is_file()
    assert "reward_accuracy" in capsys.readouterr().out
    brevity = names["own"].metrics.query("method == 'brevity' and measure == 'reward_accuracy'")
    assert brevity["value"].iloc[0] == 1.0


@pytest.mark.builtin_model
@pytest.mark.slow
@pytest.mark.usefixtures("builtin_model_path")
def test_the_builtin_model_makes_the_data_of_the_tour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the tour trains before that, test_python_example trains on the built-in model."""
    monkeypatch.chdir(tmp_path)
    made = run_cells(CODE[-1:], {}, {"fspo": fspo})["made"]
    assert len(made.whole.users) == 5
    checks = json.loads((tmp_path / "runs/tour/elix/data/checks.json").read_text())
    assert checks["counts"]["preferences"] > 40
    assert set(checks["attributes"]) == {"reading_grade", "rarity", "length"}
