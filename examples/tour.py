"""Writes `tour.ipynb` from the page `docs/python.md`: `python -m examples.tour [--check]`."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

__all__ = ["PAGE", "code_of", "notebook"]

PAGE = Path(__file__).parents[1] / "docs" / "python.md"
_NOTEBOOK = Path(__file__).with_suffix(".ipynb")
_BLOCK = re.compile(r"^```python\n(.*?)^```\n?", re.DOTALL | re.MULTILINE)


def code_of(page: str) -> list[str]:
    """The Python blocks of a page."""
    return _BLOCK.findall(page)


def notebook(page: str) -> dict[str, Any]:
    """The page as a notebook: a cell for each block of code, and one for each text between two of them."""
    cells = []
    for number, part in enumerate(_BLOCK.split(page)):  # texts and blocks take turns
        text = part if number % 2 else _relinked(part)
        if text.strip():
            code = {"outputs": [], "execution_count": None} if number % 2 else {}
            kind = "code" if number % 2 else "markdown"
            source = text.strip().splitlines(keepends=True)
            cells.append({"cell_type": kind, "id": f"cell-{number}", "metadata": {}, "source": source, **code})
    metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def _relinked(text: str) -> str:
    """The links of the page, which are relative to docs/, relative to examples/."""
    return re.sub(r"\]\((?!http)(\.\./)?", lambda link: "](../" if link[1] else "](../docs/", text)


def _main() -> int:
    text = json.dumps(notebook(PAGE.read_text(encoding="utf-8")), indent=1, ensure_ascii=False) + "\n"
    if "--check" not in sys.argv[1:]:
        _NOTEBOOK.write_text(text, encoding="utf-8")
    elif not _NOTEBOOK.exists() or _NOTEBOOK.read_text(encoding="utf-8") != text:
        print(f"{_NOTEBOOK} is not what {PAGE} says; run `make docs`.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main())
