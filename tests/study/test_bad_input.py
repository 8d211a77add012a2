"""What people do by mistake or on purpose: a page that says what to do, and nothing lost, doubled or revealed."""

from __future__ import annotations

import html
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fspo.errors import StorageError
from fspo.serving.connection import StoreBusy
from fspo.study.store import NotAParticipant, StudyStore
from tests.study.site import CODES, Person, ScriptedEngine, StudySite, opened_site, owner_of

SITE = {"codes": CODES, "completion_url": "https://recruiting.example.org/done?cc={code}"}
INVITED = "/?PROLIFIC_PID=ann&STUDY_ID=s1&SESSION_ID=x1"


@pytest.fixture
def site(tmp_path: Path):  # noqa: ANN201
    with opened_site(tmp_path) as opened:
        yield opened


def kind(person: Person, status: int, heading: str) -> None:
    """A page with a heading, a sentence and the way back, and no detail of the program."""
    assert (person.status, person.heading) == (status, heading)
    assert "Traceback" not in person.page and "sqlalchemy" not in person.page.lower()
    assert '<html lang="en" dir="ltr">' in person.page


def test_nothing_is_stored_without_consent(site: StudySite) -> None:
    person = site.person()
    person.get()
    person.submit("consent")
    assert person.status == 400 and "tick the box" in person.page and 'action="/consent"' in person.page
    for action in ("vote", "undo", "begin", "retry", "finish", "about", "withdraw", "delete"):
        person.post(f"/{action}", item="item_1", choice="1", sure="yes")
        kind(person, 403, "The study begins with your consent")
    for address in ("/data", "/download"):
        person.get(address)
        kind(person, 403, "The study begins with your consent")
    assert site.store.users() == [] and site.store.records("small").participants == []


@pytest.mark.parametrize("item", ["item_" + "0" * 24, "", "1; DROP TABLE users", "\u2028", "x" * 50_000])
def test_forged_items_are_refused(site: StudySite, item: str) -> None:
    person = site.person().begin()
    person.post("/vote", item=item, choice="1")
    kind(person, 404, "This question is not yours")
    person.post("/undo", item=item)
    kind(person, 409, "This choice can't be changed any more")
    assert not any(row.choice for row in site.store.records("small").items)


def test_items_of_others_and_later_items_are_refused(site: StudySite) -> None:
    ann, bob = site.person().begin(), site.person().begin()
    ann.post("/vote", **bob.hidden("vote"), choice="1")
    kind(ann, 404, "This question is not yours")
    own = site.store.visit(owner_of(site, ann), "small").items
    for item in own[1:]:
        ann.post("/vote", item=item.id, choice="1")
        kind(ann, 409, "This question is not the next one")
    assert not any(row.choice for row in site.store.records("small").items)


@pytest.mark.parametrize("choice", ["3", "first", "", "1\0"])
def test_a_choice_that_is_none_is_refused(site: StudySite, choice: str) -> None:
    person = site.person().begin()
    person.vote(choice)
    kind(person, 400, "What you sent could not be read")
    person.get()
    person.submit("vote")  # without any
    assert person.status == 400 and "Choose an answer first" in person.page and 'action="/vote"' in person.page
    assert not any(row.choice for row in site.store.records("small").items)


ABOUT = [{"id": "work", "text": "What do you do?"}, {"id": "age", "text": "Age?", "options": ["<40", "40+"]}]


@pytest.mark.parametrize(
    "answer",
    ["\u6771\u4eac\u3000\u5927\u5b66", "\u0645\u06cc\u200c\u062e\u0648", "New\u00a0York", "\U0001f469\u200d\U0001f52c"],
)
def test_answers_about_oneself_may_be_in_any_writing_system(tmp_path: Path, answer: str) -> None:
    with opened_site(tmp_path, about=ABOUT) as site:
        person = site.person().begin()
        person.submit("about", work=answer)
        assert person.heading == "Practice"
        assert site.store.records("small").participants[0].answers == {"work": answer}


def test_an_option_is_chosen_as_it_is_written(tmp_path: Path) -> None:
    with opened_site(tmp_path, about=[{"id": "age", "text": "Age?", "options": [" 40+ ", "<40"]}]) as site:
        person = site.person().begin()
        person.submit("about", age=" 40+ ")
        assert person.heading == "Practice"
        assert site.store.records("small").participants[0].answers == {"age": " 40+ "}


@pytest.mark.parametrize("answer", ["a\x1b[2Jb", "b" * 201])
def test_an_answer_that_is_no_text_is_asked_for_again(tmp_path: Path, answer: str) -> None:
    with opened_site(tmp_path, about=ABOUT) as site:
        person = site.person().begin()
        person.submit("about", work=answer, age="<40")
        assert person.status == 400 and person.heading == "About you" and "type it again" in person.page
        assert 'value="&lt;40" checked' in person.page and 'value="" checked' not in person.page
        person.submit("about", work="baker", age="<40")
        assert person.heading == "Practice"
        assert site.store.records("small").participants[0].answers == {"work": "baker", "age": "<40"}


def test_a_form_of_another_site_or_of_another_kind_is_refused(site: StudySite) -> None:
    person = site.person().begin()
    form = person.hidden("vote")
    for headers, content, status in (
        ({"sec-fetch-site": "cross-site"}, None, 403),
        ({"content-type": "application/json"}, b'{"item": 1}', 415),
        ({"content-type": "application/x-www-form-urlencoded"}, b"a=" + b"b" * 70_000, 413),
        ({"content-type": "application/x-www-form-urlencoded"}, b"&".join(b"a=b" for _ in range(200)), 400),
        ({"content-type": "application/x-www-form-urlencoded"}, b"\xff\xfe", 400),
    ):
        sent = {"data": {**form, "choice": "1"}} if content is None else {"content": content}
        person._read(person.client.post("/vote", headers=headers, **sent))
        kind(person, status, "What you sent could not be read")
    person.get("/nowhere")
    kind(person, 404, "There is no such page")
    person.get("/vote")
    kind(person, 405, "There is no such page")
    person.get("/files/..%2Fapp.py")
    kind(person, 404, "There is no such page")
    assert not any(row.choice for row in site.store.records("small").items)


def test_a_link_that_does_not_work_says_so(site: StudySite) -> None:
    person = site.person().begin()
    key = person.key
    for wrong in (key[:-1], key + "x", "fspo-", "%00", "schlüssel"):
        other = site.person()
        other.get(f"/resume/{wrong}")
        kind(other, 404, "This link does not work")
        assert other.cookie not in other.client.cookies
    person.get("/data")
    person.post("/delete", sure="yes")
    other = site.person()
    other.get(f"/resume/{key}")
    kind(other, 404, "This link does not work")


def test_an_expired_link_still_downloads_and_deletes(tmp_path: Path) -> None:
    with opened_site(tmp_path, expires_days=1e-9) as site:
        person = site.person()
        person.get()
        person.submit("consent", agree="yes")
        person.get()
        kind(person, 410, "Your link has expired")
        assert re.findall(r'<a href="([^"]*)"', person.page.partition("<h1>")[2]) == ["/data"]  # nothing to continue
        assert person.client.get("/download").json()["participant"]["consent"] == "v1"
        person.get("/data")
        person.post("/delete", sure="yes")
        kind(person, 200, "Everything is deleted")


def test_a_full_study_lets_only_its_participants_in(tmp_path: Path) -> None:
    with opened_site(tmp_path, participants=1, recruiting={**SITE, "required": False}) as site:
        late = site.person()
        late.get()
        first = site.person().begin()
        late.submit("consent", agree="yes")
        kind(late, 403, "The study is full")
        late.get()
        kind(late, 403, "The study is full")
        late.get(INVITED)
        assert CODES["full"] in late.page
        assert len(site.store.users()) == 1
        first.finish()
        assert first.heading == "Thank you"


@pytest.mark.parametrize("address", ["/", INVITED])
def test_a_double_click_for_the_last_place_is_one_participant(tmp_path: Path, address: str) -> None:
    recruiting = {**SITE, "required": False}
    with opened_site(tmp_path, participants=1, recruiting=recruiting) as site:
        first, again = site.person(), site.person()
        first.get(address)
        form = first.hidden("consent")
        for click in (first, again):  # the second one is sent before the browser has the cookie of the first
            click.post("/consent", **form, agree="yes")
            kind(click, 200, "Practice")
        assert len(site.store.users()) == 1


def test_a_refused_consent_leaves_nothing_in_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened_site(tmp_path, participants=1) as site:
        late = site.person()
        late.get()
        first = site.person().begin()
        late.submit("consent", agree="yes")
        kind(late, 403, "The study is full")
        first.post("/delete", sure="yes")
        before = site.store.withdrawals()

        def broken(*_: object) -> None:
            raise OSError

        with monkeypatch.context() as patch:
            patch.setattr(StudyStore, "_add", broken)
            late.get()
            late.submit("consent", agree="yes")
            kind(late, 500, "Something went wrong")
        assert site.store.users() == [] and site.store.withdrawals() == before and len(before) == 1


@pytest.fixture
def hours_later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the study's clock forward."""
    ahead = 0

    def move(hours: float) -> None:
        nonlocal ahead
        ahead += int(hours * 3_600_000)
        for module in ("store", "app"):
            monkeypatch.setattr(f"fspo.study.{module}.now", lambda: time.time_ns() // 1_000_000 + ahead)

    return move


def test_a_place_is_free_again_when_somebody_stays_away(tmp_path: Path, hours_later: Callable[[float], None]) -> None:
    with opened_site(tmp_path, participants=2, place_hours=24) as site:
        away, other = site.person().begin(), site.person().begin()
        item = away.hidden("vote")
        hours_later(25)
        late = site.person().begin()
        other.get()
        assert other.heading == "Practice"  # one place was free, and is theirs again
        for action in ("", "vote", "about", "begin", "retry", "finish"):
            away.post(f"/{action}", **item, choice="1") if action else away.get()
            kind(away, 403, "Your place is taken")
        away.post("/undo", **item)
        kind(away, 409, "This choice can't be changed any more")
        assert not any(row.choice for row in site.store.records("small").items)
        assert away.get("/data") and away.client.get("/download").json()["items"]
        late.post("/withdraw", sure="yes")
        away.get()
        assert away.hidden("vote") == item  # a place is free again
        other.finish()
        away.finish()
        assert (other.heading, away.heading) == ("Thank you", "Thank you")
        assert sum(one.finished is not None for one in site.store.records("small").participants) == 2


def test_who_has_voted_on_everything_keeps_the_place(tmp_path: Path, hours_later: Callable[[float], None]) -> None:
    with opened_site(tmp_path, participants=1, recruiting={**SITE, "required": False}) as site:
        person = site.person().begin(INVITED).label().wait().compare()
        hours_later(25)
        late = site.person()
        late.get()
        kind(late, 403, "The study is full")
        undo = person.hidden("undo")
        hours_later(31 * 24)  # the link has expired, but nothing is left to answer
        person.get()
        assert 'action="/undo"' not in person.page
        person.post("/undo", **undo)
        kind(person, 409, "This choice can't be changed any more")
        person.get()
        person.submit("finish")
        assert CODES["finished"] in person.page
        assert site.store.records("small").participants[0].finished


def test_only_continuing_takes_a_lapsed_place_again(tmp_path: Path, hours_later: Callable[[float], None]) -> None:
    with opened_site(tmp_path, participants=1) as site:
        away = site.person().begin()
        owner, item = owner_of(site, away), away.hidden("vote")["item"]
        hours_later(25)
        away.get("/data")
        away.get("/download")
        away.post("/withdraw")  # without the tick
        late = site.person().begin()
        assert late.heading == "Practice"
        site.store.show(owner, site.config, item)  # a page that was on its way when the place lapsed
        away.get()
        kind(away, 403, "Your place is taken")


def test_answers_of_somebody_who_was_deleted_meanwhile_are_refused(tmp_path: Path) -> None:
    with opened_site(tmp_path, about=[{"id": "work", "text": "What do you do?"}]) as site:
        person = site.person().begin()
        owner = owner_of(site, person)
        site.store.withdraw(owner)
        with pytest.raises(NotAParticipant):
            site.store.answer_about(owner, site.config, {"work": "baker"})


def test_a_place_of_a_quota_is_not_given_twice(tmp_path: Path, hours_later: Callable[[float], None]) -> None:
    about = [{"id": "age", "text": "How old are you?", "options": ["young", "old"], "quotas": {"old": 1}}]
    with opened_site(tmp_path, about=about) as site:
        away, other = site.person().begin(), site.person().begin()
        away.submit("about", age="old")
        hours_later(25)
        other.get()
        other.submit("about", age="old")
        assert other.heading == "Practice"
        away.get()
        kind(away, 403, "Your place is taken")


def test_a_place_is_free_again_when_somebody_withdraws(tmp_path: Path) -> None:
    with opened_site(tmp_path, participants=1) as site:
        leaving = site.person().begin()
        leaving.post("/withdraw", sure="yes")
        assert site.person().begin().heading == "Practice"


def test_quotas_by_answer_end_the_study_kindly(tmp_path: Path) -> None:
    about = [
        {"id": "age", "text": "How old are you?", "options": ["young", "old"], "quotas": {"old": 1}},
        {"id": "work", "text": "What do you do?"},
    ]
    with opened_site(tmp_path, about=about, recruiting={**SITE, "required": False}) as site:
        people = []
        for number, age in enumerate(["old", "old", "young", ""]):
            person = site.person()
            person.begin(f"/?PROLIFIC_PID={number}&STUDY_ID=s&SESSION_ID={number}")
            assert person.heading == "About you"
            person.submit("about", age=age, work=" baker ")
            people.append(person)
        kind(people[1], 403, "The study is full")
        assert CODES["full"] in people[1].page
        assert [person.heading for person in people[:1] + people[2:]] == ["Practice"] * 3
        answers = [one.answers for one in site.store.records("small").participants]
        assert answers == [{"age": "old", "work": "baker"}, {}, {"age": "young", "work": "baker"}, {"work": "baker"}]
        people[0].post("/about", age="young", work="other")  # the first time counts
        assert site.store.records("small").participants[0].answers["age"] == "old"
        forger = site.person().begin("/?PROLIFIC_PID=9&STUDY_ID=s&SESSION_ID=9")
        forger.post("/about", age="ancient")
        kind(forger, 400, "What you sent could not be read")


def test_the_recruiting_site_passes_people_in_and_gets_them_back(tmp_path: Path) -> None:
    with opened_site(tmp_path, recruiting=SITE) as site:
        stranger = site.person()
        stranger.get()
        kind(stranger, 403, "Open the study from the recruiting site")
        person = site.person().begin(INVITED)
        person.finish()
        assert "DONE1" in person.page
        assert 'href="https://recruiting.example.org/done?cc=DONE1"' in html.unescape(person.page)
        (one,) = site.store.records("small").participants
        assert one.recruited and "ann" not in one.model_dump_json()
        again = site.person()
        again.get(INVITED)  # the same session on another device continues
        assert again.heading == "Thank you"
        guess = site.person()
        guess.get(INVITED.replace("x1", "x2"))
        kind(guess, 409, "You have begun this study already")
        assert guess.cookie not in guess.client.cookies
        shared = site.person()
        shared.use_key(person.key)
        shared.get(INVITED.replace("ann", "bob"))  # another person at the same computer
        assert 'action="/consent"' in shared.page
        stranger.get("/?PROLIFIC_PID=" + "x" * 300 + "&STUDY_ID=s&SESSION_ID=1")
        kind(stranger, 400, "What you sent could not be read")


def test_a_store_that_is_busy_or_broken_is_a_kind_page(
    site: StudySite, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    person = site.person().begin()
    errors = [(StoreBusy("Locked: /secret/place"), 503, "The study is busy")]
    errors += [(StorageError("Broken: /secret/place"), 503, "The study is busy")]
    errors += [(RuntimeError("/secret/place"), 500, "Something went wrong")]
    for error, status, heading in errors:
        with monkeypatch.context() as patch:

            def fail(*_: object, error: Exception = error) -> None:
                raise error

            patch.setattr(site.store, "vote", fail)
            person.get()
            person.vote()
            kind(person, status, heading)
            assert "secret" not in person.page
            said = [record.getMessage() for record in caplog.records if record.name == "fspo.study.app"][-1]
            assert f"{type(error).__name__} at " in said
            assert re.search(r"study/test_bad_input\.py:\d+ fail", said)
    assert "secret" not in caplog.text
    person.get()
    person.vote()
    assert person.status == 200 and sum(bool(row.choice) for row in site.store.records("small").items) == 1


def test_markup_stays_text(tmp_path: Path) -> None:
    markup = "<script>alert(1)</script><img src=x onerror=alert(2)> [link](javascript:alert(3)) ![i](http://a.b/c)"
    about = [{"id": "work", "text": "<b>What</b> do you do?"}]
    changes = {"title": "<i>Small</i>", "about": about, "matching": {"format": "markdown"}}
    with opened_site(tmp_path, ScriptedEngine(lambda _: f"# A title\n\n**Bold** {markup}"), **changes) as site:
        person = site.person().begin()
        assert "<b>What" not in person.page and "<i>Small" not in person.page
        person.submit("about", work=markup)
        person.label().wait()
        while "A title" not in person.page:
            person.vote() if 'action="/vote"' in person.page else person.get()
        assert "<strong>Bold</strong>" in person.page and "<h3>A title</h3>" in person.page
        shown = person.page.partition('class="two"')[2].partition("</fieldset>")[0]
        for tag in ("<script", "<img", "<a ", "href="):
            assert tag not in shown
        assert "&lt;script&gt;" in shown
