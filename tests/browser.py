"""A real Chromium without a window, and what axe finds on its pages."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

pytest.importorskip("playwright", reason="playwright is not installed; `pip install -e '.[dev]'` brings it")
AXE_SCRIPT: str = pytest.importorskip(
    "axe_playwright_python.base", reason="axe-playwright-python is not installed; see above"
).AXE_SCRIPT

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_WITHOUT = (
    *("AimEnabled", "AvoidCorsURLLoaderRestartOnRedirect", "AvoidUnnecessaryBeforeUnloadCheckSync"),
    *("DestroyProfileOnBrowserClose", "HttpsFirstBalancedModeAutoEnable", "HttpsUpgrades", "LensOverlay"),
    *("MediaRouter", "NetworkTimeServiceQuerying", "OptimizationHints", "PaintHolding", "PreconnectToSearch"),
    *("TcpPortRandomizationWin", "ThirdPartyStoragePartitioning"),
    *("WebUIOmniboxAimPopup", "WebUIOmniboxPopup"),
)
"""Features that Chromium does without: those that Playwright 1.65 names, since Chromium reads only the last of two such
options, and two pages of suggestions for the address bar, which are loaded beside each page of a test and cost more
than that.
"""
PATIENCE = 240_000  # milliseconds, for a machine that does other things too
_MARK_LOOKS = """() => {
    const shown = new Map();
    const ground = element => {  // what lies behind the text of an element
        if (!element) return '';
        if (!shown.has(element)) {
            const style = getComputedStyle(element);
            const own = [style.backgroundColor, style.backgroundImage, style.opacity, style.position].join();
            const plain = own === 'rgba(0, 0, 0, 0),none,1,static';
            shown.set(element, ground(element.parentElement) + (plain ? '' : `;${own}`));
        }
        return shown.get(element);
    };
    const looks = new Map();
    const speaks = element => [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
    for (const element of document.body.querySelectorAll('*')) {
        const field = element.matches('input, select, textarea, button');
        if (element.closest('svg') || !element.checkVisibility() || !field && !speaks(element)) continue;
        const style = getComputedStyle(element);
        const text = [style.color, style.fontSize, style.fontWeight, style.textShadow, element.className];
        const look = [...text, ground(element)].join('|');
        looks.set(look, 1 + (looks.get(look) ?? 0));
        if (field || looks.get(look) <= 3) element.dataset.look = '';
    }
}"""
"""Mark each field, and the first visible texts of each look: colour, size, class and what lies behind it.

A text in a drawing is left out: axe can't tell its contrast.
"""
_AXE = """async only => {
    axe.configure({rules: [{id: 'color-contrast', selector: '[data-look]'}]});
    const drawings = [...document.querySelectorAll('svg[role=img]')].map(svg => [svg, [...svg.childNodes]]);
    for (const [svg, parts] of drawings)
        svg.replaceChildren(...parts.filter(part => ['title', 'desc'].includes(part.localName)));
    try {
        return await axe.run({resultTypes: ['violations'], ...(only.length && {runOnly: only})});
    } finally {
        for (const [svg, parts] of drawings) svg.replaceChildren(...parts);
    }
}"""
"""Run axe. A drawing is one image to it, with a title and a description: its thousands of lines are half the work."""


@contextmanager
def launched() -> Iterator[Any]:
    """The browser; a test without one is skipped."""
    from playwright.sync_api import sync_playwright

    found = os.environ.get("FSPO_BROWSER") or next(filter(None, map(shutil.which, _NAMES)), None)
    if not found:
        pytest.skip("no Chromium here: `apt-get install chromium`, or name one with FSPO_BROWSER")
    with sync_playwright() as playwright:
        arguments = [f"--disable-features={','.join(_WITHOUT)}"]
        # Chromium refuses its sandbox to root, as whom containers run.
        arguments += ["--no-sandbox"] if os.geteuid() == 0 else []
        opened = playwright.chromium.launch(executable_path=found, args=arguments, timeout=PATIENCE)
        yield opened
        opened.close()


def unfold(page: Any) -> None:
    """Open every fold of the page."""
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")


def violations(page: Any, *, only: Sequence[str] = (), least: int = 20) -> list[str]:
    """What axe finds, all of its rules, best practice among them, or `only` some, with everything unfolded.

    The contrast, which takes most of the time, is measured on three texts of each look. More than `least` rules have
    to pass.
    """
    unfold(page)
    page.evaluate(_MARK_LOOKS)
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE_SCRIPT)
    found = page.evaluate(_AXE, list(only))
    passed = sorted(row["id"] for row in found["passes"])
    assert passed == sorted(only) if only else len(passed) > least, f"axe has looked at next to nothing: {passed}"
    return [f"{row['id']}: {node['html'][:200]}" for row in found["violations"] for node in row["nodes"]]


def colour_violations(page: Any) -> list[str]:
    """What axe finds wrong with colours alone: for the night of a page that was checked by day."""
    return violations(page, only=["color-contrast"])
