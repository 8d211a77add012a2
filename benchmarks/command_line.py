"""The command of a benchmark, for the page of its results."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

__all__ = ["command_line"]


def command_line(benchmark: str, arguments: Sequence[str] | None) -> str:
    """The command that runs a benchmark with these arguments, for a shell; None: those of this process."""
    given = sys.argv[1:] if arguments is None else arguments
    return shlex.join(["python", "-m", f"benchmarks.{benchmark}", *given])
