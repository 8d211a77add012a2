"""The report in a real browser: accessible, whole on a phone and on paper, and in need of nothing from elsewhere."""

from __future__ import annotations

import csv
import functools
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fspo.evaluation.report.page import write_report
from fspo.evaluation.run_comparison.compare_runs import compare_runs
from fspo.evaluation.run_comparison.page import write_comparison
from fspo.files import read_json, write_json
from tests.browser import PATIENCE, colour_violations, unfold, violations
from tests.evaluation.run_folder import write_kept

PHONE, LAPTOP, PAPER = 390, 1366, 680  # pixels; PAPER is A4 without the margins of the page
TALLEST = {PHONE: 8080, LAPTOP: 6306}  # pixels, a third of what the page took when nothing was folded


@pytest.fixture(scope="module")
def run_folder(reported_run: Path) -> Path:
    return reported_run


@pytest.fixture(scope="module")
def report(reported_run: Path) -> Path:
    return reported_run / "report.html"


def opened(browser: Any, path: Path, width: int, scheme: str = "light") -> Any:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.goto(path.as_uri())
    return page


@pytest.fixture(scope="module")
def shown(browser: Any, report: Path) -> Callable[..., Any]:
    """The report on a screen of this width, as it was when it was opened: once for all tests, since that takes long."""

    @functools.cache
    def open_once(width: int) -> Any:
        page = opened(browser, report, width)
        page.evaluate("document.querySelectorAll('details[open]').forEach(one => one.dataset.unfolded = '')")
        return page

    def reset(width: int, scheme: str = "light") -> Any:
        page = open_once(width)
        page.emulate_media(color_scheme=scheme)
        page.evaluate("document.querySelectorAll('details').forEach(one => one.open = 'unfolded' in one.dataset)")
        page.evaluate("document.activeElement.blur(), scrollTo(0, 0)")
        page.mouse.move(0, 0)
        return page

    return reset


def cut_off(page: Any) -> list[str]:
    """What reaches over the edge of the screen, or of a box that hides it or scrolls sideways."""
    found: list[str] = page.evaluate(
        """[...document.querySelectorAll('body *')].filter(e => !e.closest('.heard, .skip, thead') && (
            e.getBoundingClientRect().right > innerWidth + 1 ||
            e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).overflowX !== 'visible' && e.clientWidth
        )).map(e => e.outerHTML.slice(0, 120))"""
    )
    return found


def broken_words(page: Any) -> list[str]:
    """The words of texts and of titles of cells that are wrapped inside."""
    found: list[str] = page.evaluate(
        r"""() => {
            const found = new Set(), probe = document.body.appendChild(document.createElement('span'));
            const words = text => [...text.matchAll(/[\p{L}\p{N}]+/gu)];
            for (const cell of document.querySelectorAll('tbody [data-label]')) {
                const {fontFamily, fontSize, fontWeight} = getComputedStyle(cell, '::before');
                Object.assign(probe.style, {fontFamily, fontSize, fontWeight, whiteSpace: 'nowrap'});
                for (const [word] of words(cell.dataset.label)) {
                    probe.textContent = word;
                    if (cell.clientWidth && probe.getBoundingClientRect().width > cell.clientWidth) found.add(word);
                }
            }
            probe.remove();
            const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), range = new Range();
            for (let text = texts.nextNode(); text; text = texts.nextNode()) {
                if (text.parentElement.closest('svg, script, style, pre, code, .heard, .skip, thead')) continue;
                for (const {0: word, index} of words(text.data)) {
                    range.setStart(text, index);
                    range.setEnd(text, index + word.length);
                    const lines = [...range.getClientRects()].filter(box => box.width).map(box => Math.round(box.top));
                    if (new Set(lines).size > 1) found.add(word);
                }
            }
            return [...found];
        }"""
    )
    return found


# Night changes colours and no places, so that one width is enough for it.
@pytest.mark.parametrize(("width", "scheme"), [(PHONE, "light"), (LAPTOP, "light"), (LAPTOP, "dark")])
def test_the_report_is_accessible_at_every_size_by_day_and_by_night(
    shown: Callable[..., Any], width: int, scheme: str
) -> None:
    page = shown(width, scheme)
    assert (violations if scheme == "light" else colour_violations)(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if width == PHONE:
        assert cut_off(page) == []
        assert broken_words(page) == []
    luminance = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (min(luminance) > 200) == (scheme == "light")


@pytest.mark.parametrize("width", [PHONE, LAPTOP])
def test_two_users_answers_are_on_the_first_screen_of_a_short_page(shown: Callable[..., Any], width: int) -> None:
    page = shown(width)
    assert page.evaluate("document.documentElement.scrollHeight") <= TALLEST[width]
    cards = page.locator("#samples > .pair > .card")
    assert cards.count() == 3  # two users, and the base model
    boxes = [cards.nth(number).bounding_box() for number in range(3)]
    beside = [box["y"] == boxes[0]["y"] for box in boxes]
    assert beside == ([True, False, False] if width == PHONE else [True] * 3)
    assert all(0 <= box["y"] < 900 for box in boxes[:2])  # the height of the screen


def test_plots_are_drawn_for_the_width(shown: Callable[..., Any]) -> None:
    """Letters of a plot have a size that can be read, on a phone as on a laptop."""
    for width, drawn in ((PHONE, "narrow"), (LAPTOP, "wide")):
        page = shown(width)
        unfold(page)
        visible = page.evaluate(
            "[...document.querySelectorAll('svg')].filter(e => e.clientWidth).map(e => e.classList[0])"
        )
        assert set(visible) == {drawn}
        heights = page.evaluate(
            "[...document.querySelectorAll('#plot-accuracy-by-shots svg text')]"
            ".map(e => e.getBoundingClientRect().height).filter(height => height)"
        )
        assert min(heights) >= 10


def test_the_instrument_finds_what_is_wrong(browser: Any, tmp_path: Path) -> None:
    rows = "".join(
        f"<tr><td>{n}</td><td style='color:{'#aaa' if n == 7 else '#111'}'>cell {n}</td></tr>" for n in range(9)
    )
    dark = "<div style='background:#333'><p style='color:#111'>dark</p></div>"
    hidden = "<p hidden style='color:#aaa'>pale</p>"
    (tmp_path / "bad.html").write_text(f"<title>x</title>{hidden}<table>{rows}</table>{dark}<img src='data:,'>")
    page = opened(browser, tmp_path / "bad.html", LAPTOP)
    found = violations(page, least=0)
    assert "image-alt" in " ".join(found)
    pale = sorted(one for one in found if one.startswith("color-contrast"))
    assert len(pale) == 2 and "cell 7" in pale[1] and "dark" in pale[0]
    page.context.close()


def test_nothing_is_asked_of_anybody(browser: Any, report: Path) -> None:
    context = browser.new_context()
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.goto(report.as_uri(), timeout=PATIENCE)
    page.wait_for_load_state("networkidle", timeout=PATIENCE)
    assert asked == [report.as_uri()]
    assert said == []
    context.close()


def test_the_keyboard_reaches_everything(browser: Any, report: Path) -> None:
    page = opened(browser, report, LAPTOP)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the results"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    numbers = page.locator("#plot-accuracy-by-shots details")
    numbers.locator("summary").focus()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    assert numbers.get_attribute("open") is not None
    assert numbers.get_by_role("table").is_visible()
    page.context.close()


def test_plots_are_read_out(shown: Callable[..., Any]) -> None:
    page = shown(LAPTOP)
    unfold(page)
    plots = page.get_by_role("img").all()
    assert len(plots) == page.locator("svg.wide").count() >= 9
    snapshot = page.locator("#plot-accuracy-by-shots").aria_snapshot()
    assert 'img "Reward accuracy by number of shots"' in snapshot
    described = page.evaluate(
        "[...document.querySelectorAll('svg')].map(s => document.getElementById(s.getAttribute('aria-describedby'))"
        ".textContent)"
    )
    assert all(re.search(r"\d", text) for text in described if "distributions" not in text)


def test_the_numbers_of_a_plot_are_downloaded(shown: Callable[..., Any], run_folder: Path, tmp_path: Path) -> None:
    page = shown(PHONE)
    with page.expect_download() as waiting:
        page.locator("#plot-accuracy-by-shots a[download]").click()
    assert waiting.value.suggested_filename == "accuracy-by-shots.csv"
    waiting.value.save_as(tmp_path / "numbers.csv")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "numbers.csv").read_text())))
    known = read_json(run_folder / "metrics.json")["fspo"]["reward_accuracy@4"]
    (row,) = [row for row in rows if (row["method"], row["shots"]) == ("fspo", "4")]
    assert float(row["value"]) == known["value"]
    assert [float(row["low"]), float(row["high"]), int(row["users"])] == [known["low"], known["high"], known["users"]]


def test_it_prints_on_white_with_everything_that_paper_can_show(browser: Any, report: Path) -> None:
    page = opened(browser, report, PAPER, "dark")
    page.emulate_media(media="print", color_scheme="dark")
    style = "e => [getComputedStyle(e).backgroundColor, getComputedStyle(e).color]"
    assert page.locator("body").evaluate(style) == ["rgb(255, 255, 255)", "rgb(0, 0, 0)"]
    assert not page.locator(".numbers").first.is_visible()
    assert page.locator("pre").is_visible()  # the configuration, which is folded on the screen
    assert page.evaluate("document.documentElement.scrollWidth") <= PAPER
    cut = "[...document.querySelectorAll('table, svg')].filter(e => e.getBoundingClientRect().right > innerWidth + 1)"
    assert page.evaluate(f"{cut}.map(e => e.textContent.slice(0, 80))") == []
    pdf = page.pdf(prefer_css_page_size=True)
    assert pdf.startswith(b"%PDF")
    assert 5 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 25
    page.context.close()


def test_the_comparison_of_runs_is_accessible_too(browser: Any, run_folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    write_kept(other / "evaluation", salt="other")
    write_json(other / "evaluation" / "details.json", read_json(run_folder / "evaluation" / "details.json"))
    page_path = write_comparison(compare_runs([run_folder, other]), tmp_path / "compared.html")
    for scheme in ("light", "dark"):
        page = opened(browser, page_path, PHONE, scheme)
        assert (violations if scheme == "light" else colour_violations)(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE
        assert cut_off(page) == []
        page.context.close()


def test_a_run_with_next_to_nothing_is_accessible(browser: Any, tmp_path: Path) -> None:
    page = opened(browser, write_report(tmp_path, tmp_path / "empty.html"), PHONE)
    assert violations(page) == []
    page.context.close()
