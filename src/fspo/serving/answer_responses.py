"""Answers as responses of the API, whole or streamed, which end when their client leaves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
from fastapi import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from fspo.serving.answering import Answer
from fspo.serving.engine import Piece

__all__ = ["streamed_response", "whole_response"]


async def whole_response(
    request: Request, begin: Callable[[], Awaitable[Answer]], form: Callable[[Answer, str], dict[str, Any]]
) -> Response:
    """The whole answer, in the form of `form`, which gets the answer and its text; it stops when the client leaves."""

    async def read() -> Response:
        answer = await begin()
        try:
            texts = [piece.text async for piece in answer.pieces]
        finally:
            await _close(answer.pieces)
        return JSONResponse(form(answer, "".join(texts)))

    return await _unless_gone(request, read)


async def streamed_response(
    request: Request,
    begin: Callable[[], Awaitable[Answer]],
    events: Callable[[Answer, AsyncIterator[Piece]], AsyncIterator[bytes]],
) -> Response:
    """The answer as server-sent `events`, from its first piece on; it stops when the client leaves."""

    async def first() -> Response:
        answer = await begin()
        try:
            # An error before the first piece has a status code of its own.
            piece = await anext(answer.pieces, None)
        except BaseException:
            await _close(answer.pieces)
            raise
        return _Stream(events(answer, _chained(piece, answer.pieces)), answer.pieces)

    return await _unless_gone(request, first)


async def _chained(first: Piece | None, rest: AsyncIterator[Piece]) -> AsyncIterator[Piece]:
    if first is not None:
        yield first
    async for piece in rest:
        yield piece


class _Stream(StreamingResponse):
    """A stream of events that ends the answer when the client leaves."""

    def __init__(self, events: AsyncIterator[bytes], pieces: AsyncIterator[Piece]) -> None:
        # A proxy such as nginx would else collect the events of an answer before it passes them on.
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._pieces = pieces

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await _close(self.body_iterator)
            await _close(self._pieces)


async def _close(iterator: Any) -> None:
    with anyio.CancelScope(shield=True):
        await iterator.aclose()


async def _unless_gone(request: Request, work: Callable[[], Awaitable[Response]]) -> Response:
    """Do the work, and end it when the client leaves."""
    result: Response | None = None
    raised: Exception | None = None

    async def watch(scope: anyio.CancelScope) -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(watch, group.cancel_scope)
        try:
            result = await work()
        except Exception as error:
            raised = error  # a group of tasks would wrap it
        group.cancel_scope.cancel()
    if raised is not None:
        raise raised
    return result or Response(status_code=499)
