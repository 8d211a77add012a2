"""A study with an engine that answers by a script, and people who fill in its forms without scripts."""

from __future__ import annotations

import asyncio
import html
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from fspo.errors import ModelError
from fspo.preferences.types import Preference, Turn
from fspo.serving.engine import EngineState, GenerationRequest, Piece
from fspo.serving.ownership import Owner
from fspo.study.app import create_study_app
from fspo.study.config import StudyConfig
from fspo.study.material import Material, load_material
from fspo.study.registration import registration_of
from fspo.study.store import StudyStore
from fspo.study.visitors import cookie_of

ARMS = ("zebra-arm", "walrus-arm")
CODES = {"finished": "DONE1", "full": "FULL1", "withdrawn": "GONE1"}


class ScriptedEngine:
    """Answers with a text of the script, in a few pieces."""

    reads_description = True

    def __init__(self, script: Callable[[GenerationRequest], str] | None = None) -> None:
        self.script = script or (lambda request: f"An answer to: {request.turns[-1].text}")
        self.requests: list[GenerationRequest] = []
        self.forgotten: list[str] = []
        self.down = self.held = False
        self.seconds = 0.0
        self.room = 1000
        """Shots that a prompt has room for."""
        self.closed = False

    async def stream(self, request: GenerationRequest) -> AsyncIterator[Piece]:
        self.requests.append(request)
        await asyncio.sleep(self.seconds)
        while self.held:
            await asyncio.sleep(0.01)
        if self.down:
            raise ModelError("http://10.0.0.7:8000 is not there.")
        text = self.script(request)
        yield Piece(text[:5], None, 1, 1, 0)
        yield Piece(text[5:], "stop", 1, 2, 0)

    async def fits(
        self, shots: Sequence[Preference], turns: Sequence[Turn], max_tokens: int, description: str = ""
    ) -> int:
        return min(len(shots), self.room)

    def times_forgotten(self, owner: str) -> int:
        return self.forgotten.count(owner)

    async def forget(self, owner: str) -> None:
        self.forgotten.append(owner)

    async def state(self) -> EngineState:
        return EngineState(not self.down, "scripted")

    async def close(self) -> None:
        self.closed = True


def write_texts(folder: Path, prompts: int = 12) -> Path:
    path = folder / "texts.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "question": f"Question {number}?",
            "topic": "odd" if number % 2 else "even",
            "traits": {"tone": tone},
            "text": text,
        }
        for number in range(prompts)
        for tone, text in (("calm", f"A calm reply to {number}."), ("loud", f"A loud reply to {number}!"))
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def study_config(folder: Path, **changes: Any) -> StudyConfig:
    values: dict[str, Any] = {
        "name": "small",
        "title": "Small study",
        "output": folder / "study",
        "arms": {
            ARMS[0]: {"policy": "a-secret-model"},
            ARMS[1]: {"policy": "a-secret-model", "personalised": False},
        },
        "participants": 10,
        "labels": {"source": {"file": write_texts(folder)}, "count": 3, "attention": 1},
        "comparisons": {"count": 4, "attention": 1},
        "attention": [
            {"prompt": f"Check {n}: choose the word blue.", "right": "blue", "wrong": "table"} for n in range(2)
        ],
        "consent": {"version": "v1", "text": "Do you **agree**?", "contact": "ann@example.org"},
    }
    values |= changes
    if not values["attention"]:
        values |= {stage: {**values[stage], "attention": 0} for stage in ("labels", "comparisons")}
    return StudyConfig.model_validate(values)


class StudySite:
    """A running study, in this process."""

    def __init__(
        self,
        config: StudyConfig,
        store: StudyStore,
        engine: ScriptedEngine,
        *,
        weights: dict[str, str | None] | None = None,
    ) -> None:
        self.config, self.store, self.engine = config, store, engine
        self.material: Material = load_material(config)
        store.register(config.name, registration_of(config, self.material, weights))
        engines = dict.fromkeys(config.arms, engine)
        self.app = create_study_app(config, self.material, store, engines, look_seconds=0.2, erase_seconds=0.2)
        self.http: TestClient | None = None

    @contextmanager
    def running(self) -> Iterator[StudySite]:
        with TestClient(self.app, raise_server_exceptions=False) as self.http:
            yield self

    def person(self, **headers: str) -> Person:
        """Somebody with a browser of their own."""
        assert self.http is not None
        client = TestClient(self.app, raise_server_exceptions=False, headers=headers)
        client.portal = self.http.portal  # the same event loop, in which the answers are written
        return Person(client, cookie_of(self.config.name))


@contextmanager
def opened_site(folder: Path, engine: ScriptedEngine | None = None, **changes: Any) -> Iterator[StudySite]:
    store = StudyStore.open(folder / "store")
    try:
        with StudySite(study_config(folder, **changes), store, engine or ScriptedEngine()).running() as site:
            yield site
    finally:
        store.close()


class Person:
    """A participant who follows links and fills in forms."""

    def __init__(self, client: TestClient, cookie: str) -> None:
        self.client, self.cookie = client, cookie
        self.page = ""
        self.status = 0
        self.received: list[tuple[str, bytes, str]] = []
        """Headers, body and address of everything that was sent to this person."""

    def get(self, address: str = "/") -> str:
        return self._read(self.client.get(address))

    def post(self, address: str, **fields: str) -> str:
        return self._read(self.client.post(address, data=fields))

    def submit(self, action: str, **fields: str) -> str:
        """Send the form of the current page with its hidden fields."""
        return self.post(f"/{action}", **{**self.hidden(action), **fields})

    def hidden(self, action: str) -> dict[str, str]:
        form = re.search(rf'<form method="post" action="/{action}".*?</form>', self.page, re.DOTALL)
        assert form, (action, self.page)
        found = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', form[0])
        return {name: html.unescape(value) for name, value in found}

    @property
    def heading(self) -> str:
        found = re.search(r"<h1>(.*?)</h1>", self.page)
        assert found, self.page
        return html.unescape(found[1])

    @property
    def prompt(self) -> str:
        return html.unescape(re.search(r'<p class="question" dir="auto">(.*?)</p>', self.page, re.DOTALL)[1])  # type: ignore[index]

    @property
    def texts(self) -> tuple[str, str]:
        found = re.findall(r'<div class="text" dir="auto">(.*?)</div></section>', self.page, re.DOTALL)
        first, second = (html.unescape(re.sub(r"<[^>]*>", "", text)).strip() for text in found)
        return first, second

    @property
    def key(self) -> str:
        return str(self.client.cookies[self.cookie])

    def use_key(self, key: str) -> Person:
        """Open the study in a browser that remembers this key."""
        self.client.cookies.set(self.cookie, key)
        return self

    def begin(self, address: str = "/") -> Person:
        self.get(address)
        self.submit("consent", agree="yes")
        return self

    def vote(self, choice: str = "1") -> str:
        return self.submit("vote", choice=choice)

    def label(self, choose: Callable[[Person], str] = lambda _: "1") -> Person:
        """Vote on everything up to the page between the stages."""
        while 'action="/vote"' in self.page:
            self.vote(choose(self))
        assert 'action="/begin"' in self.page, self.page
        return self

    def wait(self) -> Person:
        """Ask for the answers, and look until the first are there or failed."""
        self.submit("begin")
        deadline = time.monotonic() + 20
        while 'id="waiting"' in self.page:
            assert time.monotonic() < deadline
            time.sleep(0.01)
            self.get()
        return self

    def compare(self, choose: Callable[[Person], str] = lambda _: "1") -> Person:
        while 'action="/finish"' not in self.page:
            if 'id="waiting"' in self.page:
                time.sleep(0.01)
                self.get()
            else:
                self.vote(choose(self))
        return self

    def finish(self, choose: Callable[[Person], str] = lambda _: "1") -> Person:
        """Go through the whole study, from wherever it is."""
        if 'action="/consent"' in self.page or not self.page:
            self.begin()
        if 'action="/vote"' in self.page:
            self.label(choose)
        self.wait().compare(choose)
        self.submit("finish")
        return self

    def _read(self, response: Any) -> str:
        for one in (*response.history, response):
            headers = "\n".join(f"{name}: {value}" for name, value in one.headers.items())
            self.received.append((headers, one.content, str(one.url)))
        self.page, self.status = response.text, response.status_code
        return self.page


def owner_of(site: StudySite, person: Person) -> Owner:
    found = site.store.participant(person.key)
    assert found is not None
    return found
