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


def confirmation(folder: RunFolder, *, yes: bool) -> Callable[[Sequence[str]], None]:
    """A function that asks whether the named parts and files of a run may be removed.

    With `yes` it agrees without a question. Without a terminal, or with several processes, it can't ask and refuses. It
    raises `ConfigError` if the answer is no, or if it can't ask.
    """

    def confirm(names: Sequence[str]) -> None:
        if yes:
            return
        what = f"Overwriting also removes from {folder.path} what depends on it: {', '.join(names)}"
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
