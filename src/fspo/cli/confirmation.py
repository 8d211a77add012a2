"""The question before a command removes more than it makes again."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import typer

from fspo.errors import ConfigError
from fspo.printing import one_line
from fspo.runs import processes

if TYPE_CHECKING:
    from fspo.runs.folder import RunFolder

__all__ = ["ask", "confirmation"]


def confirmation(folder: RunFolder, *, yes: bool) -> Callable[[Sequence[str], Sequence[str]], None]:
    """A function that asks whether parts of a run may be made from scratch, and others be removed for that.

    It gets the names of both. With `yes` it agrees without a question. Without a terminal, or with several processes,
    it can't ask and refuses. It raises `ConfigError` if the answer is no, or if it can't ask.
    """

    def confirm(parts: Sequence[str], others: Sequence[str]) -> None:
        if yes:
            return
        made, removed = ", ".join(parts), ", ".join(others)
        what = f"In {folder.path} this makes {made} from scratch and removes what depends on that: {removed}"
        remedy = "Add --yes if these may go, or name another folder with --output."
        ask(f"{what}. Continue?", refusal=f"{what}. {remedy}", declined="Nothing was removed.")

    return confirm


def ask(question: str, *, refusal: str, declined: str) -> None:
    """Ask a question that can be answered with yes or no.

    Raises:
        ConfigError: with `refusal` without a terminal or with several processes, and with `declined` after a no.
    """
    if not sys.stdin.isatty() or processes.count() > 1:
        raise ConfigError(refusal)
    if not typer.confirm(one_line(question), err=True):
        raise ConfigError(declined)
