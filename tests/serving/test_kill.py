"""A server that is killed while people save preferences: every preference that it has acknowledged is there later."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import httpx2

from fspo.serving.store import Store
from tests.serving.program import serving

_WRITERS = 4
_ENOUGH = 60
"""Acknowledged preferences before the kill."""
_NO_MODEL = ("--upstream", "http://127.0.0.1:1/v1", "--model", "none", "--request-rate", "100000/minute")


def test_a_kill_under_load_loses_no_acknowledged_preference(place: str | Path, tmp_path: Path) -> None:
    store = Store.open(place)
    store.add_user("ann")
    headers = {"authorization": f"Bearer {store.add_key(store.user_named('ann')).key}"}
    store.close()
    saved: dict[str, str] = {}
    cut: list[str] = []
    enough = threading.Event()

    def write(address: str, writer: int) -> None:
        with httpx2.Client(base_url=address, headers=headers, timeout=20) as http:
            for number in range(10_000):
                chosen = f"answer {writer}-{number}"
                try:
                    sent = http.post("/preferences", json={"prompt": "Which?", "chosen": chosen, "rejected": "none"})
                except httpx2.HTTPError:
                    cut.append(chosen)
                    return
                assert sent.status_code == 201, sent.text
                saved[sent.json()["id"]] = chosen
                if len(saved) >= _ENOUGH:
                    enough.set()

    with serving(tmp_path, *_NO_MODEL, store=place) as (program, address):
        threads = [threading.Thread(target=write, args=(address, writer)) for writer in range(_WRITERS)]
        for thread in threads:
            thread.start()
        assert enough.wait(60)
        program.send_signal(signal.SIGKILL)
        for thread in threads:
            thread.join()
    assert len(cut) == _WRITERS, "all were writing when the server was killed"

    found: dict[str, str] = {}
    with (
        serving(tmp_path, *_NO_MODEL, store=place) as (_, address),
        httpx2.Client(base_url=address, headers=headers, timeout=20) as http,
    ):
        page = {"has_more": True, "last_id": None}
        while page["has_more"]:
            after = {"after": page["last_id"]} if page["last_id"] else {}
            page = http.get("/preferences", params={"limit": 100, "order": "asc", **after}).json()
            found |= {one["id"]: one["chosen"] for one in page["data"]}
    assert {name: found.get(name) for name in saved} == saved
    assert set(found.values()) <= {*saved.values(), *cut}, "nothing else was saved"
