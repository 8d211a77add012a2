"""Exceptions in the log of a server: their types and lines of code, and none of their values.

The text of an exception may quote what people wrote, and so may the traceback that Python prints.
"""

from __future__ import annotations

import logging
import re
import sysconfig
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from traceback import walk_tb

__all__ = ["hide_values", "outlined"]

_LOGGERS = ("uvicorn.error", "asyncio")
"""They log what nobody has caught."""
_TRACEBACK = re.compile(r"\s*(\+ Exception Group )?Traceback \(most recent call last\)")
_MARGIN = re.compile(r" *[|+] ?")
"""Of the lines of a group of exceptions."""
_PLACE = re.compile(r'  File "([^"]+)", line (\d+), in (\S+)')
_KIND = re.compile(r"[\w.]+")
_OWN = str(Path(__file__).parents[1])
"""The folder of fspo, which may be among the installed packages."""
_OTHERS = tuple(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))
_PARTS = 3
"""Of a file's path: enough to find it, without the folders of this machine."""


def outlined(error: BaseException) -> str:
    """The types of an exception and of its causes, each with the lines of fspo that it came through, and its own."""
    return "; after ".join(_outline(one) for one in _with_causes(error))


def hide_values() -> None:
    """Let the server's loggers write `outlined` in place of tracebacks, from now on."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_FILTER)


class _WithoutValues(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite a record that has an exception, or whose text is a traceback."""
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            first = record.getMessage().strip().partition("\n")[0]  # further lines of asyncio show the exception
            record.msg, record.args = f"{first}: {outlined(error)}", ()
            record.exc_info = record.exc_text = None
        elif _TRACEBACK.match(text := record.getMessage()):  # of the start or the end of an application
            record.msg, record.args = _outlined_text(text), ()
        return True


_FILTER = _WithoutValues()


def _outlined_text(traceback: str) -> str:
    """The first exception of a printed traceback in the form of `outlined`."""
    lines = [_MARGIN.sub("", line) for line in traceback.splitlines()[1:]]
    first = list(takewhile(lambda line: line.startswith(" "), lines))
    found = [place.groups() for line in first if (place := _PLACE.match(line))]
    kind = _KIND.match(lines[len(first)]) if len(first) < len(lines) else None
    return f"Exception in the application: {kind[0] if kind else 'error'} at {_places(found)}"


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        one = waiting.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        cause = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
        grouped = one.exceptions if isinstance(one, BaseExceptionGroup) else ()
        waiting += [*([cause] if cause is not None else []), *grouped]


def _outline(error: BaseException) -> str:
    frames = [(frame.f_code, line) for frame, line in walk_tb(error.__traceback__)]
    found = [(code.co_filename, str(line), code.co_name) for code, line in frames]
    return f"{type(error).__name__} at {_places(found)}" if found else type(error).__name__


def _places(frames: Sequence[Sequence[str]]) -> str:
    """Files, lines and functions without those of other packages, but with the last one, which raised the exception."""
    shown = [*(frame for frame in frames[:-1] if _is_own(frame[0])), *frames[-1:]]
    return " > ".join(f"{_short(file)}:{line} {name}" for file, line, name in shown)


def _is_own(file: str) -> bool:
    return file.startswith(_OWN) or not file.startswith(_OTHERS)


def _short(file: str) -> str:
    return "/".join(Path(file).parts[-_PARTS:])
