"""A small OpenAI-compatible server that streams what a test tells it to, over real HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

__all__ = ["StreamingServer", "chunk", "streaming_server"]


def chunk(text: str | None = None, finish: str | None = None, **more: Any) -> str:
    """One event of a streamed answer."""
    delta = {} if text is None else {"content": text}
    return json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more})


@dataclass
class StreamingServer:
    events: list[str | bytes] = field(default_factory=list)
    """What it streams: the data of events, or raw bytes."""
    status: int = 200
    refusal: str = ""
    endless: bool = False
    """Whether it goes on with the last event for ever."""
    cut: bool = False
    """Whether it breaks the connection after the events."""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a client left before the end."""
    address: str = ""
    looks: int = 0
    """How often its models were asked for."""

    async def models(self, _: web.Request) -> web.Response:
        self.looks += 1
        return web.Response(status=self.status)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append(await request.json())
        self.headers.append(dict(request.headers))
        if self.status >= 400:
            return web.Response(status=self.status, text=self.refusal)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        try:
            for event in self.events:
                await response.write(event if isinstance(event, bytes) else f"data: {event}\n\n".encode())
            while self.endless:
                await response.write(f"data: {self.events[-1]}\n\n".encode())
                await asyncio.sleep(0.01)
        except (ConnectionError, asyncio.CancelledError):
            self.gone.set()
            raise
        if self.cut:
            assert request.transport is not None
            request.transport.abort()
        return response


@asynccontextmanager
async def streaming_server(**settings: Any) -> AsyncIterator[StreamingServer]:
    """Start the server in the loop that runs."""
    server = StreamingServer(**settings)
    application = web.Application()
    application.router.add_get("/v1/models", server.models)
    application.router.add_post("/v1/chat/completions", server.answer)
    runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.address = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        yield server
    finally:
        await runner.cleanup()
