"""What verbs print about a run: the table, and how long its methods were trained."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from fspo.cli.output import print_table
from fspo.runs.config import RunConfig
from fspo.runs.folder import RunFolder
from tests.evaluation.run_folder import write_run_folder


def test_the_table_says_how_long_each_method_was_trained(tmp_path: Path) -> None:
    write_run_folder(tmp_path, light=True)
    log = tmp_path / "methods" / "fspo" / "metrics.jsonl"
    log.write_text(log.read_text().splitlines()[0] + "\n")
    written = io.StringIO()
    print_table(RunFolder(RunConfig(output=tmp_path)), Console(file=written, width=400))
    trained = next(line for line in written.getvalue().splitlines() if line.startswith("Trained: "))
    assert "fspo for 1 step (2,000 tokens" in trained
    assert "ipo for 3 steps (3,000 tokens" in trained
    assert "few-shot" not in trained
