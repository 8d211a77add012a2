"""Two users do anything in any order; neither ever sees, changes or loses what the other has."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import schemathesis
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance
from starlette.testclient import TestClient

from fspo.serving.api import ServerSettings, create_app
from fspo.serving.store import Store
from tests.serving.echo import EchoEngine

USERS = ("ann", "bob")
_NO_LIMITS = ServerSettings(rate="", request_rate="")
user = st.sampled_from(USERS)


class TwoUsers(RuleBasedStateMachine):
    """Every route, with one's own ids, the other's, and ids that nobody has; a model says what must be there."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.store, self.engine = Store.open(Path(self.folder.name)), EchoEngine()
        self.http = TestClient(create_app(self.store, self.engine, _NO_LIMITS)).__enter__()  # one loop for all requests
        self.mine: dict[str, dict[str, str]] = {name: {} for name in USERS}
        self.keys: dict[str, str] = {}
        self.count = 0

    @initialize()
    def join(self) -> None:
        for name in USERS:
            self.enter(name)

    def enter(self, name: str) -> None:
        self.store.add_user(name)
        self.keys[name] = self.store.add_key(self.store.user_named(name)).key
        self.mine[name] = {}

    def send(self, name: str, method: str, path: str, **more: Any) -> Any:
        headers = {"authorization": f"Bearer {self.keys[name]}"}
        sent = self.http.request(method, f"/v1{path}", headers=headers, **more)
        for other in USERS:
            if other != name:
                assert f"mark-{other}" not in sent.text
        return sent

    def mark(self, name: str) -> str:
        self.count += 1
        return f"mark-{name}-{self.count}"

    @rule(name=user)
    def add(self, name: str) -> None:
        text = self.mark(name)
        sent = self.send(name, "POST", "/preferences", json={"prompt": text, "chosen": text, "rejected": "no"})
        self.mine[name][sent.json()["id"]] = text

    @rule(name=user, whose=user, data=st.data(), method=st.sampled_from(["GET", "PATCH", "DELETE"]))
    def use_one(self, name: str, whose: str, data: st.DataObject, method: str) -> None:
        one = data.draw(st.sampled_from([*sorted(self.mine[whose]), "pref_nobody"]))
        text = self.mark(name)
        sent = self.send(name, method, f"/preferences/{one}", json={"chosen": text} if method == "PATCH" else None)
        if one not in self.mine[name]:
            nobody = self.send(name, method, "/preferences/none", json={"chosen": text} if method == "PATCH" else None)
            assert (sent.status_code, sent.content) == (404, nobody.content)
        elif method == "DELETE":
            del self.mine[name][one]
        elif method == "PATCH":
            self.mine[name][one] = text
        else:
            assert sent.json()["chosen"] == self.mine[name][one]

    @rule(name=user, whose=user, data=st.data())
    def list_from(self, name: str, whose: str, data: st.DataObject) -> None:
        after = data.draw(st.sampled_from([*sorted(self.mine[whose]), "pref_nobody"]))
        sent = self.send(name, "GET", "/preferences", params={"after": after})
        assert sent.status_code == (200 if after in self.mine[name] else 404)

    @rule(name=user, model=st.sampled_from(["fspo", "base"]), stream=st.booleans())
    def chat(self, name: str, model: str, stream: bool) -> None:
        body = {"model": model, "stream": stream, "fspo": {"shots": True}, "user": "bob", "max_tokens": 4000}
        messages = [{"role": "user", "content": "hi"}]
        assert self.send(name, "POST", "/chat/completions", json={**body, "messages": messages}).status_code == 200
        shown = {shot.chosen for shot in self.engine.requests[-1].shots}
        assert shown == (set(self.mine[name].values()) if model == "fspo" else set())

    @rule(name=user)
    def respond(self, name: str) -> None:
        self.send(name, "POST", "/responses", json={"model": "fspo", "input": "hi"})
        assert {shot.chosen for shot in self.engine.requests[-1].shots} == set(self.mine[name].values())

    @rule(name=user, whose=user, thumb=st.sampled_from(["up", "down", "none", "edit"]))
    def judge(self, name: str, whose: str, thumb: str) -> None:
        for one in USERS:
            self.send(one, "PATCH", "/me", json={"keep_conversations": True})
        body = {"model": "base", "messages": [{"role": "user", "content": f"mark-{whose}"}]}
        answer = self.send(whose, "POST", "/chat/completions", json=body).json()["id"]
        text = self.mark(name)
        what = {"edit": text} if thumb == "edit" else {"thumb": thumb}
        sent = self.send(name, "POST", "/feedback", json={"answer": answer, **what})
        assert sent.status_code == (200 if name == whose else 404)
        if sent.is_success:
            self.mine[name] |= {one["id"]: one["chosen"] for one in sent.json()["preferences"]}

    @rule(name=user, whose=user)
    def use_a_conversation(self, name: str, whose: str) -> None:
        self.send(whose, "PATCH", "/me", json={"keep_conversations": True})
        text = f"{self.mark(whose)}."
        body = {"model": "base", "messages": [{"role": "user", "content": text}]}
        answer = self.send(whose, "POST", "/chat/completions", json=body).json()["id"]
        one, nobody = answer.replace("chatcmpl-", "conv_"), f"conv_{'0' * 24}"

        def listed(by: str) -> bool:
            found = self.send(by, "GET", "/conversations", params={"limit": 100}).json()["data"]
            return (one, text) in [(each["id"], each["messages"][-1]["content"]) for each in found]

        mine = name == whose
        assert listed(name) == mine
        after = self.send(name, "GET", "/conversations", params={"after": one})
        gone = self.send(name, "DELETE", f"/conversations/{one}")
        if not mine:
            other = self.send(name, "DELETE", f"/conversations/{nobody}")
            assert [(sent.status_code, sent.content) for sent in (after, gone)] == [(404, other.content)] * 2
        else:
            assert (after.status_code, gone.status_code) == (200, 200)
            assert self.send(name, "DELETE", f"/conversations/{one}").status_code == 404
            assert text.encode() not in self.files()
        assert listed(whose) != mine

    @rule(name=user)
    def describe(self, name: str) -> None:
        self.send(name, "PATCH", "/me", json={"description": self.mark(name)})

    @rule(name=user)
    def export(self, name: str) -> None:
        assert self.send(name, "GET", "/me/export").status_code == 200

    @rule(name=user)
    def delete_all(self, name: str) -> None:
        assert self.send(name, "DELETE", "/preferences").json()["count"] == len(self.mine[name])
        self.mine[name] = {}

    @rule(name=user)
    def withdraw(self, name: str) -> None:
        self.send(name, "DELETE", "/me")
        assert self.send(name, "GET", "/me").status_code == 401
        assert f"mark-{name}".encode() not in self.files()
        self.enter(name)

    def files(self) -> bytes:
        return b"".join(path.read_bytes() for path in Path(self.folder.name).iterdir())

    def teardown(self) -> None:
        for name in self.keys:
            sent = self.send(name, "GET", "/preferences", params={"limit": 100, "order": "asc"}).json()["data"]
            assert {one["id"]: one["chosen"] for one in sent} == self.mine[name]
        self.http.__exit__()
        self.store.close()
        self.folder.cleanup()


TestTwoUsers = TwoUsers.TestCase
TestTwoUsers.settings = settings(max_examples=12, stateful_step_count=15, deadline=None)


def test_every_route_answers_any_input_as_its_description_says(sqlite_store: Store) -> None:
    sqlite_store.add_user("ann")
    key = sqlite_store.add_key(sqlite_store.user_named("ann")).key
    app = create_app(sqlite_store, EchoEngine(), _NO_LIMITS)
    routes = []
    for found in schemathesis.openapi.from_asgi("/v1/openapi.json", app).get_all_operations():
        route = found.ok()
        if (route.method.upper(), route.path) == ("DELETE", "/v1/me"):
            continue

        @given(case=route.as_strategy())
        @settings(max_examples=6)
        def check(case: Any) -> None:
            sent = case.call(headers={"authorization": f"Bearer {key}"})
            assert sent.status_code < 500
            case.validate_response(sent, checks=[status_code_conformance, response_schema_conformance])

        check()
        routes.append(route.label)
    assert len(routes) == 20
