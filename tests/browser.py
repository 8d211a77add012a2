"""A real Chromium without a window, and what axe finds on its pages."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

pytest.importorskip("playwright", reason="playwright is not installed; `pip install -e '.[dev]'` brings it")
AXE_SCRIPT: str = pytest.importorskip(
    "axe_playwright_python.base", reason="axe-playwright-python is not installed; see above"
).AXE_SCRIPT

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATIENCE = 240_000  # milliseconds, for a machine that does other things too


@contextmanager
def launched() -> Iterator[Any]:
    """The browser; a test without one is skipped."""
    from playwright.sync_api import sync_playwright

    found = os.environ.get("FSPO_BROWSER") or next(filter(None, map(shutil.which, _NAMES)), None)
    if not found:
        pytest.skip("no Chromium here: `apt-get install chromium`, or name one with FSPO_BROWSER")
    with sync_playwright() as playwright:
        # Chromium refuses its sandbox to root, as whom containers run.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        opened = playwright.chromium.launch(executable_path=found, args=arguments, timeout=PATIENCE)
        yield opened
        opened.close()


def unfold(page: Any) -> None:
    """Open every fold of the page."""
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")


def violations(page: Any) -> list[str]:
    """What axe finds, all of its rules, best practice among them, with everything unfolded."""
    unfold(page)
    page.evaluate(AXE_SCRIPT)
    found = page.evaluate("axe.run({resultTypes: ['violations']})")
    assert len(found["passes"]) > 20, "axe has looked at next to nothing"
    return [f"{row['id']}: {node['html'][:200]}" for row in found["violations"] for node in row["nodes"]]
