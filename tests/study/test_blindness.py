"""Nothing that a participant receives tells the arms apart: addresses, headers, pages, sizes, order, time."""

from __future__ import annotations

import re
import time
from pathlib import Path

from fspo.serving.engine import GenerationRequest
from tests.study.site import ARMS, Person, ScriptedEngine, opened_site

SECRETS = (*ARMS, "a-secret-model", "personalised", "zebra", "walrus", "first_arm", "second_arm", "matched")


def answer(request: GenerationRequest) -> str:
    """Both arms say the same kind of thing at the same length; only a word of nonsense differs."""
    return f"An answer with the word {'quax' if request.personalised else 'brol'}."


def whole(person: Person) -> bytes:
    return b"\n".join(address.encode() + headers.encode() + body for headers, body, address in person.received)


def test_no_byte_names_an_arm_or_what_it_is_made_of(tmp_path: Path) -> None:
    with opened_site(tmp_path, ScriptedEngine(answer)) as site:
        person = site.person()
        person.finish()
        for address in ("/data", "/download", "/state", "/files/study.js", "/files/study.css", "/files/page.css"):
            person.get(address)
        person.post("/vote", item="item_forged", choice="1")
        person.post("/withdraw", sure="yes")
        person.get("/download")
        received = whole(person).lower()
        assert b"quax" in received and b"brol" in received  # the answers themselves were there
        for secret in SECRETS:
            assert secret.encode() not in received, secret


def test_pages_differ_only_by_the_answers(tmp_path: Path) -> None:
    """Beside ids and texts, the page with an arm on the left is the same as the one with it on the right."""
    pages: dict[bool, set[str]] = {True: set(), False: set()}
    headers: dict[bool, set[str]] = {True: set(), False: set()}
    with opened_site(tmp_path, ScriptedEngine(answer), attention=[], labels=_labels(tmp_path), **_count(8)) as site:
        for _ in range(3):
            person = site.person().begin().label().wait()
            while 'action="/finish"' not in person.page:
                if person.heading.startswith("Part 2") and 'id="undo"' in person.page:
                    left = "quax" in person.texts[0]
                    plain = re.sub(
                        r"item_[0-9a-f]{24}|quax|brol|Question \d+|value=\"\d+\"|\d+ of \d+", "", person.page
                    )
                    pages[left].add(plain)
                    names = re.sub(r"content-length: \d+|x-request-id: [0-9a-f]{16}", "", person.received[-1][0])
                    headers[left].add(names)
                    assert f"content-length: {len(person.received[-1][1])}" in person.received[-1][0]
                    assert "content-encoding" not in names  # compressed sizes would depend on more than the texts
                person.vote() if 'action="/vote"' in person.page else person.get()
    assert pages[True] == pages[False] and len(pages[True]) == 1
    assert headers[True] == headers[False] and len(headers[True]) == 1


def test_without_markup_no_arm_is_seen_by_its_lists(tmp_path: Path) -> None:
    """A number in bold is no list in Markdown, and what remains of it without the bold looks like one."""

    def numbered(request: GenerationRequest) -> str:
        return "**1.** Walk.\n\n**2.** Sleep." if request.personalised else "Walk.\n\nSleep."

    with opened_site(tmp_path, ScriptedEngine(numbered), attention=[], labels=_labels(tmp_path)) as site:
        person = site.person().begin().label().wait()
        while 'action="/finish"' not in person.page:
            if 'action="/vote"' in person.page:
                assert "<ol>" not in person.page and "<li>" not in person.page
                (item,) = [row for row in site.store.records("small").items if row.id == person.hidden("vote")["item"]]
                assert person.texts == tuple(text.replace("\n\n", "\n") for text in (item.first, item.second))
            person.vote() if 'action="/vote"' in person.page else person.get()


def test_a_slow_arm_is_not_seen_and_no_answer_is_shown_alone(tmp_path: Path) -> None:
    """Both answers of a page come from the store: nothing is sent while only the faster arm has answered."""

    class Uneven(ScriptedEngine):
        async def stream(self, request: GenerationRequest):  # noqa: ANN202
            self.seconds = 0.0 if request.personalised else 0.3
            async for piece in super().stream(request):
                yield piece

    with opened_site(tmp_path, Uneven(answer), attention=[], labels=_labels(tmp_path)) as site:
        person = site.person().begin().label()
        person.submit("begin")
        times: dict[bool, list[float]] = {True: [], False: []}
        while 'action="/finish"' not in person.page:
            if 'id="waiting"' in person.page:
                assert "quax" not in person.page and "brol" not in person.page
                assert all(bool(row.first) == bool(row.second) for row in site.store.records("small").items)
                person.get()
                continue
            left = "quax" in person.texts[0]
            start = time.perf_counter()
            person.get()
            times[left].append(time.perf_counter() - start)
            person.vote()
        assert all(min(own) < 0.3 for own in times.values())  # no page waits for the slow arm


def test_the_side_says_nothing_and_nobody_can_foresee_it(tmp_path: Path) -> None:
    first = []
    with opened_site(tmp_path, order="random", attention=[], labels=_labels(tmp_path), participants=100) as site:
        for _ in range(20):
            site.person().begin()
        first = [row.first_arm == ARMS[0] for row in site.store.records("small").items if row.arms]
    assert len(first) == 80 and 20 < sum(first) < 60  # 4.5 standard deviations


def _labels(folder: Path) -> dict[str, object]:
    return {"source": {"file": folder / "texts.jsonl"}, "count": 2}


def _count(comparisons: int) -> dict[str, object]:
    return {"comparisons": {"count": comparisons}}
