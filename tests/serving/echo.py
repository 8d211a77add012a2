"""An engine that repeats what it was given, and the API on it: in this process, or behind a real HTTP server."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import uvicorn

from fspo.errors import DataError, ModelError
from fspo.preferences.types import Preference, Turn
from fspo.serving.engine import EngineState, GenerationRequest, Piece


class EchoEngine:
    """Answers with JSON that says what the request held, a few characters at a time."""

    reads_description = True

    def __init__(self, room: int = 10_000) -> None:
        """`room` is how many characters of shots fit."""
        self.room = room
        self.requests: list[GenerationRequest] = []
        self.forgotten: list[str] = []
        self.cancelled = self.finished = 0
        self.closed = False
        self.alive = True

    async def stream(self, request: GenerationRequest) -> AsyncIterator[Piece]:
        self.requests.append(request)
        last = request.turns[-1].text
        if last == "break at once":
            raise ModelError("http://10.0.0.7:8000 is not there.")
        shown = {"said": last, "description": request.description, "chosen": [shot.chosen for shot in request.shots]}
        text = json.dumps(shown, ensure_ascii=False)
        parts = [text[start : start + 9] for start in range(0, len(text), 9)]
        complete = False
        try:
            for number, part in enumerate(parts, start=1):
                if last == "never end":
                    await asyncio.sleep(0.02)
                    yield Piece("x", None, 5, number, 2)
                    await asyncio.sleep(30)
                if last == "break later" and number == 3:
                    raise ModelError("http://10.0.0.7:8000 is gone.")
                if number > request.max_tokens:
                    yield Piece("", "length", 5, request.max_tokens, 2)
                    complete = True
                    return
                complete = number == len(parts)
                yield Piece(part, "stop" if complete else None, 5, number, 2)
        finally:
            self.finished += complete
            self.cancelled += not complete

    async def fits(
        self, shots: Sequence[Preference], turns: Sequence[Turn], max_tokens: int, description: str = ""
    ) -> int:
        if len(turns[-1].text) > self.room:
            raise DataError("The messages are too long for the model.")
        used, count = len(description), 0
        for shot in reversed(shots):
            used += len(shot.prompt + shot.chosen + shot.rejected)
            if used > self.room:
                break
            count += 1
        return count

    def times_forgotten(self, owner: str) -> int:
        return self.forgotten.count(owner)

    async def forget(self, owner: str) -> None:
        self.forgotten.append(owner)

    async def state(self) -> EngineState:
        return EngineState(self.alive, "echo")

    async def close(self) -> None:
        self.closed = True


@contextmanager
def served(app: Any) -> Iterator[str]:
    """The address of a real server for the application."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", lifespan="on"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.should_exit = True
        thread.join()
