"""The worked examples of docs/methods.md, as they are printed there."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
import yaml

from fspo.methods.method import train_once
from fspo.methods.reader_table import READERS, ReaderRow
from fspo.methods.table import ADAPTATIONS, METHODS
from fspo.runs.config import configuration
from tests.methods.adaptation_worlds import adapting, liking_marks, margins
from tests.methods.reader_worlds import WIDTH, accuracy, camps, liking, new_users, training

PAGE = (Path(__file__).parents[2] / "docs" / "methods.md").read_text(encoding="utf-8")


POLICY, READER = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_example_is_a_policy_that_follows_labels(
    tiny_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "marks_of_page.py").write_text(POLICY)
    monkeypatch.syspath_prepend(str(tmp_path))
    (row,) = importlib.import_module("marks_of_page").ROWS
    monkeypatch.setattr("tests.methods.adaptation_worlds.ADAPTATIONS", {row.name: row.adaptation})
    marks = adapting(tiny_model_path, "marks")
    shots, queries = liking_marks(3), liking_marks(3, start=9)
    assert marks.state(shots).text == "Likes exclamation marks."
    assert (row.shown, row.writes, row.guides) == ("description", True, False)
    flipped = margins(marks, [shot.swap() for shot in shots], queries)
    assert margins(marks, shots, queries) != pytest.approx(flipped, abs=1e-3)


def test_the_example_is_a_reader_that_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = READER
    assert example.count("\n") < 100
    (tmp_path / "kernel_reader.py").write_text(example)
    monkeypatch.syspath_prepend(str(tmp_path))
    row = ReaderRow("kernel", {"reader": "kernel_reader:Kernel"}, {"components": WIDTH, "hidden": 3})
    reader = row.kind(row.settings, WIDTH)
    tastes = camps(8, liking(3.0), liking(-3.0))
    diagnostics = reader.fit(training(tastes))
    assert diagnostics["bandwidth"] in row.settings.model_dump()["bandwidths"]
    assert accuracy(reader, new_users(tastes)) > 0.75
    assert accuracy(reader, new_users(tastes), flipped=True) < 0.25


def test_the_runs_on_the_page_are_complete() -> None:
    for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL):
        config = configuration(yaml.safe_load(block), "docs/methods.md")
        assert config.readers or config.adaptations or config.training


def test_the_page_lists_every_method_with_machinery_of_its_own() -> None:
    policies = [name for name, row in METHODS.items() if row.train is not train_once]
    first_cells = re.findall(r"^\| ((?:`[\w-]+`(?:, )?)+) \|", PAGE, re.MULTILINE)
    listed = [name for cell in first_cells for name in re.findall(r"[\w-]+", cell)]
    assert sorted(listed) == sorted({*READERS, *ADAPTATIONS, *policies})
