"""Thumbs, edits and regenerations: which preferences follow from them, whose they are, and that they can be undone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from fspo.preferences.types import Turn
from fspo.serving.api import ServerSettings, create_app
from fspo.serving.feedback import MOST_PAIRS, JudgedAnswer, thumb_pairs
from fspo.serving.ownership import Owner
from fspo.serving.store import Store
from tests.serving.echo import EchoEngine

FILM = (Turn("user", "Which film?"),)


class Person:
    """A user of a server, who keeps conversations."""

    def __init__(self, http: TestClient, store: Store, name: str) -> None:
        store.add_user(name)
        self.owner = store.user_named(name)
        store.change_account(self.owner, keep_conversations=True)
        self.http, self.store = http, store
        self.headers = {"authorization": f"Bearer {store.add_key(self.owner).key}"}

    def send(self, method: str, path: str, **body: Any) -> Any:
        return self.http.request(method, f"/v1{path}", headers=self.headers, json=body or None)

    def ask(self, text: str, model: str = "fspo", route: str = "chat") -> str:
        """The id of an answer."""
        if route == "responses":
            return str(self.send("POST", "/responses", model=model, input=text).json()["id"])
        messages = [{"role": "user", "content": text}]
        return str(self.send("POST", "/chat/completions", model=model, messages=messages).json()["id"])

    def feedback(self, answer: str, **what: Any) -> Any:
        sent = self.send("POST", "/feedback", answer=answer, **what)
        assert sent.status_code == 200, sent.text
        return sent.json()

    def known(self) -> list[tuple[str, str, str]]:
        """Origin, chosen and rejected text of all preferences, oldest first."""
        found = self.store.preferences(self.owner)
        return [(one.origin, one.preference.chosen, one.preference.rejected) for one in found]


@pytest.fixture
def site(sqlite_store: Store) -> Iterator[tuple[TestClient, EchoEngine, Store]]:
    engine = EchoEngine()
    with TestClient(create_app(sqlite_store, engine, ServerSettings(rate="10000/minute"))) as http:
        yield http, engine, sqlite_store


def test_an_edit_prefers_the_users_own_version(site: tuple[TestClient, EchoEngine, Store]) -> None:
    http, _, store = site
    ann = Person(http, store, "ann")
    for route in ("chat", "responses"):
        answer = ann.ask("Which book?", route=route)
        found = ann.feedback(answer, edit=f"A calm one, by {route}.")
        (one,) = found["preferences"]
        assert one["chosen"] == f"A calm one, by {route}." and "Which book?" in one["rejected"]
        assert one["origin"] == "edit" and one["prompt"] == [{"role": "user", "content": "Which book?"}]
        assert ann.feedback(answer, edit=f"A calm one, by {route}.") == found, "a repeated click changes nothing"
    assert len(ann.known()) == 2
    ann.ask("Which film?")
    assert [shot.chosen for shot in site[1].requests[-1].shots] == ["A calm one, by chat.", "A calm one, by responses."]


def test_a_regeneration_prefers_the_answer_that_was_used_and_the_newest_choice_counts(
    site: tuple[TestClient, EchoEngine, Store],
) -> None:
    http, _, store = site
    ann = Person(http, store, "ann")
    first = ann.ask("Which film?")
    ann.send("PATCH", "/me", description="Likes calm.")
    second = ann.ask("Which film?")
    texts = {answer: str(store.answer(ann.owner, answer.removeprefix("chatcmpl-")).text) for answer in (first, second)}  # type: ignore[union-attr]
    for kept, before in ((second, first), (second, first), (first, second)):
        (one,) = ann.feedback(kept, instead_of=before)["preferences"]
        assert (one["chosen"], one["rejected"], one["origin"]) == (texts[kept], texts[before], "regeneration")
    assert len(ann.known()) == 2
    ann.ask("Which book?")
    assert [shot.chosen for shot in site[1].requests[-1].shots] == [texts[first]], "the newest choice counts"
    other = ann.ask("Which song?")
    assert ann.send("POST", "/feedback", answer=other, instead_of=first).status_code == 400
    assert ann.send("POST", "/feedback", answer=first, instead_of=first).status_code == 400


def test_thumbs_become_a_preference_when_two_answers_to_one_request_have_opposite_ones(store: Store) -> None:
    owner, other = (new(store, name) for name in ("ann", "bob"))
    for name, text in (("a" * 24, "A calm one."), ("b" * 24, "A loud one."), ("c" * 24, "A long one.")):
        for one, number in ((owner, "1"), (other, "2")):
            store.keep_conversation(one, "fspo", FILM, f"{text}{number}", [], answer_id=number + name[1:])
    store.keep_conversation(owner, "fspo", (Turn("user", "Which book?"),), "Emma.", [], answer_id="1" + "d" * 23)
    calm, loud, long, book = ("1" + letter * 23 for letter in "abcd")

    def learned(answer: str, thumb: Any) -> tuple[list[tuple[str, str]], int]:
        found = store.set_thumb(owner, answer, thumb)
        assert found is not None
        return [(one.preference.chosen[:6], one.preference.rejected[:6]) for one in found.preferences], found.removed

    assert learned(calm, "up") == ([], 0), "one answer alone is no comparison"
    assert learned(book, "down") == ([], 0), "an answer to something else is none either"
    assert learned(loud, "down") == ([("A calm", "A loud")], 0)
    assert learned(long, "down") == ([("A calm", "A long")], 0)
    assert learned(loud, "down") == ([("A calm", "A loud")], 0), "a repeated click changes nothing"
    assert len(store.preferences(owner)) == 2
    assert learned(calm, "down") == ([], 2), "what no longer follows is deleted"
    assert learned(loud, "up") == ([("A loud", "A long"), ("A loud", "A calm")], 0)
    edited = store.preferences(owner)[0]
    store.change_preference(owner, edited.id, chosen="My own.")
    assert learned(loud, "up") == ([("A loud", "A calm")], 0), "the edited one does not come back beside itself"
    assert len(store.preferences(owner)) == 2
    assert learned(loud, "none") == ([], 1), "what the user has edited is theirs"
    assert [one.preference.chosen for one in store.preferences(owner)] == ["My own."]
    assert store.preferences(other) == [] and store.set_thumb(other, calm, "up") is None
    assert store.erased()


def new(store: Store, name: str) -> Owner:
    store.add_user(name)
    owner = store.user_named(name)
    store.change_account(owner, keep_conversations=True)
    return owner


def test_one_thumb_gives_few_preferences_and_equal_texts_none() -> None:
    up = JudgedAnswer("0", "good", "up")
    same = JudgedAnswer("1", " good ", "down")
    many = [JudgedAnswer(str(number), f"bad {number // 2}", "down") for number in range(20)]
    pairs = thumb_pairs(up, [same, *many])
    assert [pair.rejected.text for pair in pairs] == [f"bad {number}" for number in range(MOST_PAIRS)]
    assert {pair.chosen for pair in pairs} == {up}


def test_nobody_gives_feedback_on_an_answer_that_is_not_their_own_or_was_not_saved(
    site: tuple[TestClient, EchoEngine, Store],
) -> None:
    http, _, store = site
    ann, bob = Person(http, store, "ann"), Person(http, store, "bob")
    mine, theirs = ann.ask("mark-of-ann"), bob.ask("mark-of-ann")
    bob.send("PATCH", "/me", keep_conversations=False)
    unsaved = bob.ask("Which film?")
    nothing = ann.send("POST", "/feedback", answer="chatcmpl-" + "0" * 24, thumb="up")
    assert nothing.status_code == 404 and nothing.json()["error"]["param"] == "answer"
    off = bob.send("POST", "/feedback", answer=unsaved, thumb="up")
    assert off.status_code == 404 and "keep_conversations" in off.json()["error"]["message"]
    assert "keep_conversations" not in nothing.text
    for answer in (theirs, unsaved, "conv_x", theirs.removeprefix("chatcmpl-")):
        sent = ann.send("POST", "/feedback", answer=answer, thumb="up")
        assert (sent.status_code, sent.content) == (404, nothing.content)
    other = ann.send("POST", "/feedback", answer=mine, instead_of=theirs)
    assert other.json()["error"] == nothing.json()["error"] | {"param": "instead_of"}
    for wrong in ({}, {"thumb": "up", "edit": "x"}, {"thumb": "sideways"}, {"edit": "a\x00"}, {"edit": " "}):
        assert ann.send("POST", "/feedback", answer=mine, **wrong).status_code == 400
    assert ann.known() == bob.known() == []


def test_a_thumb_taken_back_is_forgotten_by_the_engine_and_by_every_file(
    site: tuple[TestClient, EchoEngine, Store], tmp_path: Path
) -> None:
    http, engine, store = site
    ann = Person(http, store, "ann")
    first = ann.ask("Which film?")
    ann.send("PATCH", "/me", description="mark-of-a-thumb")
    second = ann.ask("Which film?")
    ann.feedback(first, thumb="up")
    assert ann.feedback(second, thumb="down")["preferences"]
    before = len(engine.forgotten)
    done = ann.feedback(second, thumb="none")
    assert (done["removed"], done["erased"], done["preferences"]) == (1, True, [])
    assert len(engine.forgotten) > before and ann.known() == []
    ann.send("PATCH", "/me", description="")
    assert ann.send("DELETE", "/me/conversations").status_code == 200
    files = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"mark-of-a-thumb" not in files
