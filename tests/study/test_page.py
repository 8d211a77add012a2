"""The pages in a real browser: the whole study by keyboard, and once without scripts; accessible at every size."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fspo.modeling.builtin_model import BUILTIN_MODEL
from fspo.serving.page_headers import page_headers
from fspo.study.app import create_study_app
from fspo.study.arms import load_models, open_engines, weights_of_arms
from fspo.study.demo import demo_study
from fspo.study.material import load_material
from fspo.study.registration import registration_of
from fspo.study.store import StudyStore
from fspo.study.texts import LANGUAGES
from tests.browser import PATIENCE, violations
from tests.serving.echo import served
from tests.study.site import ScriptedEngine, StudySite, study_config

PHONE, LAPTOP = 390, 1366  # pixels
LONG = "A long answer, as a model writes it. " * 12
ABOUT = [
    {"id": "work", "text": "What do you do?"},
    {"id": "age", "text": "How old are you?", "options": ["18-39", "40+"]},
]


@contextmanager
def served_site(folder: Path, engine: ScriptedEngine | None = None, **changes: Any) -> Iterator[tuple[StudySite, str]]:
    store = StudyStore.open(folder / "store")
    engine = engine or ScriptedEngine(lambda request: f"{LONG}About: {request.turns[-1].text}")
    site = StudySite(study_config(folder, about=ABOUT, **changes), store, engine)
    with served(site.app) as url:
        yield site, url.removesuffix("v1")
    store.close()


@contextmanager
def visit(browser: Any, address: str, **settings: Any) -> Iterator[Any]:
    """The first page. At the end: only the server was asked, and nothing failed."""
    context = browser.new_context(**settings)
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    asked: list[str] = []
    problems: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(address)
    yield page
    assert problems == []
    assert asked and all(url.startswith(address) for url in asked)
    context.close()


def heading(page: Any) -> str:
    return str(page.locator("h1").text_content())


def test_the_whole_study_by_keyboard_is_accessible_on_every_page(browser: Any, tmp_path: Path) -> None:
    engine = ScriptedEngine(lambda request: f"{LONG}About: {request.turns[-1].text}")
    engine.held = True
    seen: dict[str, list[str]] = {}

    def check(page: Any) -> None:
        name = heading(page)
        if name not in seen:
            seen[name] = violations(page)
            assert page.evaluate("document.documentElement.scrollWidth") <= PHONE, name

    with (
        served_site(tmp_path, engine, attention=[]) as (site, address),
        visit(browser, address, viewport={"width": PHONE, "height": 800}, color_scheme="dark") as page,
    ):
        check(page)
        tab_to(page, "input[name=agree]")
        page.keyboard.press("Space")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="About you").wait_for()
        check(page)
        tab_to(page, "input[name=work]")
        page.keyboard.type("baker 12 u")
        page.keyboard.press("Enter")
        expected = []
        for number in range(8):
            page.locator(".choices").wait_for()  # the page of a waiting person loads itself again
            check(page)
            key = "12"[number % 2]
            expected.append("second" if number % 2 else "first")
            item = page.locator("#vote input[name=item]").get_attribute("value")
            page.keyboard.press("2")
            page.keyboard.press(key)
            assert page.locator("input[name=choice]:checked").get_attribute("value") == key
            page.keyboard.press("Enter")
            page.wait_for_function("id => document.querySelector('#vote input[name=item]')?.value !== id", arg=item)
            if number == 1:  # the first label is taken back, and chosen again
                page.keyboard.press("u")
                page.wait_for_function("id => document.querySelector('#vote input[name=item]')?.value === id", arg=item)
                page.keyboard.press(key)
                page.keyboard.press("Enter")
                page.wait_for_function("id => document.querySelector('#vote input[name=item]')?.value !== id", arg=item)
            if number == 3:
                page.get_by_role("heading", name="Part 1 is complete").wait_for()
                check(page)
                page.keyboard.press("Enter")
                page.locator("#waiting").wait_for()
                check(page)
                engine.held = False
        page.get_by_role("heading", name="That was the last question").wait_for()
        check(page)
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="Thank you").wait_for()
        check(page)
        page.get_by_role("link", name="Your data").click()
        page.get_by_role("heading", name="Your data").wait_for()
        check(page)
        records = site.store.records("small")
    assert [item.choice for item in records.items] == expected
    assert records.participants[0].answers == {"work": "baker 12 u"}
    assert len(seen) == 10 and not {name: found for name, found in seen.items() if found}


def tab_to(page: Any, selector: str) -> None:
    """Press Tab until the element has the focus."""
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"{selector} can't be reached by Tab")


@pytest.mark.builtin_model
@pytest.mark.slow
def test_the_demo_on_the_builtin_model_by_keyboard_leaves_nothing(browser: Any, tmp_path: Path) -> None:
    """Smaller than `fspo study demo`, so that it takes seconds: fewer labels and comparisons, shorter answers."""
    whole = demo_study(tmp_path / "study", BUILTIN_MODEL, labels=2, comparisons=1)
    config = whole.model_copy(update={"answers": whole.answers.model_copy(update={"max_tokens": 12})})
    material, store = load_material(config), StudyStore.open(str(config.output))
    store.register(config.name, registration_of(config, material, weights_of_arms(config)))
    engines = open_engines(config, load_models(config))
    engine: Any = engines["personal"]
    with (
        served(create_study_app(config, material, store, engines)) as url,
        visit(browser, url.removesuffix("v1"), viewport={"width": LAPTOP, "height": 900}) as page,
    ):
        tab_to(page, "input[name=agree]")
        page.keyboard.press("Space")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="About you").wait_for()
        tab_to(page, "input[name=field]")
        page.keyboard.type("velociraptors")
        page.keyboard.press("Enter")
        for number in range(5):  # practice, two labels, a comparison and an attention item
            page.locator(".choices").wait_for()
            item = page.locator("#vote input[name=item]").get_attribute("value")
            page.keyboard.press("1")
            page.keyboard.press("Enter")
            page.wait_for_function("id => document.querySelector('#vote input[name=item]')?.value !== id", arg=item)
            if number == 2:
                page.get_by_role("heading", name="Part 1 is complete").wait_for()
                page.keyboard.press("Enter")
        page.get_by_role("heading", name="That was the last question").wait_for()
        records = store.records("demo")
        assert [item.choice for item in records.items] == ["first"] * 5
        (compared,) = [item for item in records.items if item.arms]
        # The answers are so short that they may be equal; which arms gave them, and from how many labels, is certain.
        assert compared.first and compared.second
        assert sorted(compared.arms) == sorted(config.arms) and compared.shots == 2
        assert engine.counts.trunks == 1  # the labels, as the model has read them
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="Thank you").wait_for()
        assert engine.counts.trunks == 0
        content = ["velociraptors", compared.first[:30], compared.second[:30]]
        stored = b"".join(path.read_bytes() for path in config.output.iterdir())
        assert all(text.encode() in stored for text in content)
        tab_to(page, "a[href='/data']")
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="Your data").wait_for()
        tab_to(page, "form[action='/delete'] input[name=sure]")
        page.keyboard.press("Space")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="Everything is deleted").wait_for()
        stored = b"".join(path.read_bytes() for path in config.output.iterdir())
        assert not any(text.encode() in stored for text in content)
    store.close()


def test_the_whole_study_without_scripts(browser: Any, tmp_path: Path) -> None:
    with (
        served_site(tmp_path, attention=[]) as (site, address),
        visit(browser, address, viewport={"width": LAPTOP, "height": 900}, java_script_enabled=False) as page,
    ):
        page.get_by_role("checkbox").check()
        page.get_by_role("button", name="Begin").click()
        page.get_by_role("button", name="Continue").click()
        for number in range(8):
            if number == 4:
                page.get_by_role("button", name="Write the answers").click()
                page.locator("fieldset").wait_for()  # after at most three seconds, by itself
            page.get_by_role("radio", name="Answer 2").check()
            page.get_by_role("button", name="Continue").click()
        page.get_by_role("button", name="Change my last choice").click()
        page.get_by_role("radio", name="Neither is better").check()
        page.get_by_role("button", name="Continue").click()
        page.get_by_role("button", name="Finish").click()
        assert heading(page) == "Thank you"
        page.get_by_role("link", name="Your data").click()
        link = page.locator("a.code").get_attribute("href")
        page.goto(link)
        assert heading(page) == "Thank you"
        choices = [item.choice for item in site.store.records("small").items]
    assert choices == ["second"] * 7 + ["tie"]


def test_right_to_left_pages_are_accessible(browser: Any, tmp_path: Path) -> None:
    texts = {**LANGUAGES["en"].model_dump(), "direction": "rtl", "begin_button": "ابدأ"}
    with (
        served_site(tmp_path, languages={"en": {}, "ar": texts}, practice=[_hebrew()]) as (_, address),
        visit(browser, address, viewport={"width": LAPTOP, "height": 900}, locale="ar") as page,
    ):
        assert page.locator("html").get_attribute("dir") == "rtl"
        assert violations(page) == []
        page.get_by_role("checkbox").check()
        page.get_by_role("button", name="ابدأ").click()
        page.locator("form[action='/about'] button").click()
        page.locator(".choices").wait_for()
        assert violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= LAPTOP
        directions = page.evaluate("[...document.querySelectorAll('.text')].map(e => getComputedStyle(e).direction)")
        assert directions == ["rtl", "ltr"]


def _hebrew() -> dict[str, str]:
    return {"prompt": "Which greeting?", "first": "שלום לכולם", "second": "Hello everybody " + "long" * 60}


def test_the_pages_allow_nothing_but_themselves(tmp_path: Path) -> None:
    from tests.study.site import opened_site

    policy = page_headers(forms=True)["content-security-policy"]
    assert "'unsafe" not in policy and policy.startswith("default-src 'none'")
    with opened_site(tmp_path) as site:
        person = site.person().begin()
        for headers, _, _ in person.received:
            assert f"content-security-policy: {policy}" in headers and "cache-control: no-store" in headers
        assert not re.search(r"<script[^>]*>[^<]|<style|\sstyle=|\son\w+=|https?:", person.page)
        assert "HttpOnly" in str(person.received) and "SameSite=lax" in str(person.received)
        for name in re.findall(r'(?:src|href)="(/files/[^"]+)"', person.page):
            assert person.client.get(name).status_code == 200, name
