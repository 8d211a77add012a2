"""Withdrawal and deletion: no byte of the content stays in the database, its files, or the engines."""

from __future__ import annotations

import io
import json
import sqlite3
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from fspo.serving import connection
from fspo.serving.api import create_app
from fspo.serving.ownership import Owner, pseudonym
from fspo.serving.store import Store
from fspo.study.store import StudyStore
from tests.serving.conftest import new_database
from tests.study.site import ARMS, ScriptedEngine, StudySite, opened_site, owner_of, study_config

SECRET = "velociraptor"
ABOUT = [{"id": "work", "text": "What do you do?"}]
CONTENT = (f"{SECRET}-answer", f"{SECRET}-work")


def bytes_below(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def take_part(site: StudySite, number: str = "ann"):  # noqa: ANN201
    person = site.person().begin(f"/?PROLIFIC_PID=pid-{number}&STUDY_ID=s&SESSION_ID=session-{number}")
    person.submit("about", work=f"{SECRET}-work-{number}")
    return person.finish()


def site_with_content(folder: Path):  # noqa: ANN201
    engine = ScriptedEngine(lambda request: f"{SECRET}-answer to {request.turns[-1].text}" + "x" * 5000)
    return opened_site(folder, engine, about=ABOUT, recruiting={"required": False})


def test_withdrawal_deletes_the_content_and_keeps_that_they_took_part(tmp_path: Path) -> None:
    with site_with_content(tmp_path) as site:
        person = take_part(site)
        prompts = {row.prompt for row in site.store.records("small").items if row.prompt.startswith("Question")}
        assert all(text.encode() in bytes_below(tmp_path / "store") for text in CONTENT)
        person.get("/data")
        person.submit("withdraw", sure="yes")
        assert person.heading == "You have withdrawn"
        assert "Another program" not in person.page
        left = bytes_below(tmp_path / "store")
        assert not any(text.encode() in left for text in (*CONTENT, *prompts, "pid-ann", "session-ann"))
        records = site.store.records("small")
        assert records.items == [] and [one.withdrawn is not None for one in records.participants] == [True]
        assert [event.kind for event in records.events] == ["withdrawn"]
        assert records.participants[0].answers == {}
        assert pseudonym(Owner(site.engine.forgotten[-1])) == records.participants[0].id
        person.get()
        assert person.heading == "You have withdrawn"
        again = site.person()
        again.get("/?PROLIFIC_PID=pid-ann&STUDY_ID=s&SESSION_ID=session-ann")
        assert again.heading == "You have withdrawn"  # they are not asked twice
        person.get("/?PROLIFIC_PID=pid-ann&STUDY_ID=s&SESSION_ID=session-ann")
        assert person.heading == "You have withdrawn"
        forger = site.person()
        forger.get("/?PROLIFIC_PID=pid-ann&STUDY_ID=s&SESSION_ID=other")
        assert forger.heading == "You have begun this study already"
        assert [event.kind for event in site.store.records("small").events] == ["withdrawn"]
        kept = again.client.get("/download").json()["participant"]
        assert {name for name, value in kept.items() if value} == {
            *("id", "consent", "consented", "finished", "withdrawn", "recruited", "site")
        }
        ((_, removed),) = site.store.withdrawals()
        assert removed["study_items"] == 10


def test_deletion_leaves_nothing_at_all(tmp_path: Path) -> None:
    with site_with_content(tmp_path) as site:
        person, other = take_part(site), take_part(site, "bob")
        owner = owner_of(site, person)
        person.get("/data")
        person.submit("delete", sure="yes")
        assert person.heading == "Everything is deleted" and person.cookie not in person.client.cookies
        left = bytes_below(tmp_path / "store")
        for text in ("velociraptor-work-ann", "pid-ann", "session-ann", owner.id):
            assert text.encode() not in left, text
        assert b"velociraptor-work-bob" in left and b"pid-bob" in left
        assert [one.id for one in site.store.records("small").participants] == [pseudonym(owner_of(site, other))]
        other.get()
        assert other.heading == "Thank you"


def test_deletion_while_answers_are_written_leaves_nothing(tmp_path: Path) -> None:
    engine = ScriptedEngine(lambda _: f"{SECRET}-answer")
    engine.seconds = 0.05
    with opened_site(tmp_path, engine) as site:
        for action in ("withdraw", "delete"):
            person = site.person().begin().label()
            person.submit("begin")
            person.post(f"/{action}", sure="yes")
            assert person.status == 200
            person.get()
            person.get()
        assert site.store.records("small").items == []
        assert SECRET.encode() not in bytes_below(tmp_path / "store")


def test_a_tab_that_looks_during_a_deletion_leaves_nothing_in_the_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = ScriptedEngine()
    engine.held = True  # the answers don't end by themselves
    with opened_site(tmp_path, engine) as site:
        for action, name in (("withdraw", "withdraw_votes"), ("delete", "withdraw")):
            person = site.person().begin().label()
            person.submit("begin")
            change = getattr(site.store, name)

            def change_late(*args: object, change=change, person=person) -> object:  # noqa: ANN001
                person.client.get("/")  # another tab
                return change(*args)

            monkeypatch.setattr(site.store, name, change_late)
            owner = owner_of(site, person)
            person.post(f"/{action}", sure="yes")
            assert person.status == 200
            begun = [request for request in engine.requests if request.owner == owner.id]
            assert begun and all(request.times_forgotten < engine.times_forgotten(owner.id) for request in begun)


@pytest.mark.parametrize("held", [False, True], ids=["idle", "writing"])
@pytest.mark.parametrize("action", ["withdraw", "delete"])
def test_a_deletion_by_another_program_is_noticed(tmp_path: Path, action: str, held: bool) -> None:
    engine = ScriptedEngine()
    engine.held = held  # the answers are still being written
    with opened_site(tmp_path, engine) as site:
        person, other = (site.person().begin().label() for _ in range(2))
        for one in (person, other):
            one.submit("begin")
        owner, stays = owner_of(site, person), owner_of(site, other)
        wait_until(lambda: {owner.id, stays.id} <= {request.owner for request in engine.requests})
        elsewhere = StudyStore.open(tmp_path / "store")
        elsewhere.withdraw_votes(owner, "small") if action == "withdraw" else elsewhere.withdraw(owner)
        wait_until(lambda: owner.id in engine.forgotten)
        begun = [request for request in engine.requests if request.owner == owner.id]
        engine.held = False
        other.compare()
        assert stays.id not in engine.forgotten
        assert [request for request in engine.requests if request.owner == owner.id] == begun
        assert all(request.times_forgotten < engine.times_forgotten(owner.id) for request in begun)
        assert not any(item.participant == pseudonym(owner) for item in elsewhere.records("small").items)
        elsewhere.close()


def wait_until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("action", ["withdraw", "delete"])
def test_what_another_program_was_reading_is_erased_when_that_has_ended(
    tmp_path: Path, action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_ERASING_TRIES", 1)
    with site_with_content(tmp_path) as site:
        person = take_part(site)
        reader = sqlite3.connect(tmp_path / "store" / connection.STORE_FILE, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM study_items").fetchone()
        person.post(f"/{action}", sure="yes")
        assert "Another program" in person.page and "not stored here any more" not in person.page
        reader.execute("COMMIT")
        reader.close()
        wait_until(site.store.erased)
        assert SECRET.encode() not in bytes_below(tmp_path / "store")


def test_a_click_by_mistake_deletes_nothing(tmp_path: Path) -> None:
    with site_with_content(tmp_path) as site:
        person = take_part(site)
        for action in ("withdraw", "delete"):
            person.get("/data")
            person.submit(action)
            assert person.status == 400 and "Nothing was deleted" in person.page
        assert len(site.store.records("small").items) == 10


def test_the_download_holds_everything_of_one_person_and_nothing_of_others(tmp_path: Path) -> None:
    with site_with_content(tmp_path) as site:
        person = take_part(site)
        take_part(site, "bob")
        own = person.client.get("/download").json()
        assert own["participant"]["answers"] == {"work": "velociraptor-work-ann"}
        assert own["participant"]["site"] == {"participant": "pid-ann", "study": "s", "session": "session-ann"}
        assert len(own["items"]) == 10 and all(item["choice"] for item in own["items"])
        assert "bob" not in json.dumps(own)
        assert "small" not in own["participant"].values()  # the study's name may say what is compared
        text = person.client.get("/download").headers["content-disposition"]
        assert "attachment" in text


def test_a_program_that_knows_nothing_of_studies_exports_and_deletes_participants_too(tmp_path: Path) -> None:
    with site_with_content(tmp_path) as site:
        owner = owner_of(site, take_part(site))
    store = Store.open(tmp_path / "store")
    with zipfile.ZipFile(io.BytesIO(store.export(owner))) as archive:
        whole = b"".join(archive.read(name) for name in archive.namelist())
    assert all(text.encode() in whole for text in (*CONTENT, "pid-ann", "Question"))
    assert not any(arm.encode() in whole for arm in ARMS)
    assert store.withdraw(owner).erased
    left = bytes_below(tmp_path / "store")
    assert not any(text.encode() in left for text in (*CONTENT, "pid-ann", owner.id))
    store.close()


def test_a_personal_link_is_no_key_of_the_server(tmp_path: Path) -> None:
    with opened_site(tmp_path) as site:
        person = site.person().begin().label()
        user = site.store.add_key(Owner(site.store.add_user("ann").id)).key
        with TestClient(create_app(site.store, ScriptedEngine())) as server:

            def status(key: str) -> int:
                return server.get("/v1/me", headers={"authorization": f"Bearer {key}"}).status_code

            assert (status(person.key), status(user)) == (401, 200)
        stranger = site.person()
        stranger.get(f"/resume/{user}")
        assert (stranger.status, stranger.heading) == (404, "This link does not work")


def test_the_same_in_postgres(tmp_path: Path, postgres: str) -> None:
    url = new_database(postgres)
    store = StudyStore.open(url)
    engine = ScriptedEngine(lambda _: f"{SECRET}-answer")
    with StudySite(study_config(tmp_path), store, engine).running() as site:
        person = site.person().finish()
        assert person.heading == "Thank you"
        person.post("/withdraw", sure="yes")
        assert "Another program" not in person.page and store.erased()
        assert store.records("small").items == []
        second = site.person().finish()
        second.post("/delete", sure="yes")
        assert second.heading == "Everything is deleted" and len(store.users()) == 1
        folder = Path(url.partition("host=")[2]) / "data" / "base"
        assert SECRET.encode() not in bytes_below(folder)
    store.close()
