"""Text for people: parts of sentences, and texts of others, whose control characters are shown and not obeyed.

A sentence names an option by `option`: one sentence serves the command line and Python.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from shlex import join, quote

__all__ = [
    "column_option",
    "command",
    "counted",
    "nearest",
    "on_command_line",
    "one_line",
    "option",
    "printable",
    "reason_of",
    "rounded",
    "suggestion",
]

_OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but for tab and newline
    "\u061c\u202a-\u202e\u2066-\u2069"  # what changes the direction of text
    "\u2028\u2029"  # line ends that not every reader takes for one
    "\ud800-\udfff]"  # halves of surrogate pairs, which no terminal can be sent
)


_command_line = False
"""Whether sentences are for the person who typed a command, and not for one who called a Python function."""


@contextmanager
def on_command_line() -> Iterator[None]:
    """Let sentences name the options of the command line in place of the arguments of Python, until it ends."""
    global _command_line
    before, _command_line = _command_line, True
    try:
        yield
    finally:
        _command_line = before


def option(name: str, value: str = "", *, python: str = "") -> str:
    """An option, with its value if it is given, as the reader writes it.

    `option("on-existing", "overwrite")` is `--on-existing overwrite` on the command line, and in Python
    `on_existing="overwrite"`, or what `python` says.
    """
    if _command_line:
        return f"--{name} {value}" if value else f"--{name}"
    if python:
        return python
    argument = name.replace("-", "_")
    return f"{argument}={json.dumps(value, ensure_ascii=False)}" if value else argument


def column_option(columns: Mapping[str, str]) -> str:
    """How the reader gives the table's names of columns: fspo's name -> the table's."""
    if _command_line:
        return " ".join(f"--column {quote(f'{ours}={theirs}')}" for ours, theirs in columns.items())
    return f"columns={json.dumps(dict(columns), ensure_ascii=False)}"


def command(*words: object) -> str:
    """A command that the reader can paste into a shell: a word with blanks, such as a folder, is in quotes."""
    return join(map(str, words))


def counted(count: int, what: str) -> str:
    """A count in words: `what` begins with a plural, which loses its s where the count is 1."""
    noun, space, rest = what.partition(" ")
    return f"{count:,} {noun.removesuffix('s') if count == 1 else noun}{space}{rest}"


def rounded(number: float) -> int:
    """A number to two digits, which is all that an estimate says."""
    return int(float(f"{number:.2g}"))


def reason_of(error: Exception) -> str:
    """The first line of what an error of another library says, or else its name."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """The known name closest to `name`, or the empty string where none is close."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return found[0] if found else ""


def suggestion(name: str, known: Iterable[str], above: tuple[str, ...] = ()) -> str:
    """The end of a sentence on an unknown name: the nearest known one, after the names `above` it, or all of them."""
    known = list(known)
    close = nearest(name, known, cutoff=0.5)
    if close:
        return f"; did you mean '{'.'.join((*above, close))}'?"
    return f"; the known ones are {', '.join(known)}." if known else "."


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
