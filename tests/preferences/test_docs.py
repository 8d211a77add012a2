from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fspo.cli.main import app

PAGE = Path(__file__).parents[2] / "docs" / "data.md"


def test_the_examples_of_the_page_on_data_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets.config

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    page = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 6
    (tmp_path / "ratings.csv").write_text(re.findall(r"^```csv\n(.*?)^```", page, re.DOTALL | re.MULTILINE)[0])
    exec(compile("".join(blocks), str(PAGE), "exec"), {})
    line = (tmp_path / "views.jsonl").read_text().splitlines()[0]
    assert line in PAGE.read_text(encoding="utf-8")


def test_the_commands_of_the_page_on_data_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = PAGE.read_text(encoding="utf-8")
    (tmp_path / "ratings.csv").write_text(re.findall(r"^```csv\n(.*?)^```", page, re.DOTALL | re.MULTILINE)[0])
    (tmp_path / "turns.jsonl").write_text(next(line for line in page.splitlines() if '"prompt": [' in line) + "\n")
    commands = re.findall(r"^\.venv/bin/fspo (data .*)$", page, re.MULTILINE)
    assert len(commands) >= 6
    for command in [*commands, "data import turns.jsonl turns"]:
        result = CliRunner().invoke(app, shlex.split(command, comments=True))
        assert result.exit_code == 0, (command, result.output)


def test_the_page_on_data_quotes_errors_as_the_program_says_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tables = (
        {"ratings.csv": "user,promt,chosen,rejected\nann,Why?,So.,Thus.\nben,Why?,So.,Thus.\n"},
        {"ratings.csv": "user,instruction,input,chosen,rejected\nann,Why?,,So.,Thus.\n"},
        {"views.jsonl": _rows(("ann", "So."), ("ann", "Thus."))},
        {
            "views.jsonl": _rows(("anne", "So."), ("ann", "So."), ("ann", ""), ("x", "So.")),
            "views.users.jsonl": json.dumps({"id": "ann"}),
        },
    )
    said = []
    for files in tables:
        for name, text in files.items():
            (tmp_path / name).write_text(text)
        said.append(CliRunner().invoke(app, ["data", "validate", next(iter(files))]).stderr.removeprefix("Error: "))
    quoted = PAGE.read_text("utf-8").partition("## Invalid data\n")[2].split("```")[1]
    assert quoted == "text\n" + "".join(said)


def _rows(*rows: tuple[str, str]) -> str:
    return "".join(
        json.dumps({"user": user, "prompt": f"Why {n}?", "chosen": chosen, "rejected": "Thus."}) + "\n"
        for n, (user, chosen) in enumerate(rows)
    )
