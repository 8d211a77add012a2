"""A whole study as people go through it, with forms alone: every vote once, in the right place, and kept."""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fspo.serving.connection import STORE_FILE, StoreBusy
from fspo.serving.engine import GenerationRequest
from fspo.serving.ownership import pseudonym
from fspo.study.records import Item, StudyRecords
from fspo.study.store import StudyStore
from tests.study.site import ARMS, Person, ScriptedEngine, StudySite, opened_site, owner_of


@pytest.fixture
def site(tmp_path: Path):  # noqa: ANN201
    with opened_site(tmp_path) as opened:
        yield opened


def votes(records: StudyRecords, stage: str) -> list[Item]:
    return [item for item in records.items if item.stage == stage and item.choice]


def test_a_person_goes_from_consent_to_thanks(site: StudySite) -> None:
    shown: list[tuple[str, str, str]] = []

    def choose(person: Person) -> str:
        shown.append((person.prompt, *person.texts))
        return str(1 + len(shown) % 2)

    person = site.person().finish(choose)
    assert person.heading == "Thank you" and person.status == 200
    records = site.store.records("small")
    (participant,) = records.participants
    assert participant.finished and participant.consent == "v1" and not participant.recruited
    counts = Counter(item.stage for item in records.items if item.choice)
    assert counts == {"practice": 1, "label": 4, "compare": 5}
    # What was stored is what was shown, with the choice that was made.
    assert [(item.prompt, item.first, item.second) for item in records.items] == shown
    assert [item.choice for item in records.items] == ["second" if n % 2 else "first" for n in range(1, 11)]
    assert all(item.shown and item.voted and item.shown <= item.voted for item in records.items)
    kinds = Counter(event.kind for event in records.events)
    assert kinds["voted"] == 10 and kinds["written"] == 4 and kinds["finished"] == 1
    assert not {item.prompt for item in votes(records, "label")} & {item.prompt for item in votes(records, "compare")}


def test_the_answers_follow_the_labels_of_their_participant(site: StudySite) -> None:
    site.person().finish(lambda person: "1" if "calm" in person.texts[0] else "2")
    site.person().finish(lambda person: "1" if "loud" in person.texts[0] else "2")
    requests = {True: site.engine.requests[:8], False: site.engine.requests[8:]}
    for calm, own in requests.items():
        personal = [request for request in own if request.personalised]
        assert len(personal) == 4 and len(own) == 8
        for request in personal:
            assert len(request.shots) == 3
            assert all(("calm" in shot.chosen) == calm and ("loud" in shot.rejected) == calm for shot in request.shots)
        assert all(request.shots == () for request in own if not request.personalised)
    for item in votes(site.store.records("small"), "compare"):
        assert item.arms == (frozenset() if item.attention else frozenset(ARMS))


def test_the_record_has_the_number_of_labels_that_were_read(tmp_path: Path) -> None:
    labels = {"source": {"file": tmp_path / "texts.jsonl"}, "count": 3, "attention": 1, "ties": True}
    with opened_site(tmp_path, labels=labels) as site:
        tied = site.person().begin()
        tied.vote()  # practice
        while 'action="/vote"' in tied.page:
            tied.vote("1" if tied.prompt.startswith("Check") else "0")
        tied.finish()
        site.person().finish()
        site.engine.room = 2  # the prompt of a policy has no room for the third label
        site.person().finish()
        numbers = [{item.shots for item in own} for own in _compared_by_participant(site)]
    assert numbers == [{0}, {3}, {2}]


def _compared_by_participant(site: StudySite) -> list[list[Item]]:
    records = site.store.records("small")
    return [[row for row in records.items if row.participant == one.id and row.arms] for one in records.participants]


def test_each_arm_is_first_in_half_of_the_comparisons(site: StudySite) -> None:
    for _ in range(3):
        site.person().finish()
    for one in site.store.records("small").participants:
        own = [item for item in site.store.records("small").items if item.participant == one.id and item.arms]
        assert Counter(item.first_arm for item in own) == dict.fromkeys(ARMS, 2)
    # Somebody who always takes the first answer finds neither arm better.
    scores = [item.score(ARMS[0]) for item in site.store.records("small").items if item.arms]
    assert sum(filter(None, scores)) / len(scores) == 0.5


def test_a_vote_counts_once_however_often_it_is_sent(site: StudySite) -> None:
    person = site.person().begin()
    form = person.hidden("vote")
    item = form["item"]
    for _ in range(3):
        person.post("/vote", **form, choice="2")
        assert person.status == 200 and person.hidden("vote")["item"] != item
    person.post("/vote", **form, choice="1")  # the back button, or another tab
    assert person.status == 409 and person.heading == "You have answered this question already"
    (voted,) = [row for row in site.store.records("small").items if row.choice]
    assert (voted.id, voted.choice) == (item, "second")
    kinds = Counter(event.kind for event in site.store.records("small").events)
    assert kinds["voted"] == 1 and kinds["repeated"] == 3


def test_clicks_at_the_same_time_make_one_vote(site: StudySite) -> None:
    person = site.person().begin()
    form = person.hidden("vote")
    key = person.key

    def click(choice: str) -> None:
        other = site.person()
        other.use_key(key)
        other.post("/vote", **form, choice=choice)

    clicks = [threading.Thread(target=click, args=(choice,)) for choice in "1212"]
    for each in clicks:
        each.start()
    for each in clicks:
        each.join()
    records = site.store.records("small")
    (voted,) = [row for row in records.items if row.choice]
    (event,) = [event for event in records.events if event.kind == "voted"]
    assert voted.choice == event.detail["choice"]


def test_a_double_click_on_the_consent_makes_one_participant(site: StudySite) -> None:
    person = site.person()
    person.get()
    form = person.hidden("consent")
    for _ in range(2):
        person.post("/consent", **form, agree="yes")
        assert person.status == 200 and person.heading == "Practice"
    assert len(site.store.records("small").participants) == 1
    assert len(site.store.users()) == 1


def test_a_second_tab_with_the_consent_continues(site: StudySite) -> None:
    person = site.person()
    person.get()
    earlier = person.hidden("consent")
    person.begin()
    person.vote()
    item = person.hidden("vote")
    for fields in ({**earlier, "agree": "yes"}, earlier):
        person.post("/consent", **fields)
        assert person.hidden("vote") == item
    assert len(site.store.records("small").participants) == 1


def test_the_last_vote_can_be_changed_until_the_next(site: StudySite) -> None:
    person = site.person().begin()
    person.vote()  # practice
    first, texts = person.hidden("vote")["item"], person.texts
    person.vote("1")
    second = person.hidden("vote")["item"]
    undo = person.hidden("undo")
    for _ in range(2):  # a double click
        person.post("/undo", **undo)
        assert person.hidden("vote")["item"] == first and person.texts == texts
    person.vote("2")
    assert person.hidden("vote")["item"] == second
    person.vote("1")
    person.post("/undo", item=first)
    assert person.status == 409 and person.heading == "This choice can't be changed any more"
    choices = {row.id: row.choice for row in site.store.records("small").items}
    assert (choices[first], choices[second]) == ("second", "first")


def test_labels_are_fixed_once_answers_are_written_with_them(site: StudySite) -> None:
    person = site.person().begin().label()
    undo = person.hidden("undo")
    person.submit("undo")
    person.label(lambda _: "2")
    person.wait()
    person.post("/undo", **undo)
    assert person.status == 409
    person.get()
    person.compare()
    person.submit("undo")  # the last comparison, before the end
    assert 'action="/vote"' in person.page
    person.compare()
    person.submit("finish")
    person.post("/undo", **undo)
    assert person.status == 409


def test_the_study_continues_after_a_refresh_a_restart_and_on_another_device(tmp_path: Path) -> None:
    with opened_site(tmp_path) as site:
        person = site.person().begin()
        person.vote()
        person.vote()
        here, key = (person.hidden("vote"), person.texts), person.key
        person.get()
        assert (person.hidden("vote"), person.texts) == here
        assert f"/resume/{key}" in person.get("/data")
    with opened_site(tmp_path) as site:  # another process would see the same files
        other = site.person()
        other.get(f"/resume/{key}")
        assert other.status == 200 and (other.hidden("vote"), other.texts) == here
        other.label().wait()
        done = [row for row in site.store.records("small").items if row.stage == "compare" and row.first]
    with opened_site(tmp_path) as site:
        other = site.person()
        other.get(f"/resume/{key}")
        other.compare()
        other.submit("finish")
        assert other.heading == "Thank you"
        after = {row.id: (row.first, row.second) for row in site.store.records("small").items}
        assert all(after[row.id] == (row.first, row.second) for row in done)


def test_a_study_that_was_interrupted_while_writing_continues_by_itself(tmp_path: Path) -> None:
    slow = ScriptedEngine()
    slow.seconds = 30
    with opened_site(tmp_path, slow) as site:
        person = site.person().begin().label()
        person.submit("begin")
        assert 'id="waiting"' in person.page
        key = person.key
    assert slow.closed
    with opened_site(tmp_path) as site:
        person = site.person()
        person.get(f"/resume/{key}")
        person.compare()
        person.submit("finish")
        assert person.heading == "Thank you"


def test_an_outage_is_no_vote_and_the_person_tries_again_or_comes_back(tmp_path: Path) -> None:
    engine = ScriptedEngine()
    engine.down = True
    with opened_site(tmp_path, engine) as site:
        person = site.person().begin().label().wait()
        assert person.heading == "The answers could not be written" and "10.0.0.7" not in person.page
        assert "10.0.0.7" not in str(site.store.records("small").events)
        person.get()
        assert person.heading == "The answers could not be written"
        engine.down = False
        person.submit("retry")
        person.compare()
        person.submit("finish")
        records = site.store.records("small")
    assert len(votes(records, "compare")) == 5
    assert [event.kind for event in records.events].count("failed") == 1


def test_a_vote_waits_for_the_transaction_of_another_program(tmp_path: Path) -> None:
    with opened_site(tmp_path) as site:
        person = site.person().begin()
        item = person.hidden("vote")["item"]
        other = sqlite3.connect(tmp_path / "store" / STORE_FILE, isolation_level=None, check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")
        timer = threading.Timer(0.5, other.execute, ["COMMIT"])
        timer.start()
        person.vote("2")
        timer.join()
        other.close()
        assert person.status == 200
        assert [row.choice for row in site.store.records("small").items if row.id == item] == ["second"]


def test_a_busy_store_costs_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fspo.study.answers._BUSY_PAUSES", (0.01, 0.01))
    with opened_site(tmp_path) as site:
        save, busy = site.store.save_answers, iter([True, True] + [False] * 9)

        def save_late(*args: Any, **settings: Any) -> bool:
            if next(busy):
                raise StoreBusy("Locked.")
            return save(*args, **settings)

        monkeypatch.setattr(site.store, "save_answers", save_late)
        site.person().finish()
        records = site.store.records("small")
        assert records.participants[0].finished and len(site.engine.requests) == 8
        assert "failed" not in {event.kind for event in records.events}


def test_the_log_says_where_an_engine_failed_and_quotes_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(request: GenerationRequest) -> str:
        try:
            return {}[request.turns[0].text]
        except KeyError as error:
            raise ValueError(f"Not this: {request.turns[0].text}") from error

    with opened_site(tmp_path, ScriptedEngine(fail)) as site:
        person = site.person().begin().label().wait()
        assert person.heading == "The answers could not be written"
        assert "ValueError" in str(site.store.records("small").events)
    (said,) = [message for message in caplog.messages if "could not be written" in message]
    assert said.count("study/test_flow.py:") == 2 and "ValueError at" in said and "KeyError at" in said
    assert not any(text in caplog.text for text in ("Question", "calm", "loud", "Not this"))


def test_an_empty_answer_is_asked_for_again_and_never_shown(tmp_path: Path) -> None:
    replies = iter(["", "  ", "Words at last."] + ["Further words."] * 20)
    with opened_site(tmp_path, ScriptedEngine(lambda _: next(replies)), attention=[], labels=labels(tmp_path)) as site:
        site.person().finish()
        assert all(row.first and row.second for row in site.store.records("small").items)
    with opened_site(tmp_path / "other", ScriptedEngine(lambda _: " "), attention=[], labels=labels(tmp_path)) as site:
        assert site.person().begin().label().wait().heading == "The answers could not be written"


def labels(folder: Path) -> dict[str, object]:
    return {"source": {"file": folder / "texts.jsonl"}, "count": 2}


def test_progress_is_told_while_the_answers_are_written(tmp_path: Path) -> None:
    engine = ScriptedEngine()
    engine.held = True
    with opened_site(tmp_path, engine, attention=[]) as site:
        person = site.person().begin().label()
        person.submit("begin")
        assert "0 of 4 answers are ready." in person.page
        state = person.client.get("/state").json()
        assert state["go"] is False and state["done"] == 0
        engine.held = False
        person.compare()
        assert person.client.get("/state").json() == {"go": True}


def test_ties_are_offered_only_where_they_are_allowed(site: StudySite) -> None:
    person = site.person().begin()
    assert 'value="0"' in person.page
    person.vote("0")  # practice
    assert 'value="0"' not in person.page
    item = person.hidden("vote")
    person.vote("0")
    assert person.status == 400
    person.get()
    assert person.hidden("vote") == item
    person.label().wait()
    person.compare(lambda _: "0")
    ties = [row for row in site.store.records("small").items if row.choice == "tie"]
    assert Counter(row.stage for row in ties) == {"practice": 1, "compare": 5}


def test_participants_are_spread_over_the_pairs_of_arms(tmp_path: Path) -> None:
    arms = {name: {"policy": "a-secret-model"} for name in ("one", "two", "three")}
    with opened_site(tmp_path, arms=arms, assignment="between") as site:
        for _ in range(4):
            site.person().begin()
        site.person().begin().post("/withdraw", sure="yes")
        site.person().begin()
        pairs = Counter((item.participant, item.arms) for item in site.store.records("small").items if item.arms)
    assert set(pairs.values()) == {4} and len(pairs) == 5
    assert sorted(Counter(arms for _, arms in pairs).values()) == [2, 3]


def test_pages_are_in_the_language_of_their_participant(tmp_path: Path) -> None:
    title = {"en": "Which one?", "de": "Welche?"}
    with opened_site(tmp_path, languages={"en": {}, "de": {}}, title=title) as site:
        for language, headers, address in (
            ("en", {}, "/"),
            ("de", {"accept-language": "fr, de-CH;q=0.9, en;q=0.5, x;q=y"}, "/"),
            ("en", {"accept-language": "xx, *;q=0.1"}, "/?lang=ar"),
            ("de", {"accept-language": "en"}, "/?lang=de"),
        ):
            person = site.person(**headers)
            person.get(address)
            assert f'<html lang="{language}"' in person.page and title[language] in person.page
            assert ("English" in person.page) == (language == "de")  # the other language is offered by its own name
            for agree in ("", "yes"):
                person.submit("consent", agree=agree)
                assert f'<html lang="{language}"' in person.page
            other = site.person(**{"accept-language": "en"})
            other.get(f"/resume/{person.key}")
            assert f'<html lang="{language}"' in other.page
        assert [one.language for one in site.store.records("small").participants] == ["en", "de", "en", "de"]


def test_a_store_keeps_studies_apart(tmp_path: Path) -> None:
    with opened_site(tmp_path) as site:
        person = site.person().begin()
        key, owner = person.key, owner_of(site, person)
    with opened_site(tmp_path, name="other") as site:
        person = site.person()
        person.get(f"/resume/{key}")
        assert person.status == 404
        person.use_key(key)
        assert 'action="/consent"' in person.get()
        assert site.store.records("other").participants == []
        assert [one.id for one in site.store.records("small").participants] == [pseudonym(owner)]


def test_two_studies_on_one_host_remember_their_participants(tmp_path: Path) -> None:
    with opened_site(tmp_path / "a") as first, opened_site(tmp_path / "b", name="other") as second:
        one, other = first.person(), second.person()
        here = one.begin().hidden("vote")
        other.client.cookies.update(one.client.cookies)  # one browser; the ports of a host share its cookies
        there = other.begin().hidden("vote")
        one.client.cookies.update(other.client.cookies)
        one.get()
        assert one.hidden("vote") == here != there
        assert "other" not in other.cookie


def test_records_are_the_same_after_another_opening(tmp_path: Path) -> None:
    with opened_site(tmp_path) as site:
        site.person().finish()
        before = site.store.records("small")
    store = StudyStore.open(tmp_path / "store")
    assert store.records("small") == before
    store.close()
