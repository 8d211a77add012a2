"""Text for a terminal: counts in words, and texts of others, whose control characters are shown and not obeyed."""

from __future__ import annotations

import re

__all__ = ["counted", "one_line", "printable"]

_OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but for tab and newline
    "\u061c\u202a-\u202e\u2066-\u2069"  # what changes the direction of text
    "\u2028\u2029"  # line ends that not every reader takes for one
    "\ud800-\udfff]"  # halves of surrogate pairs, which no terminal can be sent
)


def counted(count: int, what: str) -> str:
    """A count in words: `what` begins with a plural, which loses its s where the count is 1."""
    noun, space, rest = what.partition(" ")
    return f"{count:,} {noun.removesuffix('s') if count == 1 else noun}{space}{rest}"


def printable(text: str) -> str:
    r"""`text` with every character that a terminal obeys written as an escape, such as `\x1b`; lines and tabs stay.

    Text from datasets, models, servers and file names passes through here before it is printed.
    """
    return _OBEYED.sub(_escape, text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    r"""`printable` text on one line: line breaks and tabs are written as `\n` and `\t`."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
