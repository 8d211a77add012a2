"""What a server logs of an exception that nobody has caught: where it was raised, and nothing that people wrote."""

from __future__ import annotations

import asyncio
import gc
import logging
import re
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx2
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fspo.serving.counters import ACCESS_LOG, ObservingMiddleware, ServerCounters
from fspo.serving.listening import bound, listen
from fspo.serving.logged_errors import hide_values, outlined

SECRET = "velociraptor"


def failing(text: str) -> None:
    try:
        raise KeyError(text)
    except KeyError as error:
        raise ValueError(f"{text}\n  and more of {text}") from error


@contextmanager
def listening(app: Any, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Iterator[str]:
    """The address of an application that `listen` serves in a thread."""
    servers, addresses, ready = [], [], threading.Event()

    class Known(uvicorn.Server):
        def __init__(self, config: uvicorn.Config) -> None:
            super().__init__(config)
            servers.append(self)

    def announce(address: str) -> None:
        addresses.append(address)
        ready.set()

    monkeypatch.setattr(uvicorn, "Server", Known)
    place = bound("127.0.0.1", 0)
    thread = threading.Thread(target=lambda: listen(app, place, announce, path="/", **options))
    thread.start()
    try:
        assert ready.wait(20)
        yield addresses[0]
    finally:
        servers[0].should_exit = True
        thread.join()
        place.close()


def test_an_error_of_a_request_is_logged_without_its_values(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fail(request: Request) -> Response:
        failing(SECRET + (await request.body()).decode())
        return Response()

    app = Starlette(routes=[Route("/", fail, methods=["POST"])])
    with listening(app, monkeypatch) as address:
        assert httpx2.post(address, content=b"-sent").status_code == 500
    said = capsys.readouterr().err
    assert "Exception in ASGI application: ValueError at " in said and "; after KeyError at " in said
    assert said.count("serving/test_logged_errors.py:") == 3
    assert SECRET not in said and "sent" not in said and "Traceback" not in said


@pytest.mark.parametrize("grouped", [False, True])
def test_an_error_at_the_end_of_an_application_is_logged_without_its_values(
    grouped: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @asynccontextmanager
    async def life(_: Starlette) -> AsyncIterator[None]:
        yield
        raise ExceptionGroup(SECRET, [OSError(f"{SECRET}\n  more {SECRET}")]) if grouped else ValueError(SECRET)

    with listening(Starlette(lifespan=life), monkeypatch):
        pass
    said = capsys.readouterr().err
    kind = "ExceptionGroup" if grouped else "ValueError"
    assert f"Exception in the application: {kind} at " in said and "serving/test_logged_errors.py:" in said
    assert SECRET not in said and "Traceback" not in said


@pytest.mark.parametrize("wanted", [True, False])
def test_the_access_log_is_written_where_it_is_wanted_and_quotes_no_request(
    wanted: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = Starlette(routes=[Route("/", lambda _: Response())])
    app.add_middleware(ObservingMiddleware, counters=ServerCounters())
    with listening(app, monkeypatch, access_log=wanted) as address:
        assert httpx2.get(f"{address}?q={SECRET}").status_code == 200
    logging.getLogger(ACCESS_LOG).handlers.clear()  # its stream ends with this test
    assert sum(record.name == ACCESS_LOG for record in caplog.records) == wanted, "handlers of the root logger"
    out, said = capsys.readouterr()
    assert len(re.findall(r"[\d-]+ [\d:,]+ GET \S+ 200 \d+ ms [0-9a-f]{16}\n", said)) == wanted
    assert SECRET not in said + out and "127.0.0.1" not in said + out


def test_an_error_of_a_lost_task_is_logged_without_its_values(caplog: pytest.LogCaptureFixture) -> None:
    hide_values()

    async def work() -> None:
        failing(SECRET)

    async def lose() -> None:
        task = asyncio.ensure_future(work())
        await asyncio.sleep(0.01)
        del task
        gc.collect()

    with caplog.at_level(logging.ERROR):
        asyncio.run(lose())
    assert "Task exception was never retrieved: ValueError at " in caplog.text
    assert SECRET not in caplog.text


def test_all_errors_of_a_group_are_outlined() -> None:
    def found(error: Exception) -> str:
        try:
            raise error
        except Exception as caught:
            return outlined(caught)

    said = found(ExceptionGroup(SECRET, [OSError(SECRET), ExceptionGroup(SECRET, [TypeError(SECRET)])]))
    assert "OSError" in said and "TypeError" in said and SECRET not in said
    looped = ValueError()
    looped.__context__ = inner = KeyError()
    inner.__context__ = looped
    assert found(looped).count("ValueError") == 1
