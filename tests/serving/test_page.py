"""The page at `/`: its own files and nothing else, and what a person does on it in a real browser."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from fspo.modeling.loading import load_model
from fspo.modeling.policies import save_policy
from fspo.preferences.response_pair import ResponsePair
from fspo.preferences.types import as_turns
from fspo.serving.api import ServerSettings, create_app
from fspo.serving.connection import StoreBusy
from fspo.serving.engine import GenerationRequest, Piece
from fspo.serving.ownership import Owner
from fspo.serving.page import page_router, written_pairs
from fspo.serving.page_headers import page_headers
from fspo.serving.question_bank import QuestionBank
from fspo.serving.store import Store
from tests.browser import PATIENCE, colour_violations, violations
from tests.modeling.test_policies import adapted
from tests.serving.echo import EchoEngine, served
from tests.serving.program import serving

PHONE, LAPTOP = 390, 1366  # pixels
MARKUP = "<img src=x onerror=\"document.title='hacked'\"><b>Bold</b>"


@pytest.mark.parametrize("reads", [True, False])
def test_the_page_says_whether_descriptions_are_read(reads: bool) -> None:
    app = FastAPI()
    app.include_router(page_router(100, asks=False, reads_description=reads))
    page = TestClient(app).get("/").text
    assert ("the model reads it" in page) == reads
    assert ("does not read it" in page) != reads


class Site:
    """A running server with one user."""

    def __init__(self, store: Store, address: str) -> None:
        self.store, self.address = store, address
        self.key, self.owner = "", Owner("")

    def prefer(self, prompt: str, chosen: str, rejected: str = "A loud one.") -> str:
        return self.store.add_preference(self.owner, as_turns(prompt), chosen, rejected).id


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    store = Store.open(tmp_path_factory.mktemp("site") / "store")
    with served(create_app(store, EchoEngine(), ServerSettings(rate="100000/minute"))) as url:
        yield Site(store, url.removesuffix("v1"))
    store.close()


@pytest.fixture
def site(running: Site) -> Iterator[Site]:
    running.store.add_user("ann")
    running.owner = running.store.user_named("ann")
    running.key = running.store.add_key(running.owner).key
    yield running
    for account in running.store.users():
        running.store.withdraw(running.store.user_named(account.name))


@pytest.fixture(scope="module")
def tab(browser: Any) -> Any:
    """One for all tests: opening another takes longer than most of what they do."""
    return browser.new_context().new_page()


@contextmanager
def visit(page: Any, site: Site, width: int = LAPTOP, scheme: str = "light") -> Iterator[Any]:
    """The page, still signed out. At the end: only the server was asked, no address held the key, nothing failed.

    The tab is left empty.
    """
    from playwright.sync_api import Error

    page.set_default_timeout(PATIENCE)
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    asked: list[str] = []
    problems: list[str] = []
    listeners = {
        "request": lambda request: asked.append(request.url),
        "console": lambda message: problems.append(message.text),
        "pageerror": lambda error: problems.append(str(error)),
    }
    for event, listener in listeners.items():
        page.on(event, listener)
    try:
        page.goto(site.address)
        yield page
    finally:
        for event, listener in listeners.items():
            page.remove_listener(event, listener)
        page.context.clear_cookies()
        with suppress(Error):  # of a tab that crashed or shows an error: it would hide why the test failed
            page.evaluate("() => { sessionStorage.clear(); localStorage.clear(); }")
        with suppress(Error):
            page.goto("about:blank")
    assert problems == []
    assert asked and all(url.startswith((site.address, f"blob:{site.address}")) for url in asked)
    assert not any(site.key in url for url in asked)


def sign_in(page: Any, key: str) -> None:
    page.get_by_label("Your key").fill(key)
    page.keyboard.press("Enter")


def answered(page: Any, model: str = "fspo") -> dict[str, Any]:
    """The echo of the newest answer, when it is whole."""
    page.wait_for_function(
        "id => { const e = document.getElementById(id); return e.ariaBusy === 'false' && e.textContent.endsWith('}') }",
        arg=f"{model}-answer",
    )
    echo: dict[str, Any] = json.loads(page.locator(f"#{model}-answer").text_content())
    return echo


def ratable(page: Any) -> None:
    """Wait until the answer is whole and may be rated."""
    page.wait_for_function(
        "() => { const e = document.getElementById('thumb-up'); return e.offsetParent && !e.disabled }"
    )


def saved(page: Any, text: str) -> None:
    page.get_by_role("status").filter(has_text=text).wait_for()


def test_files_of_the_page_allow_nothing_but_themselves(site: Site) -> None:
    policy = page_headers(forms=False)["content-security-policy"]
    page = httpx2.get(site.address)
    assert page.status_code == 200 and page.headers["content-security-policy"] == policy
    assert "'unsafe" not in policy and policy.startswith("default-src 'none'")
    assert not re.search(r"<script[^>]*>[^<]|<style|\sstyle=|\son\w+=|https?:", page.text)
    for name in re.findall(r'(?:src|href)="(page/[^"]+)"', page.text):
        found = httpx2.get(site.address + name)
        assert found.status_code == 200 and found.headers["x-content-type-options"] == "nosniff", name
    assert httpx2.get(site.address + "page/page.html.j2").status_code == 404
    assert httpx2.get(site.address + "page/..%2Fpage.py").status_code == 404


def test_pairs_are_two_different_texts_on_different_prompts(site: Site) -> None:
    pairs = httpx2.get(site.address + "page/pairs").json()
    assert len({pair["prompt"] for pair in pairs}) == len(pairs) == 40
    assert all(pair["first"] != pair["second"] for pair in pairs)
    prompts = {pair.prompt for pair in written_pairs(10_000)}
    assert len(prompts) > 200 and {pair["prompt"] for pair in pairs} <= prompts


def test_a_pair_is_answered_by_keyboard_and_the_answer_follows(tab: Any, site: Site) -> None:
    with visit(tab, site) as page:
        sign_in(page, site.key)
        assert answered(page)["chosen"] == answered(page, "base")["chosen"] == []
        assert page.evaluate("document.activeElement.id") == "pair-title"
        question = page.locator("#question").text_content()
        chosen, rejected = (page.locator(f"#choose-{number} span").text_content() for number in (2, 1))

        page.keyboard.press("2")
        saved(page, "you prefer answer 2")
        page.locator("#shots li").wait_for(state="attached")
        assert answered(page)["chosen"] == [chosen] and answered(page, "base")["chosen"] == []
        (stored,) = site.store.preferences(site.owner)
        one = stored.preference
        assert (one.prompt, one.chosen, one.rejected) == (question, chosen, rejected)
        for text in (question, chosen, rejected):
            assert text in page.locator("#shots li").text_content()
        assert page.locator("#question").text_content() != question
        assert "Used in the answer" in page.locator("#known li").text_content()
        page.locator("#earlier li").wait_for(state="attached")

        page.locator("#prompt").press("1")  # a person who writes does not choose
        page.get_by_role("button", name="Skip this pair").click()
        page.get_by_label("Press 1 or 2 to choose").uncheck()
        page.keyboard.press("1")
        assert len(site.store.preferences(site.owner)) == 1

        page.get_by_role("button", name="Delete the preference on").click()
        saved(page, "deleted")
        page.locator("#shots li").wait_for(state="detached")
        assert answered(page)["chosen"] == [] and page.locator("#known li").count() == 0
        assert site.store.preferences(site.owner) == []


def test_a_person_reads_why_no_preference_was_used(tab: Any, site: Site) -> None:
    with visit(tab, site) as page:
        sign_in(page, site.key)
        answered(page)
        why, prompt = page.locator("#why"), page.locator("#prompt").input_value()
        assert "no preferences yet" in str(why.text_content())
        site.prefer(f" {prompt.upper()}", "A calm one.")
        page.reload()
        assert answered(page)["chosen"] == []
        assert "all of them are about this question" in str(why.text_content())
        site.prefer("Another question?", "A calm one.")
        page.reload()
        assert answered(page)["chosen"] == ["A calm one."] and "saw 1 preference" in str(why.text_content())


def test_the_servers_own_questions_are_asked_until_none_is_left(browser: Any, site: Site) -> None:
    questions = [ResponsePair(f"Question {number}?", f"Yes {number}.", f"No {number}.") for number in range(3)]
    bank = QuestionBank(questions, np.array([[0.9, 0.7, 0.6], [0.1, 0.3, 0.4]]))
    with served(create_app(site.store, EchoEngine(), questions=bank)) as url:
        context = browser.new_context()
        page = context.new_page()
        page.goto(url.removesuffix("v1"))
        sign_in(page, site.key)
        page.locator("#question", has_text="Question 0?").wait_for()  # those users disagree on it most
        page.keyboard.press("1")
        page.locator("#question", has_text="Question 1?").wait_for()
        page.get_by_role("button", name="Skip this pair").click()
        page.locator("#question", has_text="Question 2?").wait_for()
        page.get_by_role("button", name="Answer 2").click()
        page.locator("#question", has_text="There is no question left.").wait_for()
        assert page.locator("#choices").is_hidden()
        context.close()
    assert [one.preference.chosen for one in site.store.preferences(site.owner)] == ["Yes 0.", "No 2."]


class _Varied(EchoEngine):
    """Every answer is another one."""

    async def stream(self, request: GenerationRequest) -> AsyncIterator[Piece]:
        async for piece in super().stream(replace(request, description=f"answer {len(self.requests) + 1}")):
            yield piece


def test_answers_are_rated_written_again_and_edited_by_keyboard(tab: Any, site: Site) -> None:
    def kept() -> list[tuple[str, str]]:
        return [(one.origin, one.preference.chosen) for one in site.store.preferences(site.owner)]

    with served(create_app(site.store, _Varied(), ServerSettings(rate="100000/minute"))) as url:
        varied = Site(site.store, url.removesuffix("v1"))
        varied.key = site.key
        with visit(tab, varied) as page:
            sign_in(page, site.key)
            answered(page)
            good, bad = (page.get_by_role("button", name=name, exact=True) for name in ("Good", "Bad"))
            assert good.is_hidden() and page.get_by_text("To rate answers").is_visible()
            page.get_by_label("Keep my conversations").check()
            ratable(page)
            bad.press("Enter")
            saved(page, "rate another answer")
            assert (bad.get_attribute("aria-pressed"), good.get_attribute("aria-pressed")) == ("true", "false")
            first = page.locator("#fspo-answer").text_content()
            assert kept() == [] and page.get_by_role("button", name="Better than").is_hidden()

            page.get_by_role("button", name="Another answer").press("Enter")
            ratable(page)
            page.get_by_role("button", name="Better than the one before").press("Enter")
            saved(page, "1 preference in all")
            second = str(page.locator("#fspo-answer").text_content())
            assert first != second and kept() == [("regeneration", second)]
            assert second in str(page.locator("#known li").text_content())
            page.get_by_role("button", name="Another answer").press("Enter")
            ratable(page)
            good.press("Space")
            saved(page, "2 preferences in all")
            third = str(page.locator("#fspo-answer").text_content())
            assert kept() == [("regeneration", second), ("thumbs", third)]
            good.press("Space")
            saved(page, "taken back")
            assert good.get_attribute("aria-pressed") == "false" and kept() == [("regeneration", second)]

            page.get_by_role("button", name="Write a better one").press("Enter")
            assert page.get_by_label("Your version").input_value() == third
            page.get_by_label("Your version").fill(MARKUP)
            page.get_by_role("button", name="Save your version").press("Enter")
            saved(page, "2 preferences in all")
            assert kept()[-1] == ("edit", MARKUP) and page.locator("dialog[open]").count() == 0
            page.get_by_label("Keep my conversations").uncheck()
            page.get_by_text("To rate answers").wait_for()
            assert page.locator("#judging").is_hidden()


def test_what_is_known_is_listed_edited_exported_and_deleted(tab: Any, site: Site, tmp_path: Path) -> None:
    oldest = site.prefer("Question 0?", "Chosen 0.")
    for number in range(1, 22):
        site.prefer(f"Question {number}?", f"Chosen {number}.")
    with visit(tab, site, PHONE) as page:
        sign_in(page, site.key)
        answered(page)
        page.reload()  # the tab remembers the key
        assert len(answered(page)["chosen"]) == 22
        assert page.locator("#known li").count() == 20
        page.get_by_role("button", name="Show more").click()
        page.get_by_role("button", name="Edit the preference on: Question 0?").click()
        page.get_by_role("button", name="Swap the two answers").click()
        page.get_by_label("over", exact=True).fill("Another one.")
        page.get_by_role("button", name="Save", exact=True).click()
        saved(page, "changed")
        found = site.store.preference(site.owner, oldest)
        assert found and (found.preference.chosen, found.preference.rejected) == ("A loud one.", "Another one.")

        page.get_by_label("Your description").fill("Likes calm.")
        page.get_by_role("button", name="Save the description").click()
        saved(page, "Saved.")
        assert answered(page)["description"] == "Likes calm."
        with page.expect_download() as waiting:
            page.get_by_role("button", name="Download everything").click()
        waiting.value.save_as(tmp_path / "export.zip")
        with zipfile.ZipFile(io.BytesIO((tmp_path / "export.zip").read_bytes())) as archive:
            assert any(b"Chosen 21." in archive.read(name) for name in archive.namelist())

        page.get_by_role("button", name="Delete everything").click()
        assert page.evaluate("document.activeElement.id") == "no"  # Enter by mistake deletes nothing
        page.keyboard.press("Enter")
        assert site.store.account(site.owner).preferences == 22
        page.get_by_role("button", name="Delete everything").click()
        page.get_by_role("button", name="Delete", exact=True).click()
        saved(page, "Everything of yours is deleted")
        assert site.store.users() == [] and page.get_by_label("Your key").is_visible()
        assert page.evaluate("[sessionStorage.length, localStorage.length]") == [0, 0]
        assert "Chosen" not in page.locator("body").text_content()


def test_training_is_allowed_and_forbidden_by_keyboard_and_a_switch_shows_what_is_saved(
    browser: Any, tab: Any, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def allowed() -> bool:
        return site.store.account(site.owner).allow_training

    def refuse(*_: object, **__: object) -> Any:
        raise StoreBusy("The store is busy; nothing was changed. Try again.")

    with visit(tab, site) as page:
        sign_in(page, site.key)
        answered(page)
        box = page.get_by_label("Allow training on my preferences")
        assert not box.is_checked()
        box.press("Space")
        saved(page, "Saved.")
        assert allowed()
        page.reload()
        answered(page)
        assert box.is_checked()
        page.evaluate(_HOLDING, "PATCH")
        for _ in range(2):  # the second click comes before the server has answered the first one
            box.press("Space")
            page.wait_for_function("() => window.release")
        assert not allowed() and box.is_checked()
        page.evaluate("() => { const release = window.release; window.release = null; release(); }")
        page.wait_for_function("() => window.release")
        assert allowed()
        page.evaluate("() => window.release()")
        saved(page, "Saved.")
        assert allowed() and box.is_checked()
    context = browser.new_context()
    page = context.new_page()
    page.goto(site.address)
    sign_in(page, site.key)
    answered(page)
    monkeypatch.setattr(site.store, "change_account", refuse)
    page.get_by_label("Allow training on my preferences").press("Space")
    page.get_by_role("alert").filter(has_text="The store is busy").wait_for()
    assert page.get_by_label("Allow training on my preferences").is_checked()
    context.close()


def test_saved_conversations_are_listed_and_deleted_by_keyboard(tab: Any, site: Site) -> None:
    def kept() -> list[str]:
        page = site.store.conversations(site.owner, limit=9)
        return [] if page is None else [one.model for one in page.entries]

    site.store.change_account(site.owner, keep_conversations=True)
    with visit(tab, site, PHONE) as page:
        sign_in(page, site.key)
        answered(page, "base")
        ratable(page)
        page.locator("#conversations-title").press("Enter")
        rows = page.locator("#conversations li")
        rows.nth(1).wait_for()
        assert sorted(kept()) == ["base", "fspo"] and violations(page) == []
        mine = rows.filter(has_text="The answer of fspo")
        assert json.loads(str(mine.locator("p").nth(1).text_content()).partition(": ")[2]) == answered(page)
        mine.get_by_role("button", name="Delete the conversation").press("Enter")
        saved(page, "The conversation is deleted")
        assert kept() == ["base"] and rows.count() == 1 and page.locator("#thumb-up").is_disabled()
        page.get_by_role("button", name="Sign out").click()
        assert rows.count() == 0


def test_a_list_of_conversations_stays_as_it_is_read_while_answers_come(tab: Any, site: Site) -> None:
    def ask(problem: str = "") -> None:
        # The focus stays where it is.
        page.evaluate("said => { document.getElementById('ask').requestSubmit(); complain(said); }", problem)
        answered(page)
        answered(page, "base")

    site.store.change_account(site.owner, keep_conversations=True)
    for number in range(22):
        site.store.keep_conversation(site.owner, "base", as_turns(f"{number}?"), "An answer.", [])
    with visit(tab, site) as page:
        sign_in(page, site.key)
        answered(page)
        answered(page, "base")
        page.locator("#conversations-title").press("Enter")
        rows = page.locator("#conversations li")
        rows.nth(19).wait_for()
        page.get_by_role("button", name="Show more conversations").click()
        rows.nth(23).wait_for()
        ask("An error before.")
        rows.nth(25).wait_for()
        assert page.get_by_role("alert").filter(has_text="An error before.").is_visible()
        button = rows.nth(20).get_by_role("button")
        button.focus()
        ask()
        assert rows.count() == 26 and button.evaluate("one => one === document.activeElement")
        page.evaluate(  # the second one while the first is under way
            "() => [...document.querySelectorAll('#conversations button')].slice(-2).forEach(one => one.click())"
        )
        rows.filter(has_text="The answer of fspo").nth(2).wait_for()
        page.wait_for_function("() => document.querySelectorAll('#conversations li').length === 26")
        kept = site.store.conversations(site.owner, limit=99)
        assert kept is not None and len(kept.entries) == 26


_HOLDING = """method => {
  const real = window.fetch;
  window.fetch = async (address, settings) => {
    const answer = await real(address, settings);
    if (settings?.method === method && !address.includes("chat"))
      await new Promise(done => { window.release = done; });
    return answer;
  };
}"""
"""Answers to requests of one method arrive when the page's `release` is called."""


@pytest.mark.parametrize("action", ["Delete the preference on", "Bad", "Delete everything"])
def test_an_answer_for_one_person_does_not_change_the_page_of_the_next(tab: Any, site: Site, action: str) -> None:
    for name, prompts in (("ben", "BC"), ("ann", "A")):
        if name == "ben":
            site.store.add_user(name)
        owner = site.store.user_named(name)
        site.store.change_account(owner, keep_conversations=True)
        for prompt in prompts:
            site.store.add_preference(owner, as_turns(f"{prompt}?"), "calm", "loud")
    key = site.store.add_key(site.store.user_named("ben")).key
    with visit(tab, site) as page:
        sign_in(page, site.key)
        ratable(page)
        page.evaluate(_HOLDING, "POST" if action == "Bad" else "DELETE")
        page.get_by_role("button", name=action, exact=action == "Bad").click()
        if action == "Delete everything":
            page.get_by_role("button", name="Delete", exact=True).click()
        page.wait_for_function("() => window.release")
        page.get_by_role("button", name="Sign out").click()
        sign_in(page, key)
        ratable(page)
        page.evaluate("() => window.release()")
        page.evaluate("() => new Promise(done => setTimeout(done, 50))")
        assert page.locator("#name").text_content() == "ben" and page.locator("#signed-in").is_visible()
        assert page.locator("#known li").count() == 2 and "2 preferences" in str(page.locator("#count").text_content())
        assert page.get_by_role("status").text_content() == ""
        assert page.locator("#thumb-down").get_attribute("aria-pressed") == "false"


def test_texts_stay_texts(tab: Any, site: Site) -> None:
    site.prefer(MARKUP, MARKUP, f"{MARKUP} too")
    site.store.change_account(site.owner, description=MARKUP)
    with visit(tab, site) as page:
        sign_in(page, site.key)
        assert answered(page) == {
            "said": "Why do leaves turn red in autumn?",
            "description": MARKUP,
            "chosen": [MARKUP],
        }
        page.locator("#shots li").wait_for(state="attached")
        assert page.locator("img, #known b, #shots b").count() == 0
        assert MARKUP in page.locator("#known li").text_content() and page.title() != "hacked"


def test_a_wrong_key_is_named_and_not_kept(browser: Any, site: Site) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(site.address)
    for key in ("wrong", "schlüssel"):
        sign_in(page, key)
        page.get_by_role("alert").filter(has_text="The key is not valid.").first.wait_for()
        assert page.evaluate("sessionStorage.length") == 0
        assert page.get_by_label("Your key").is_visible()
    context.close()


@pytest.mark.parametrize(("width", "scheme"), [(PHONE, "light"), (LAPTOP, "light"), (LAPTOP, "dark")])
def test_the_page_is_accessible_at_every_size_by_day_and_by_night(
    tab: Any, site: Site, width: int, scheme: str
) -> None:
    site.prefer("Recommend a film.", "Paterson. It is calm. " + "long" * 40)
    site.store.change_account(site.owner, keep_conversations=True)
    with visit(tab, site, width, scheme) as page:
        if width == PHONE:
            assert violations(page) == []
        sign_in(page, site.key)
        answered(page)
        answered(page, "base")
        page.get_by_role("button", name="Bad", exact=True).click()
        saved(page, "rate another answer")
        assert (violations if scheme == "light" else colour_violations)(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        light = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
        assert (min(light) > 200) == (scheme == "light")
        if width == PHONE:
            page.get_by_role("button", name="Edit the preference").click()
            assert violations(page) == []
            page.get_by_role("button", name="Cancel").click()
            page.get_by_role("button", name="Write a better one").click()
            assert violations(page) == []


def test_the_page_shows_a_policy_of_a_run_that_was_trained_in_conversations(
    tab: Any, speaking_model_path: Path, tmp_path: Path
) -> None:
    base = str(speaking_model_path)
    training = {"objective": "ipo", "shots": 4, "describe": "none"}
    details = {"context": "shots", "layout": "conversation", "training": training}
    policy = adapted(load_model(base, device="cpu"), 1)
    save_policy(policy, tmp_path / "run/methods/fspo", base=base, method="fspo", details=details)

    def text(page: Any, model: str) -> str:
        page.wait_for_function(
            "id => { const e = document.getElementById(id); return e.ariaBusy === 'false' && e.textContent.trim() }",
            arg=f"{model}-answer",
        )
        return str(page.locator(f"#{model}-answer").text_content())

    with serving(tmp_path, "--demo", "--policy", tmp_path / "run", "--max-tokens", 8) as (_, address):
        said = (tmp_path / "said.txt").read_text()
        key = said.split("Bearer ")[1].split("'")[0]
        assert f"export OPENAI_BASE_URL={address} OPENAI_API_KEY={key}\n" in said
        site = Site.__new__(Site)
        site.address, site.key = address.removesuffix("v1"), key
        with visit(tab, site) as page:
            sign_in(page, key)
            plain = text(page, "base")
            assert text(page, "fspo")
            for number in (1, 2):
                page.keyboard.press(str(number))
                saved(page, f"you prefer answer {number}")
                shown = "number => document.querySelectorAll('#shots li').length === number"
                page.wait_for_function(shown, arg=number)
            assert text(page, "fspo") and text(page, "base") == plain
            assert page.locator("#known li").count() == 2
