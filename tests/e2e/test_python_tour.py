"""The tour of docs/python.md and its notebook, on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from examples.tour import PAGE, code_of, notebook
from fspo import Policy, Results
from tests.e2e.conftest import ROOT

CELLS = json.loads((ROOT / "examples" / "tour.ipynb").read_text(encoding="utf-8"))["cells"]
CODE = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]


def test_the_notebook_is_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert notebook(page)["cells"] == CELLS
    assert [block.strip() for block in code_of(page)] == CODE


def run_cells(cells: list[str], changes: dict[str, str]) -> dict[str, Any]:
    names: dict[str, Any] = {}
    for number, cell in enumerate(cells):
        for printed, instead in changes.items():
            assert sum(printed in one for one in cells) == 1
            cell = cell.replace(printed, instead)
        exec(compile(cell, f"cell {number}", "exec"), names)
    return names


@pytest.mark.filterwarnings("ignore:::peft", "ignore:`is_gradient_checkpointing`:FutureWarning")  # of peft's own
@pytest.mark.usefixtures("undrawn")
def test_the_tour_runs(
    speaking_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    model = repr(str(speaking_model_path))
    writer = 'judge="measured"'  # in the only cell that leaves the model out
    small = {'"smollm2-135m"': model, "last_layers=10": "last_layers=2", writer: f"{writer}, model={model}"}
    names = run_cells(CODE, small)
    assert isinstance(names["policy"], Policy)
    methods = {name.rpartition(": ")[2] for name in names["compared"].methods["method"]}
    assert methods == {"fspo", "base", "few-shot", "brevity"}
    assert Results.load("runs/tour/results").metrics.equals(names["results"].metrics)
    assert (tmp_path / "runs/tour/results/report.html").is_file()
    assert "reward_accuracy" in capsys.readouterr().out
    brevity = names["own"].metrics.query("method == 'brevity' and measure == 'reward_accuracy'")
    assert brevity["value"].iloc[0] == 1.0

    made = names["made"]
    assert len(made.whole.users) == 5
    checks = json.loads((tmp_path / "runs/tour/elix/data/checks.json").read_text())
    assert checks["counts"]["preferences"] > 40
    assert set(checks["attributes"]) == {"reading_grade", "rarity", "length"}
