from __future__ import annotations

import io
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fspo.printing import column_option, counted, nearest, on_command_line, one_line, printable
from fspo.progress import PlainProgress


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;owned\x07\x1b[2J", r"\x1b]0;owned\x07\x1b[2J"),
        ("a\rb\r\nc\td\n", "a\\x0db\nc\td\n"),
        ("\x9b31m", r"\x9b31m"),
        ("admin\u202egnp.exe\u2066", r"admin\u202egnp.exe\u2066"),
        ("half \ud83d", r"half \ud83d"),
        ("a\x00b\x7f\u2028", r"a\x00b\x7f\u2028"),
        *[(text, text) for text in ("[red]é 日本[/red]", "👩\u200d👧", "\u200f\u05e2\u05d1", "\\x1b")],
    ],
)
def test_what_a_terminal_obeys_is_shown(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown


@given(st.text(st.characters(exclude_categories=()), max_size=40))
def test_no_text_holds_a_control_character_and_all_can_be_encoded(text: str) -> None:
    shown = printable(text)
    shown.encode("utf-8")
    assert not [c for c in shown if unicodedata.category(c) == "Cc" and c not in "\n\t"]


def test_lines_of_progress_are_printable() -> None:
    file = io.StringIO()
    progress = PlainProgress(file, every=0)
    progress.say("server said \x1b[2J")
    with progress.task("\x1b[1mname", 3) as task:
        task.advance(note="\x1b]0;note\x07")
    assert "\x1b" not in file.getvalue() and file.getvalue().count("\\x1b") == 6


def test_one_line_stays_one() -> None:
    assert one_line("a\nb\tc\r\n\x1b") == r"a\nb\tc\n\x1b"


@pytest.mark.parametrize(
    ("count", "what", "said"),
    [
        (0, "users", "0 users"),
        (1, "rows without a label", "1 row without a label"),
        (1234, "responses", "1,234 responses"),
    ],
)
def test_one_of_a_kind_is_no_plural(count: int, what: str, said: str) -> None:
    assert counted(count, what) == said


def test_nearest_knows_when_nothing_is_near() -> None:
    assert nearest("rejcted", ["chosen", "rejected"]) == "rejected"
    assert nearest("zebra", ["chosen", "rejected"]) == ""


def test_a_column_with_a_space_is_one_argument_of_a_shell() -> None:
    import shlex

    with on_command_line():
        said = column_option({"user": "seat no", "chosen": "it's best", "prompt": "question"})
    assert shlex.split(said)[1::2] == ["user=seat no", "chosen=it's best", "prompt=question"]
    assert "--column prompt=question" in said
