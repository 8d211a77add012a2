"""Whole studies by simulated participants, through the pages of a server that is killed again and again.

    python -m benchmarks.study --out docs/results/study      # about ten minutes on one core

Most participants are attentive: they have a taste in the declared traits of the domain elix-written, choose by it with
noise, and get tired. A few always choose left, a few choose without reading, and some leave before the end. One arm
answers with the written text that fits the labels best, most of the time; the other with any text. So the true win
rate is known. Each participant follows links and sends forms, sometimes twice at once, sometimes an old one again, and
sometimes takes a vote back. The server is killed (SIGKILL) at random moments and started again.

    lost, doubled, wrong    votes that a participant gave and the store lacks, has twice, or has with another choice;
                            each must be 0
    recovered               whether the interval of the report covers the true win rate
    truth                   mean chance that the attentive participants prefer the personalised arm on the items that
                            they saw; the votes are drawn from it
    always_left             win rate of the participants who always choose left
    careless_flagged        share of the participants without attention whom the rules of exclusion found

Simulated people don't wait, so the rule on reading speed is off.

`coverage` is over further studies of 25 attentive people each, without pages: how many intervals cover the true win
rate of all such people, and how many one-sided tests at 5% find a difference where both arms ignore the labels.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx2

from fspo.files import write_json
from fspo.preferences.types import Preference, Turn
from fspo.serving.engine import EngineState, GenerationRequest, Piece
from fspo.study.analysis.findings import StudyFindings, analyse
from fspo.study.app import create_study_app
from fspo.study.config import StudyConfig
from fspo.study.material import load_material
from fspo.study.records import Choice, StudyRecords
from fspo.study.registration import registration_of
from fspo.study.simulated import Kind, Rater, SimulatedArms, TextTraits, draw_rater, expected_win_rate, simulate_study
from fspo.study.store import StudyStore

__all__ = ["main", "run", "simulated_config"]

PAIR = ("personal", "base")
_CODE = "SIMULATED-END"
_CHECKS = {
    "Which answer names a colour?": ("Blue is a colour, so choose this answer.", "A table is no colour."),
    "Which answer names an animal?": ("A horse is an animal, so choose this answer.", "A bridge is no animal."),
    "Which answer names a month?": ("May is a month, so choose this answer.", "A spoon is no month."),
    "Which answer names a fruit?": ("An apple is a fruit, so choose this answer.", "A window is no fruit."),
}
"""Prompt -> the right text and the wrong one."""
_BUTTONS: Mapping[Choice, str] = {"first": "1", "second": "2", "tie": "0"}
_PATIENCE = 120.0
"""Seconds until a server that does not answer is an error."""
_MOST_LOOKS = 100
"""Pages without a form, one after the other, until a participant gives up."""


# The study and its server


def simulated_config(folder: Path, *, labels: int = 9, comparisons: int = 11, participants: int = 1000) -> StudyConfig:
    """The study that simulated participants take part in."""
    return StudyConfig.model_validate(
        {
            "name": "simulated",
            "output": folder,
            "arms": {
                "personal": {"policy": "simulated"},
                "base": {"policy": "simulated", "personalised": False},
            },
            "participants": participants,
            "labels": {"source": {"domain": "elix-written"}, "count": labels, "attention": 2},
            "comparisons": {"count": comparisons, "attention": 2},
            "matching": {"length": 2.0},
            "answers": {"together": 20},
            "attention": [
                {"prompt": prompt, "right": right, "wrong": wrong} for prompt, (right, wrong) in _CHECKS.items()
            ],
            "exclusions": {"words_per_minute": None},
            "consent": {"version": "1", "text": "Do you agree?", "contact": "ann@example.org"},
            "recruiting": {"codes": {"finished": _CODE}},
        }
    )


class WrittenEngine:
    """Answers with written texts: those that fit the labels where these are given, else any."""

    reads_description = True

    def __init__(self, arms: SimulatedArms, seed: int) -> None:
        """`seed` draws the texts."""
        self._arms, self._chance = arms, random.Random(seed)

    async def stream(self, request: GenerationRequest) -> AsyncIterator[Piece]:
        """The answer in one piece."""
        await asyncio.sleep(self._chance.uniform(0, 0.02))
        text = self._arms.answer(request.turns[-1].text, request.shots, self._chance, personalised=request.personalised)
        yield Piece(text, "stop", 1, 1, 0)

    async def fits(
        self, shots: Sequence[Preference], turns: Sequence[Turn], max_tokens: int, description: str = ""
    ) -> int:
        """All shots."""
        return len(shots)

    def times_forgotten(self, owner: str) -> int:
        """It keeps nothing."""
        return 0

    async def forget(self, owner: str) -> None:
        """It keeps nothing."""

    async def state(self) -> EngineState:
        """It always answers."""
        return EngineState(True, "written")

    async def close(self) -> None:
        """Nothing is open."""


def serve(config: StudyConfig, port: int) -> None:
    """Serve the study until the process is killed."""
    from fspo.serving.listening import bound, listen

    material = load_material(config)
    store = StudyStore.open(str(config.output))
    store.register(config.name, registration_of(config, material))
    engine = WrittenEngine(SimulatedArms(TextTraits(config, material)), seed=time.time_ns())
    app = create_study_app(config, material, store, dict.fromkeys(config.arms, engine))
    with bound("127.0.0.1", port) as place:
        listen(app, place, lambda _: None, path="/")


# Participants


class _Page(HTMLParser):
    """What a participant finds on a page: forms with their hidden fields, the question, and the two texts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.forms: dict[str, dict[str, str]] = {}
        self.texts: list[str] = []
        self.question = ""
        self.waiting = False
        self.ties = False
        self._form: dict[str, str] | None = None
        self._depth = 0
        self._in_question = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form" and given.get("method") == "post":
            self._form = self.forms.setdefault(given["action"].rpartition("/")[2], {})
        elif tag == "input" and given.get("type") == "hidden" and self._form is not None:
            self._form[given["name"]] = given["value"]
        elif tag == "input" and given.get("name") == "choice" and given.get("value") == "0":
            self.ties = True
        self.waiting = self.waiting or given.get("id") == "waiting"
        self._in_question = tag == "p" and given.get("class") == "question"
        if tag == "div" and given.get("class") == "text":
            self._depth = 1
            self.texts.append("")
        elif tag == "div" and self._depth:
            self._depth += 1

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._form = None
        elif tag == "div" and self._depth:
            self._depth -= 1
        elif tag == "p":
            self._in_question = False

    def handle_data(self, data: str) -> None:
        if self._depth:
            self.texts[-1] += data
        elif self._in_question:
            self.question += data


class SimulatedClient:
    """One participant, who follows links and sends forms."""

    def __init__(self, name: str, rater: Rater, texts: TextTraits, address: str, chance: random.Random) -> None:
        """`address` is that of the server, and `name` the recruiting site's id."""
        self.rater, self._texts, self._chance = rater, texts, chance
        self._http = httpx2.AsyncClient(base_url=address, follow_redirects=True, timeout=_PATIENCE)
        self._invitation = {"PROLIFIC_PID": name, "STUDY_ID": "simulated", "SESSION_ID": f"session-{name}"}
        self.choices: dict[str, Choice] = {}
        """Item -> the choice that must count in the end."""
        self._undone: dict[str, Choice] = {}
        self.finished = False
        self.interruptions = 0
        """Requests that got no answer."""
        self.repeats = 0
        """Votes that were sent again."""
        self._page = _Page("")
        self._body = ""
        self._looks = 0

    async def take_part(self) -> None:
        """Go through the study, until the end or until the participant leaves."""
        try:
            while not self.finished and not self._leaves():
                await self._step()
        finally:
            await self._http.aclose()

    def _leaves(self) -> bool:
        """Whether the participant leaves: not while the page still asks for a choice, as after a lost or undone one."""
        if self.rater.votes is None or len(self.choices) < self.rater.votes:
            return False
        asked = self._page.forms.get("vote", {}).get("item")
        return bool(self._page.forms or self._page.waiting) and asked not in self.choices

    async def _step(self) -> None:
        forms = self._page.forms
        self._looks = 0 if forms or self._page.waiting else self._looks + 1
        if self._looks > _MOST_LOOKS:
            raise RuntimeError(f"A participant does not get on: {self._body[:2000]}")
        if _CODE in self._body:
            self.finished = True
        elif "consent" in forms:
            await self._send("consent", agree="yes")
        elif "vote" in forms:
            await self._vote()
        elif (action := next((name for name in ("begin", "retry", "finish") if name in forms), None)) is not None:
            await self._send(action)
        else:
            if self._page.waiting:
                await asyncio.sleep(0.05)
            await self._look()

    async def _vote(self) -> None:
        page = self._page
        item = page.forms["vote"]["item"]
        self.choices.update({item: self._undone[item]} if item in self._undone else {})
        self._undone.clear()
        if item not in self.choices:
            self.choices[item] = self._choose(page)
        fields = {"item": item, "choice": _BUTTONS[self.choices[item]]}
        habit = self._chance.random()
        if habit < 0.1:
            self.repeats += 1
            await asyncio.gather(self._post("vote", fields), self._post("vote", fields))
            await self._look()
            return
        await self._send("vote", **fields)
        if habit < 0.15:
            others = [one for one in self.choices if one != item]  # the vote on this item may be lost
            if not others:
                return
            self.repeats += 1
            old = self._chance.choice(others)
            await self._post("vote", {"item": old, "choice": self._chance.choice("120")})
            await self._look()
        elif habit < 0.2 and self._page.forms.get("undo", {}).get("item") == item:
            self._undone[item] = self._choose(page)
            await self._send("undo")

    def _choose(self, page: _Page) -> Choice:
        right: Choice | None = None
        if page.question.strip() in _CHECKS:
            right = "first" if _CHECKS[page.question.strip()][0] in page.texts[0] else "second"
        number = len(self.choices)
        first, second = page.texts
        return self.rater.choose(first, second, number, self._texts, self._chance, ties=page.ties, right=right)

    async def _send(self, action: str, **fields: str) -> None:
        """Send a form of the page. Whether it arrived is seen on the next page."""
        answer = await self._post(action, {**self._page.forms[action], **fields})
        if answer is None:
            await self._look()
        else:
            self._read(answer)

    async def _post(self, action: str, fields: Mapping[str, str]) -> httpx2.Response | None:
        return await self._request("POST", f"/{action}", data=dict(fields))

    async def _look(self) -> None:
        """Load the page of the study, as often as needed."""
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            known = bool(self._http.cookies)
            answer = await self._request("GET", "/", params=None if known else self._invitation)
            if answer is not None:
                self._read(answer)
                return
            await asyncio.sleep(self._chance.uniform(0.05, 0.3))
        raise TimeoutError("The server of the study does not come back.")

    async def _request(self, method: str, path: str, **arguments: Any) -> httpx2.Response | None:
        """The answer; None where there is none, or the server can't answer now."""
        try:
            answer = await self._http.request(method, path, **arguments)
        except httpx2.TransportError:
            self.interruptions += 1
            return None
        return answer if answer.status_code < 500 else None

    def _read(self, answer: httpx2.Response) -> None:
        self._body = answer.text
        self._page = _Page(answer.text)


# A whole study


@dataclass
class Crowd:
    """Simulated participants and the server that they visit."""

    clients: Sequence[SimulatedClient]
    start: Callable[[], subprocess.Popen[bytes]]
    """Starts the server; it is killed and started again."""
    address: str
    together: int = 20
    kills: int = 0
    """How often the server is to be killed."""
    pause: tuple[float, float] = (2.0, 8.0)
    """Seconds between two kills, at least and at most."""
    killed: int = 0
    """How often it was."""
    seed: int = 0


@dataclass
class Votes:
    """How the store's votes compare with those that were given."""

    given: int = 0
    lost: int = 0
    doubled: int = 0
    wrong: int = 0
    events: Counter[str] = field(default_factory=Counter)


async def visit_all(crowd: Crowd) -> None:
    """Let everybody take part, some at once, while the server is killed now and then."""
    server = crowd.start()
    limit, done = asyncio.Semaphore(crowd.together), asyncio.Event()

    async def one(client: SimulatedClient) -> None:
        async with limit:
            await client.take_part()

    async def disturb() -> subprocess.Popen[bytes]:
        nonlocal server
        chance = random.Random(crowd.seed)
        while crowd.killed < crowd.kills and not done.is_set():
            await _answering(crowd.address)
            try:
                await asyncio.wait_for(done.wait(), chance.uniform(*crowd.pause))
                break
            except TimeoutError:
                server.kill()
                await asyncio.to_thread(server.wait)
                crowd.killed += 1
                server = crowd.start()
        return server

    disturbing = asyncio.ensure_future(disturb())
    try:
        await asyncio.gather(*(one(client) for client in crowd.clients))
    finally:
        done.set()
        server = await disturbing
        server.kill()
        server.wait()


def reviewed(records: StudyRecords, clients: Sequence[SimulatedClient]) -> Votes:
    """Compare the store's records with what the participants remember."""
    votes, stored = Votes(), {item.id: item for item in records.items}
    votes.events = Counter(event.kind for event in records.events)
    rows = Counter(item.id for item in records.items)
    counted = Counter(event.item for event in records.events if event.kind == "voted")
    counted.subtract(event.item for event in records.events if event.kind == "undone")
    for client in clients:
        for item, choice in client.choices.items():
            votes.given += 1
            found = stored.get(item)
            votes.lost += found is None or found.choice is None
            votes.doubled += rows[item] > 1 or counted[item] > 1
            votes.wrong += found is not None and found.choice is not None and found.choice != choice
    given = {item for client in clients for item in client.choices}
    votes.wrong += sum(item.choice is not None and item.id not in given for item in records.items)
    return votes


async def _answering(address: str) -> None:
    """Wait until the server answers."""
    deadline = time.monotonic() + _PATIENCE
    async with httpx2.AsyncClient(base_url=address) as http:
        while time.monotonic() < deadline:
            try:
                if (await http.get("/health")).status_code == 200:
                    return
            except httpx2.TransportError:
                pass
            await asyncio.sleep(0.05)
    raise TimeoutError("The server of the study does not start.")


def raters_of(clients: Sequence[SimulatedClient], records: StudyRecords) -> Mapping[str, Rater]:
    """Participant of the records -> how they choose."""
    whose = {item.id: item.participant for item in records.items}
    return {whose[item]: client.rater for client in clients for item in client.choices if item in whose}


def result_of(crowd: Crowd, records: StudyRecords, config: StudyConfig, texts: TextTraits) -> dict[str, Any]:
    """What the study showed, ready for JSON."""
    raters = raters_of(crowd.clients, records)
    found = analyse(records, config.exclusions, pairs=[PAIR])
    flagged = {row.participant for row in found.excluded if {"attention", "one side"} & set(row.reasons)}
    excluded = {row.participant for row in found.excluded}
    attentive = {name: rater for name, rater in raters.items() if rater.kind == "attentive" and name not in excluded}
    truth = expected_win_rate(records.items, attentive, PAIR[0], texts, ties=config.comparisons.ties)
    estimate = found.results.win_rates[0].estimate
    votes = reviewed(records, crowd.clients)
    return {
        "participants": len(records.participants),
        "clients": len(crowd.clients),
        "together": crowd.together,
        "finished": sum(person.finished is not None for person in records.participants),
        "left_early": sum(client.rater.votes is not None for client in crowd.clients),
        "kills": crowd.killed,
        "interrupted_requests": sum(client.interruptions for client in crowd.clients),
        "repeated_votes": sum(client.repeats for client in crowd.clients),
        "votes": votes.given,
        "lost": votes.lost,
        "doubled": votes.doubled,
        "wrong": votes.wrong,
        "events": dict(votes.events),
        "truth": truth,
        "win_rate": estimate.to_json(),
        "recovered": estimate.low is not None and estimate.high is not None and estimate.low <= truth <= estimate.high,
        "p": found.results.win_rates[0].p,
        "always_left": _mean_rate(found, [name for name, rater in raters.items() if rater.kind == "always-left"]),
        "always_left_flagged": _share_flagged(raters, flagged, "always-left"),
        "careless_flagged": _share_flagged(raters, flagged, "careless"),
        "attentive_flagged": _share_flagged(raters, flagged, "attentive"),
        "excluded": dict(found.reasons),
    }


def coverage(config: StudyConfig, *, studies: int, people: int = 25, seed: int = 0) -> dict[str, Any]:
    """How often the interval covers the truth, and how often the test finds what is not there."""
    material, chance = load_material(config), random.Random(seed)
    texts = TextTraits(config, material)
    found: dict[str, Any] = {"studies": studies, "people": people}
    for name, skill in (("personal", 0.7), ("no_difference", 0.0)):
        truths, rates = [], []
        for _ in range(studies):
            raters = [draw_rater("attentive", texts, chance) for _ in range(people)]
            records = simulate_study(config, material, raters, SimulatedArms(texts, skill), chance)
            named = {person.id: rater for person, rater in zip(records.participants, raters, strict=True)}
            ties = config.comparisons.ties
            truths.append(expected_win_rate(records.items, named, PAIR[0], texts, ties=ties))
            rates.append(analyse(records, config.exclusions, pairs=[PAIR]).results.win_rates[0])
        truth = sum(truths) / studies
        covered = [
            rate.estimate.low is not None
            and rate.estimate.high is not None
            and rate.estimate.low <= truth <= rate.estimate.high
            for rate in rates
        ]
        found[name] = {
            "truth": truth,
            "covered": sum(covered) / studies,
            "significant": sum(rate.p is not None and rate.p < 0.05 for rate in rates) / studies,
            "significant_binomial": sum(rate.binomial_p is not None and rate.binomial_p < 0.05 for rate in rates)
            / studies,
        }
    return found


def _mean_rate(found: StudyFindings, people: Sequence[str]) -> float | None:
    own = next(iter(found.everybody.by_participant.values()), {})
    rates = [own[name] for name in people if name in own]
    return sum(rates) / len(rates) if rates else None


def _share_flagged(raters: Mapping[str, Rater], flagged: set[str], kind: Kind) -> float | None:
    """Of those who have voted on everything or most, so that the rules could see them."""
    people = [name for name, rater in raters.items() if rater.kind == kind and rater.votes is None]
    return sum(name in flagged for name in people) / len(people) if people else None


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return int(place.getsockname()[1])


def make_clients(
    kinds: Sequence[Kind], texts: TextTraits, address: str, chance: random.Random, *, leaving: float = 0.0
) -> list[SimulatedClient]:
    """Participants of these kinds; those who are attentive leave early with a chance of `leaving`."""
    return [
        SimulatedClient(
            f"person-{number}",
            draw_rater(kind, texts, chance, leaving=leaving if kind == "attentive" else 0.0),
            texts,
            address,
            random.Random(chance.random()),
        )
        for number, kind in enumerate(kinds)
    ]


def run(
    config: StudyConfig,
    kinds: Sequence[Kind],
    *,
    kills: int,
    seed: int,
    pause: tuple[float, float] = (2.0, 8.0),
    leaving: float = 0.1,
) -> dict[str, Any]:
    """A whole study of `simulated_config`, with the server in a process of its own.

    Args:
        config: the study.
        kinds: of the participants.
        kills: how often the server is killed.
        seed: of everything that is drawn here.
        pause: least and most seconds between two kills.
        leaving: chance of the attentive participants to leave early.
    """
    folder, material, port = config.output, load_material(config), free_port()
    texts, address = TextTraits(config, material), f"http://127.0.0.1:{port}"
    design = f"--labels={config.labels.count}", f"--comparisons={config.comparisons.count}"

    def start_server() -> subprocess.Popen[bytes]:
        arguments = ["-m", "benchmarks.study", "--serve", str(folder), "--port", str(port), *design]
        return subprocess.Popen([sys.executable, *arguments], cwd=Path(__file__).parents[1])

    clients = make_clients(kinds, texts, address, random.Random(seed), leaving=leaving)
    crowd = Crowd(clients, start_server, address, kills=kills, pause=pause, seed=seed)
    began = time.perf_counter()
    asyncio.run(visit_all(crowd))
    seconds = time.perf_counter() - began
    store = StudyStore.open(str(folder))
    try:
        return {**result_of(crowd, store.records(config.name), config, texts), "seconds": round(seconds, 1)}
    finally:
        store.close()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the study, and print its result as JSON on the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--participants", type=int, default=200)
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--studies", type=int, default=200, help="Studies without pages, for the coverage.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--labels", type=int, default=9)
    parser.add_argument("--comparisons", type=int, default=11)
    given = parser.parse_args(arguments)
    design = {"labels": given.labels, "comparisons": given.comparisons}
    if given.serve is not None:
        serve(simulated_config(given.serve, **design), given.port)
        return
    odd = given.participants // 20
    counts: Mapping[Kind, int] = {"always-left": odd, "careless": odd, "attentive": given.participants - 2 * odd}
    kinds = [kind for kind, count in counts.items() for _ in range(count)]
    random.Random(given.seed).shuffle(kinds)
    with tempfile.TemporaryDirectory(prefix="fspo-study-") as folder:
        result = {
            "benchmark": "study",
            **run(simulated_config(Path(folder), **design), kinds, kills=given.kills, seed=given.seed),
        }
    result["coverage"] = coverage(simulated_config(Path(), **design), studies=given.studies, seed=given.seed)
    if given.out is not None:
        write_json(given.out / "study.json", result)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
