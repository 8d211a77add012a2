"""The messages that docs/troubleshooting.md quotes are in the source, as the page writes them."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
QUOTED = re.findall(r"^> (.+)$", PAGE, re.MULTILINE)


@functools.cache
def templates() -> tuple[str, ...]:
    """Every text of the source, with `…` for the parts that vary."""
    found = []
    for path in (ROOT / "src/fspo").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return tuple(" ".join(text.split()) for text in found)


def has_in_order(text: str, parts: list[str]) -> bool:
    place = 0
    for part in parts:
        place = text.find(part, place)
        if place < 0:
            return False
        place += len(part)
    return True


def is_in_the_source(message: str) -> bool:
    """Whether one text of the source has all fixed parts of the message, in order."""
    fixed = message.split("…")
    return any(has_in_order(text, fixed) for text in templates())


def test_quoted_messages_are_in_the_source() -> None:
    for message in QUOTED:
        assert len(re.sub(r"…|\W", "", message)) > 10, f"a message needs a fixed part to be found by: {message}"
        assert is_in_the_source(message), message


def test_the_page_quotes_the_errors_of_every_kind_once() -> None:
    assert len(QUOTED) > 40
    assert len(set(QUOTED)) == len(QUOTED)


def test_a_message_that_is_not_there_is_not_found() -> None:
    assert not is_in_the_source("The disk is empty: … could not be written.")
    assert not is_in_the_source("… could not be written. The disk is full: …")
