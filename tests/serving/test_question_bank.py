"""Which question of a server's a person is asked next, with the questions of a written domain and over the API."""

from __future__ import annotations

import numpy as np
import pytest
from starlette.testclient import TestClient

from fspo.cli.domain_questions import questions_of_domain
from fspo.errors import ConfigError
from fspo.preferences.response_pair import ResponsePair
from fspo.preferences.types import Preference, as_turns
from fspo.serving.api import create_app
from fspo.serving.question_bank import QuestionBank, question_id
from fspo.serving.store import Store
from tests.serving.echo import EchoEngine

QUESTIONS = [
    ResponsePair("A film?", "Calm.", "Loud!"),
    ResponsePair("A film?", "Calm.", "Slow."),
    ResponsePair("A book?", "Short.", "Long."),
    ResponsePair("A song?", "Old.", "New."),
]
BANK = QuestionBank(QUESTIONS, np.array([[0.9, 0.5, 0.7, 0.5], [0.1, 0.5, 0.3, 0.5]]))


def test_each_prompt_is_asked_once_and_what_tells_most_comes_first() -> None:
    first = BANK.next([])
    assert first is not None and first.question == QUESTIONS[0] and first.id == question_id(QUESTIONS[0])
    assert 0 < first.gain < 1
    skipped = BANK.next([], [first.id])
    assert skipped is not None and skipped.question == QUESTIONS[2]
    answers = [QUESTIONS[0].answered("ann", second=True)]
    second = BANK.next(answers)
    assert second is not None and second.question == QUESTIONS[2] and second.gain < skipped.gain, "less is left to know"
    elsewhere = BANK.next([Preference("ann", "A book?", "Any.", "None.")])
    assert elsewhere is not None and elsewhere.gain == first.gain, "a preference on other texts tells nothing here"
    answers += [QUESTIONS[2].answered("ann", second=False), QUESTIONS[3].answered("ann", second=False)]
    assert BANK.next(answers) is None


def test_of_two_answers_to_one_question_the_newer_counts() -> None:
    changed = [QUESTIONS[0].answered("ann", second=False), QUESTIONS[0].answered("ann", second=True)]
    assert BANK.next(changed) == BANK.next(changed[1:])


def test_chances_of_other_questions_are_refused() -> None:
    with pytest.raises(ConfigError, match="4"):
        QuestionBank(QUESTIONS, np.full((2, 3), 0.5))


def test_a_written_domain_has_questions_and_the_others_are_refused() -> None:
    bank = questions_of_domain("elix-written")
    answers: list[Preference] = []
    gains = []
    for _ in range(3):
        found = bank.next(answers)
        assert found is not None
        gains.append(found.gain)
        answers.append(found.question.answered("ann", second=True))
    assert len({one.prompt for one in answers}) == 3 and gains[0] > 0.3
    with pytest.raises(ConfigError, match="written"):
        questions_of_domain("roleplay")


def test_a_user_answers_by_a_preference(sqlite_store: Store) -> None:
    sqlite_store.add_user("ann")
    headers = {"authorization": f"Bearer {sqlite_store.add_key(sqlite_store.user_named('ann')).key}"}
    with TestClient(create_app(sqlite_store, EchoEngine(), questions=BANK), headers=headers) as http:
        first = http.get("/v1/next-question").json()
        assert first == http.get("/v1/next-question").json(), "the same until it is answered"
        other = http.get("/v1/next-question", params={"skip": [first["id"]]}).json()
        assert other["prompt"] != first["prompt"]
        answer = {"prompt": first["prompt"], "chosen": first["second"], "rejected": first["first"]}
        assert http.post("/v1/preferences", json=answer).status_code == 201
        assert http.get("/v1/next-question").json() == other | {"gain": http.get("/v1/next-question").json()["gain"]}
        ids = [question_id(question) for question in QUESTIONS]
        none = http.get("/v1/next-question", params={"skip": ids})
        assert none.status_code == 404 and none.json()["error"]["code"] == "no_question"
    with TestClient(create_app(sqlite_store, EchoEngine()), headers=headers) as http:
        assert http.get("/v1/next-question").json()["error"]["code"] == "no_question"


def test_only_the_newest_preferences_are_read(sqlite_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fspo.serving.api.READ", 2)
    sqlite_store.add_user("ann")
    owner = sqlite_store.user_named("ann")
    headers = {"authorization": f"Bearer {sqlite_store.add_key(owner).key}"}

    def prefer(prompt: str, chosen: str, rejected: str) -> None:
        sqlite_store.add_preference(owner, as_turns(prompt), chosen, rejected)

    with TestClient(create_app(sqlite_store, EchoEngine(), questions=BANK), headers=headers) as http:
        first = http.get("/v1/next-question").json()
        prefer(first["prompt"], first["second"], first["first"])
        prefer("Any?", "Yes.", "No.")
        assert http.get("/v1/next-question").json()["prompt"] != first["prompt"]
        prefer("Any other?", "Yes.", "No.")
        assert http.get("/v1/next-question").json() == first, "the old answer is not read any more"
