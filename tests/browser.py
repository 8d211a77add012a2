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
_HIDE_ALIKE = """for (const body of document.querySelectorAll('tbody')) {
    const looks = new Set();
    [...body.rows].forEach((row, place) => {
        const parts = [row, ...row.querySelectorAll('*')];
        const look = parts.map(e => [e.tagName, e.getAttribute('class'), e.getAttribute('style')].join()).join(';');
        if (place > 3 && looks.has(look)) {
            row.dataset.alike = '';
            row.style.display = 'none';
        }
        looks.add(look);
    });
}"""
"""Hide the rows of a table that have the same elements, classes and styles as an earlier one."""


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
    found = page.evaluate("axe.run({resultTypes: ['violations'], rules: {'color-contrast': {enabled: false}}})")
    # The contrast takes most of the time, and rows of the same look have the same.
    page.evaluate(_HIDE_ALIKE)
    contrast = page.evaluate("axe.run({resultTypes: ['violations'], runOnly: ['color-contrast']})")
    page.evaluate("document.querySelectorAll('tr[data-alike]').forEach(row => row.style.removeProperty('display'))")
    assert len(found["passes"] + contrast["passes"]) > 20, "axe has looked at next to nothing"
    rows = found["violations"] + contrast["violations"]
    return [f"{row['id']}: {node['html'][:200]}" for row in rows for node in row["nodes"]]
