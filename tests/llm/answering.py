"""A server in a thread whose replies a test writes, down to the bytes."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

__all__ = ["Server", "answer", "answering", "reply"]

Script = Callable[[dict[str, Any], int], bytes]
"""(body of a request, how many came before it) -> the bytes of the reply."""


class Server(socketserver.ThreadingTCPServer):
    """Replies by a script; keeps the bodies it was sent."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, script: Script) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script, self.bodies, self.lock = script, list[dict[str, Any]](), threading.Lock()

    @property
    def address(self) -> str:
        """Ends in /v1."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(socketserver.StreamRequestHandler):
    server: Server

    def handle(self) -> None:
        while line := self.rfile.readline():
            length = 0
            while line.strip():
                name, _, value = line.decode("latin-1").partition(":")
                length = int(value) if name.lower() == "content-length" else length
                line = self.rfile.readline()
            body = json.loads(self.rfile.read(length) or b"{}")
            with self.server.lock:
                self.server.bodies.append(body)
                count = len(self.server.bodies) - 1
            said = self.server.script(body, count)
            self.wfile.write(said)
            if not said.startswith(b"HTTP/1.1 ") or b"content-length" not in said:
                return


def reply(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> bytes:
    """A whole reply of HTTP; a value that is no bytes is written as JSON."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    lines = [f"HTTP/1.1 {status} X", "content-type: application/json", f"content-length: {len(body)}"]
    lines += [f"{name}: {text}" for name, text in (headers or {}).items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def answer(content: Any = "Good.", finish: str | None = "stop", usage: Any = None, **more: Any) -> dict[str, Any]:
    """The body of an answer; `more` is put into its message."""
    choice = {"index": 0, "message": {"role": "assistant", "content": content, **more}, "finish_reason": finish}
    found = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
    return found | {"usage": usage or {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}}


@contextmanager
def answering(script: Script) -> Iterator[Server]:
    """Start the server."""
    with Server(script) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
