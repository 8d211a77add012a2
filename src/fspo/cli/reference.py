"""The command reference, written from the commands themselves: `python -m fspo.cli.reference [--check] docs/cli.md`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

__all__ = ["main", "render", "update_page"]

_HEADER = """\
# Command reference

`make docs` generates this page from the commands' help, and `make check` compares the two. Every command exits with

- 0 on success,
- 1 after a failure, also if data, a model, a store or another file that the command or the configuration names is
  missing or damaged,
- 2 if the command or the configuration is invalid, or there is no such configuration,
- 130 after Ctrl-C; a server (`fspo serve`, `fspo study serve`, `fspo study demo`) that is already listening exits
  with 0.
"""


def render() -> str:
    """The whole reference as Markdown."""
    from fspo.cli.main import app

    command = typer.main.get_command(app)
    return "\n".join([_HEADER, *_sections(command, "fspo")])


def _sections(command: Any, path: str) -> Iterator[str]:
    # A fixed width, so that the text does not depend on the terminal it is made in.
    context = typer.Context(
        command, info_name=path, terminal_width=100, max_content_width=100, help_option_names=["-h", "--help"]
    )
    level = "##" if path.count(" ") < 2 else "###"
    yield f"{level} {path}\n\n```text\n{command.get_help(context).rstrip()}\n```\n"
    for name in command.list_commands(context) if hasattr(command, "list_commands") else ():
        yield from _sections(command.get_command(context, name), f"{path} {name}")


def update_page(arguments: list[str], text: str, source: str) -> int:
    """Write a page that `source` generates to the path in `arguments`, or compare it with `--check`.

    Returns:
        The exit code: 1 if the page differs.
    """
    path = Path(next(a for a in arguments if not a.startswith("--")))
    if "--check" not in arguments:
        path.write_text(text, encoding="utf-8")
        return 0
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return 0
    print(f"{path} does not say what {source} say; run `make docs`.", file=sys.stderr)
    return 1


def main(arguments: list[str]) -> int:
    """Write the reference, or compare it with `--check`; returns the exit code."""
    return update_page(arguments, render(), "the commands")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
