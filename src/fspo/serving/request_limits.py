"""Limits on all requests of a server together, before anything of a request is read or looked up."""

from __future__ import annotations

from typing import Any

from starlette.exceptions import HTTPException

from fspo.serving.api_errors import ApiError, error_response

__all__ = ["BodyLimitMiddleware", "RequestLimitMiddleware"]


class RequestLimitMiddleware:
    """Refuses requests to the API while many are under way, before anything is read or looked up."""

    def __init__(self, app: Any, most: int) -> None:
        self._app, self._most = app, most
        self._under_way = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            await self._app(scope, receive, send)
            return
        if self._under_way >= self._most:
            headers = {"retry-after": "1"}
            full = ApiError(503, "The server has too many requests; try again later.", "server_full", headers=headers)
            await error_response(full)(scope, receive, send)
            return
        self._under_way += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._under_way -= 1


class BodyLimitMiddleware:
    """Refuses bodies that are too large, before they are read."""

    def __init__(self, app: Any, most: int) -> None:
        self._app, self._most = app, most

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        said = dict(scope["headers"]).get(b"content-length", b"0")
        too_large = ApiError(413, f"A body has at most {self._most:,} bytes.", "body_too_large")
        if said.isdigit() and int(said) > self._most:
            await error_response(too_large)(scope, receive, send)
            return
        read = 0

        async def limited() -> Any:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._most:
                raise HTTPException(413, too_large.message)
            return message

        await self._app(scope, limited, send)
