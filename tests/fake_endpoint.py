"""An OpenAI-compatible server that follows a script over real HTTP, in a thread or a process of its own.

`python -m tests.fake_endpoint --latency 0.3 --limit 200 --faults 429=0.05 --replies orphan=0.1` prints
its address. `GET /stats` says how many requests came and were answered, how many of the answered ones came again, and
how many were there at once.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import math
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from queue import Queue
from typing import Any
from urllib.request import urlopen

from fspo.llm.types import CompletionRequest, Message
from tests.synthesis.helpers import ScriptedModel

__all__ = ["HALF", "MODELS", "REASONING", "REPLIES", "Faults", "endpoint_process", "fake_endpoint", "stats"]

ROOT = Path(__file__).parents[1]

Faults = dict[str, float]
"""Kind of fault -> its share: 429, 500, malformed, truncated, hang, disconnect."""

MODELS = ("another", "m", "scripted")
"""Those that it lists; it answers for any other too."""

REASONING, HALF = "Hidden thoughts about", "a torn half answ"
"""In every reasoning trace, and in every half answer."""

_SHOWN = {
    "orphan": f"{REASONING} this.\n</think>\n\n{{}}",
    "think": f"<think>{REASONING} this.</think>{{}}",
    "thought": f"<thought>{REASONING} this.</thought>\n{{}}",
    "channels": f"<|channel|>analysis<|message|>{REASONING} this.<|end|><|start|>assistant<|channel|>final<|message|>"
    "{}",
    "control": "{}<|im_end|>\n<|im_start|>user\nAnd what of that?",
    "unclosed": f"<think>{REASONING} this",
}
"""Kind of reply -> the text it has around the answer."""
_ENDED = {"error": f"It is {HALF}", "abort": f"It is {HALF}", "content_filter": f"It is {HALF}", "tool_calls": ""}
"""Reason to finish -> the text before it."""
_BYTES = {
    "chunks": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nhello\r\n",
    "no-http": b"SSH-2.0-OpenSSH_9.6\r\n",
}
REPLIES = (
    *_SHOWN,
    *_ENDED,
    *_BYTES,
    "no-choices",
    "error-inside",
    "only-error",
    "only-reasoning",
    "reasoning-beside",
    "parts",
    "null",
    "huge-usage",
)
"""Kinds of odd replies. Which one a request gets depends on the request, and on how often it came; one named
`always-KIND` depends on the request alone. `judge-only-reasoning`: a judge that is given less than 1,000 tokens."""


@dataclass
class Stats:
    """What the server saw."""

    came: int = 0
    answered: int = 0
    again: int = 0
    """Requests that were answered before and came again."""
    most: int = 0
    """Most under way at once."""
    faults: dict[str, int] = field(default_factory=dict)


class Server:
    """Answers `chat/completions` by the script of `ScriptedModel`."""

    def __init__(
        self,
        latency: float,
        limit: int,
        faults: Faults,
        burst: tuple[float, float],
        logprobs: str = "none",
        replies: Faults | None = None,
    ) -> None:
        """`limit`: requests at once, above which 429 is answered; `burst`: seconds between which all are.

        `logprobs`: whether log-probs that are wanted are given (`give`), left out (`none`) or refused (`refuse`).
        """
        self.logprobs, self.replies = logprobs, replies or {}
        self.times: Counter[bytes] = Counter()
        self.broken: Path | None = None
        """As long as this file is there, no judge's answer can be read."""
        self.latency, self.limit, self.faults, self.burst = latency, limit, faults, burst
        self.stats, self.model, self.under_way = Stats(), ScriptedModel(), 0
        self.answered: set[bytes] = set()
        self.began: float | None = None
        self.rng = random.Random(0)

    async def listen(self, port: int) -> asyncio.Server:
        """Take connections."""
        return await asyncio.start_server(self.serve, "127.0.0.1", port, limit=2**20, backlog=1024)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                lengths = [line for line in head.splitlines() if line.lower().startswith("content-length:")]
                body = await reader.readexactly(int(lengths[0].split(":")[1])) if lengths else b""
                if head.startswith("GET /v1/models"):
                    models = [{"id": name} for name in MODELS]
                    self._write(writer, 200, json.dumps({"object": "list", "data": models}).encode())
                elif head.startswith("GET"):
                    since = 0.0 if self.began is None else time.monotonic() - self.began
                    self._write(writer, 200, json.dumps({**asdict(self.stats), "seconds": since}).encode())
                elif not await self._answer(body, writer):
                    return
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            return
        finally:
            writer.close()

    async def _answer(self, body: bytes, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; says whether the connection stays."""
        self.stats.came += 1
        self.began = self.began or time.monotonic()
        since = time.monotonic() - self.began
        self.under_way += 1
        self.stats.most = max(self.stats.most, self.under_way)
        try:
            if self.under_way > self.limit or self.burst[0] <= since < self.burst[1]:
                return self._fault("429", body, writer)
            if self.latency:
                await asyncio.sleep(self.latency)
            kind = self._drawn()
            if kind == "hang":
                self.stats.faults["hang"] = self.stats.faults.get("hang", 0) + 1
                await asyncio.sleep(3600)
            if kind:
                return self._fault(kind, body, writer)
            if self.logprobs == "refuse" and "logprobs" in json.loads(body):
                self._write(writer, 400, b'{"error": {"message": "logprobs are not supported"}}')
                return True
            odd = self._odd(body)
            if odd in _BYTES:
                writer.write(_BYTES[odd])
                return False
            self._write(writer, 200, self._completion(body) if not odd else self._odd_reply(odd, body))
            return True
        finally:
            self.under_way -= 1

    def _drawn(self) -> str:
        at = self.rng.random()
        for kind, share in self.faults.items():
            at -= share
            if at < 0:
                return kind
        return ""

    def _odd(self, body: bytes) -> str:
        """Which odd reply this request gets this time, if any."""
        digest = hashlib.sha256(body).digest()
        self.times[digest] += 1
        if self.replies.keys() == {"judge-only-reasoning"}:
            asked = json.loads(body)
            return "only-reasoning" if asked["temperature"] == 0 and asked["max_tokens"] < 1000 else ""
        for kind, at in (("always-", 0), ("", self.times[digest])):
            drawn = random.Random(digest + bytes(str(at), "ascii")).random()
            for name, share in self.replies.items():
                if name.startswith("always-") == bool(kind):
                    drawn -= share
                    if drawn < 0:
                        self.stats.faults[name] = self.stats.faults.get(name, 0) + 1
                        return name.removeprefix("always-")
        return ""

    def _odd_reply(self, kind: str, body: bytes) -> bytes:
        answer = json.loads(self._completion(body))
        choice = answer["choices"][0]
        message, text = choice["message"], choice["message"]["content"]
        if kind in _SHOWN:
            message["content"] = _SHOWN[kind].replace("{}", text)
        elif kind in _ENDED:
            message["content"], choice["finish_reason"] = _ENDED[kind], kind
        elif kind == "no-choices":
            answer["choices"] = []
        elif kind == "error-inside":
            message["content"], choice["error"] = f"It is {HALF}", {"code": 502, "message": "upstream is gone"}
        elif kind == "only-error":
            answer = {"error": {"message": "no free GPU"}}
        elif kind == "only-reasoning":
            message |= {"content": "", "reasoning_content": f"{REASONING} this"}
            choice["finish_reason"] = "length"
        elif kind == "reasoning-beside":
            message["reasoning"] = f"{REASONING} this"
        elif kind == "parts":
            thought = {"type": "thinking", "thinking": [{"type": "text", "text": f"{REASONING} this"}]}
            message["content"] = [thought, {"type": "text", "text": text}]
        elif kind == "null":
            message["content"] = None
        elif kind == "huge-usage":
            answer["usage"] = {"prompt_tokens": 10**30, "completion_tokens": 10**30}
        return json.dumps(answer).encode()

    def _fault(self, kind: str, body: bytes, writer: asyncio.StreamWriter) -> bool:
        self.stats.faults[kind] = self.stats.faults.get(kind, 0) + 1
        if kind == "disconnect":
            return False
        if kind == "malformed":
            self._write(writer, 200, b"{not JSON")
            return True
        if kind == "truncated":
            writer.write(b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{"id"')
            return False
        wait = {"retry-after-ms": "50"} if kind == "429" else {}
        self._write(writer, int(kind), b'{"error": {"message": "scripted"}}', wait)
        return True

    def _completion(self, body: bytes) -> bytes:
        digest = hashlib.sha256(body).digest()
        self.stats.again += digest in self.answered
        self.answered.add(digest)
        self.stats.answered += 1
        asked = json.loads(body)
        messages = tuple(Message(message["role"], message["content"]) for message in asked["messages"])
        text = self.model._complete(CompletionRequest(messages, seed=asked["seed"])).text
        if self.broken is not None and self.broken.exists() and "Two responses" in messages[-1].content:
            text = "I would rather not compare them."
        message = {"role": "assistant", "content": text}
        answer: dict[str, Any] = {"id": "1", "object": "chat.completion", "created": 0, "model": asked["model"]}
        answer["choices"] = [{"index": 0, "message": message, "finish_reason": "stop"}]
        if asked.get("logprobs") and self.logprobs == "give":
            answer["choices"][0]["logprobs"] = {"content": [_first_token(text, asked["top_logprobs"])]}
        answer["usage"] = {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30}
        return json.dumps(answer).encode()

    @staticmethod
    def _write(writer: asyncio.StreamWriter, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        lines = [f"HTTP/1.1 {status} X", "content-type: application/json", f"content-length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)


def _first_token(text: str, most: int) -> dict[str, Any]:
    """The letter that a judge's answer names has probability 0.8, the other one 0.1; both 0.45 where it is unclear."""
    named = next((letter for letter in "AB" if f'"{letter}"' in text), "")
    chances = {letter: 0.45 if not named else 0.8 if letter == named else 0.1 for letter in "AB"} | {"The": 0.1}
    top = [{"token": token, "logprob": math.log(chance), "bytes": None} for token, chance in chances.items()]
    return {"token": named or "The", "logprob": -0.2, "bytes": None, "top_logprobs": top[:most]}


@contextmanager
def fake_endpoint(
    latency: float = 0.0,
    limit: int = 10**6,
    faults: Faults | None = None,
    burst: tuple[float, float] = (0.0, 0.0),
    port: int = 0,
    logprobs: str = "none",
    broken: Path | None = None,
    replies: Faults | None = None,
) -> Iterator[str]:
    """Start the server in a thread of its own; yields its address, which ends in /v1."""
    server = Server(latency, limit, faults or {}, burst, logprobs, replies)
    server.broken = broken
    addresses: Queue[str] = Queue()
    ending: Queue[Callable[[], object]] = Queue()

    async def serve() -> None:
        end = asyncio.Event()
        loop = asyncio.get_running_loop()
        ending.put(lambda: loop.call_soon_threadsafe(end.set))
        listening = await server.listen(port)
        addresses.put(_address(listening))
        await end.wait()
        listening.close()

    thread = threading.Thread(target=asyncio.run, args=(serve(),), name="fake-endpoint")
    thread.start()
    try:
        yield addresses.get(timeout=60)
    finally:
        ending.get()()
        thread.join()


@contextmanager
def endpoint_process(latency: float, limit: int, burst: tuple[float, float]) -> Iterator[str]:
    """The same in a process of its own, for measurements of the one that asks."""
    command = [sys.executable, "-m", "tests.fake_endpoint", "--latency", str(latency), "--limit", str(limit)]
    command += ["--burst", f"{burst[0]},{burst[1]}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=_environment()) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def stats(address: str) -> dict[str, Any]:
    """What the server saw so far, and `seconds` since its first request."""
    with urlopen(address.removesuffix("/v1") + "/stats", timeout=30) as answer:
        seen: dict[str, Any] = json.load(answer)
    return seen


def _environment() -> dict[str, str]:
    import os

    path = os.pathsep.join([str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path}


def _address(listening: asyncio.Server) -> str:
    return f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"


async def _main(server: Server, port: int) -> None:
    listening = await server.listen(port)
    print(_address(listening), flush=True)
    async with listening:
        await listening.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--limit", type=int, default=10**6)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--faults", default="")
    parser.add_argument("--burst", default="0,0")
    parser.add_argument("--logprobs", default="none")
    parser.add_argument("--broken", type=Path)
    parser.add_argument("--replies", default="")
    given = parser.parse_args()
    faults, replies = (
        {kind: float(share) for kind, share in (part.split("=") for part in each.split(",") if part)}
        for each in (given.faults, given.replies)
    )
    first, last = map(float, given.burst.split(","))
    server = Server(given.latency, given.limit, faults, (first, last), given.logprobs, replies)
    server.broken = given.broken
    asyncio.run(_main(server, given.port))
