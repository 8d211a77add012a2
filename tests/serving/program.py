"""`fspo serve` as a program of its own."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.preloaded import start


@contextmanager
def serving(
    folder: Path, *arguments: object, store: str | Path | None = None, **environment: str
) -> Iterator[tuple[Any, str]]:
    """The program, and the address that it announces; its output and by default its store are in `folder`."""
    said = folder / "said.txt"
    with said.open("w") as stream:
        command = ("serve", "--store", store or folder / "store", "--port", 0, *arguments)
        program = start("fspo", *command, env={**os.environ, **environment}, stdout=stream, stderr=stream)
    try:
        while "; Ctrl-C ends." not in said.read_text():
            assert program.poll() is None, said.read_text()
            time.sleep(0.02)
        address = next(word for word in said.read_text().split() if word.endswith("/v1;"))
        yield program, address.removesuffix(";")
    finally:
        program.kill()
        program.wait(30)
