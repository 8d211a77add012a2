"""What the operator of a study sees: its health, and a log that names no participant."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from fspo.errors import StorageError
from fspo.serving.counters import ACCESS_LOG
from tests.study.site import opened_site


def test_health_is_of_the_store_and_the_engines_and_names_no_arm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable() -> None:
        raise StorageError("The store can't be used.")

    with opened_site(tmp_path) as site:
        person = site.person()
        fine = person.client.get("/health")
        site.engine.down = True
        no_engine = person.client.get("/health")
        site.engine.down = False
        monkeypatch.setattr(site.store, "check", unreachable)
        no_store = person.client.get("/health")
    assert (fine.status_code, fine.json()) == (
        200,
        {"status": "ok", "store": "ok", "engine": "ok", "under_way": 0, "waiting": 0},
    )
    for answer, store, engine in ((no_engine, "ok", "unavailable"), (no_store, "unavailable", "ok")):
        found = answer.json()
        assert (answer.status_code, found["store"], found["engine"]) == (503, store, engine)


def test_each_request_has_a_line_by_its_route_and_no_line_names_anybody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("secret")

    caplog.set_level(logging.INFO, ACCESS_LOG)
    with opened_site(tmp_path) as site:
        person = site.person().begin().label()
        person.client.get("/resume/secret?secret=1")
        person.client.get("/secret")
        monkeypatch.setattr(site.store, "visit", broken)
        failed = person.client.get("/")
    # The client in this process may log its own requests; what it says is not the server's.
    records = [record for record in caplog.records if not record.name.startswith("httpx")]
    text = "\n".join(caplog.handler.format(record) for record in records)
    lines = [record.getMessage() for record in records if record.name == ACCESS_LOG]
    form = re.compile(r"(GET|POST) (\S+) (\d{3}) \d+ ms ([0-9a-f]{16})")
    found = [match for line in lines if (match := form.fullmatch(line))]
    assert len(found) == len(lines)
    assert {match[2] for match in found} == {"/", "/consent", "/vote", "/resume/{key}", "unknown"}
    assert failed.status_code == 500 and found[-1][3] == "500"
    assert found[-1][4] in text.replace(lines[-1], ""), "the log of the error names the request"
    assert "secret" not in text
