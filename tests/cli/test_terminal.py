"""No verb sends control characters of a dataset, a model or a file name to the terminal."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.markup import escape
from rich.panel import Panel
from rich.progress import Progress
from rich.table import Table
from rich.text import Text
from typer.testing import CliRunner

from fspo.cli.chat import Chat
from fspo.cli.main import app
from fspo.cli.progress import RichProgress
from fspo.cli.terminal import PrintableConsole
from fspo.modeling.answering import Reply

HOSTILE = "\x1b]0;owned\x1b[2J\x9b31m\u202e[red]x[/red]"
SHOWN = r"\x1b]0;owned\x1b[2J\x9b31m\u202e[red]x[/red]"


def fspo(*arguments: object) -> Any:
    return CliRunner().invoke(app, [*map(str, arguments)])


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    row = {"user": f"u{HOSTILE}", "prompt": f"p{HOSTILE}", "chosen": f"c{HOSTILE}", "rejected": f"r{HOSTILE}"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "rows.users.jsonl").write_text(json.dumps({"id": row["user"], "description": f"d{HOSTILE}"}) + "\n")
    result = fspo("data", "import", tmp_path / "rows.jsonl", tmp_path / "set", "--users", tmp_path / "rows.users.jsonl")
    assert result.exit_code == 0, result.output
    return tmp_path / "set"


def test_a_dataset_is_shown_without_obeying_it(dataset: Path) -> None:
    everybody, one = fspo("data", "show", dataset), fspo("data", "show", dataset, "--user", f"u{HOSTILE}")
    assert f"u{SHOWN}" in everybody.output and f"d{SHOWN}" in everybody.output
    for text in "pcr":
        assert f" {text}{SHOWN}\n" in one.output
    assert "\x1b" not in everybody.output + one.output and "\u202e" not in everybody.output + one.output


def test_errors_are_shown_without_obeying_them(tmp_path: Path, dataset: Path) -> None:
    named = fspo("data", "show", tmp_path / "no\x1b[2J")
    assert named.exit_code == 1 and r"no\x1b[2J" in named.stderr and "\x1b" not in named.stderr
    told = fspo("data", "show", dataset, "--user", "u\x1b[2J")
    assert told.exit_code == 1 and r"u\x1b[2J" in told.stderr and "\x1b" not in told.stderr


@pytest.mark.parametrize("terminal", [True, False])
def test_tables_panels_and_bars_are_printable(terminal: bool) -> None:
    file = io.StringIO()
    console = PrintableConsole(file=file, force_terminal=terminal, color_system=None, width=200)
    table = Table(title=escape(HOSTILE))
    table.add_column(escape(HOSTILE))
    table.add_row(escape(HOSTILE))
    console.print(table)
    console.print(Panel(Text(HOSTILE), title=Text(HOSTILE)))
    console.print(HOSTILE, markup=False)
    assert not {"\x1b", "\x9b", "\u202e"} & set(file.getvalue()) and file.getvalue().count(r"\x1b]0;owned") == 6


def test_a_bar_sends_rich_own_controls_alone() -> None:
    file = io.StringIO()
    console = PrintableConsole(file=file, force_terminal=True, width=200)
    with RichProgress(console).task(f"name{HOSTILE}", 2) as task:
        task.advance(note=f"note{HOSTILE}")
    said = file.getvalue()
    assert "\x1b[?25l" in said, "the bar hides the cursor, or this shows nothing"
    assert "\x1b]0" not in said and "\x1b[2J" not in said and "\x9b" not in said and "\u202e" not in said
    assert r"\x1b[2J" in said
    assert Progress(console=console)


@pytest.mark.parametrize("terminal", [True, False])
def test_a_conversation_shows_answers_without_obeying_them(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    console = PrintableConsole(file=file, force_terminal=terminal, color_system=None, width=200)
    talk = Chat.__new__(Chat)
    talk.method, talk.user = "fspo", f"u{HOSTILE}"
    replies = Reply(f"mine{HOSTILE}"), Reply(f"base{HOSTILE}")
    monkeypatch.setattr(Chat, "answers", lambda _, prompt: replies)
    talk.show(f"p{HOSTILE}", console)
    assert "\x1b" not in file.getvalue()
    for who in ("mine", "base"):
        assert rf"{who}\x1b]0;owned" in file.getvalue()
