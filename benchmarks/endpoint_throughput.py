"""How near `fspo.llm.endpoint` comes to what a server can take, and how soon after a burst of refusals.

    python -m benchmarks.endpoint_throughput --out docs/results/endpoint_throughput     # about two minutes

The server (`tests.fake_endpoint`, a process of its own, real HTTP on loopback) takes 300 ms for an answer and refuses
what is above 200 requests at once with status 429, so that it gives 667 answers a second at most. Requests come as a
stream, as they do in a synthesis, and every answer goes into the cache.

    steady     the client knows the limit; `share` is that of the server's best over all requests, start and end
               included, `sustained` over the middle four fifths of the time
    unknown    the client may ask 400 at once and has to find the limit by itself
    burst      for three seconds everything is refused; `recovered_after` is how many seconds after its end the rate of
               a second was at 90% of the server's best again

`cpu_share` is the processor time of the client over the time of the clock: what is left is waiting.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fspo.files import write_json
from fspo.llm.cache import RequestCache
from fspo.llm.endpoint import Endpoint, EndpointConfig
from fspo.llm.types import CompletionRequest, Message
from tests.fake_endpoint import endpoint_process, stats

__all__ = ["main", "measure"]

_EVERY = 0.25
"""Seconds between two looks at what the server has answered."""
_ENOUGH = 0.9


def measure(
    latency: float, limit: int, count: int, in_flight: int, burst: tuple[float, float] = (0.0, 0.0)
) -> dict[str, Any]:
    """Ask `count` requests; see the module.

    Returns:
        Figures; seconds and answers a second.
    """
    best = limit / latency
    with tempfile.TemporaryDirectory() as scratch, endpoint_process(latency, limit, burst) as address:
        settings = {"base_url": address, "model": "m", "requests_in_flight": in_flight}
        config = EndpointConfig.model_validate(settings)
        endpoint = Endpoint(config, RequestCache(Path(scratch) / "answers.sqlite"))
        endpoint.complete([_request(-1)])  # imports, and the first connection
        began, cpu = time.perf_counter(), time.process_time()
        with _watched(address) as rows:
            done = sum(1 for _ in endpoint.stream(map(_request, range(count)), 8 * in_flight))
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        seen = stats(address)
    figures = {
        "requests": done,
        "seconds": round(seconds, 2),
        "per_second": round(done / seconds, 1),
        "share": round(done / seconds / best, 4),
        "sustained": round(_sustained(rows) / best, 4),
        "most_at_once": seen["most"],
        "refused": seen["faults"].get("429", 0),
        "asked_again_after_an_answer": seen["again"],
        "cpu_share": round(cpu / seconds, 3),
    }
    if burst[1]:
        figures["recovered_after"] = _recovered(rows, best, burst[1])
    return figures


class _watched:
    """Looks at the server now and then: rows of seconds since the first request, and answers until then."""

    def __init__(self, address: str) -> None:
        self._address, self._over = address, threading.Event()
        self.rows: list[tuple[float, int]] = []

    def __enter__(self) -> list[tuple[float, int]]:
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self.rows

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(_EVERY):
            seen = stats(self._address)
            self.rows.append((seen["seconds"], seen["answered"]))


def _sustained(rows: list[tuple[float, int]]) -> float:
    """Answers a second without the first and the last tenth of the time; NaN where that was not looked at."""
    middle = [row for row in rows if 0.1 * rows[-1][0] <= row[0] <= 0.9 * rows[-1][0]]
    if len(middle) < 2:
        return math.nan
    (first, before), (last, after) = middle[0], middle[-1]
    return (after - before) / (last - first)


def _recovered(rows: list[tuple[float, int]], best: float, end: float) -> float | None:
    """Seconds from `end` to the first second at nearly the best rate; None if there was none."""
    width = round(1 / _EVERY)
    for (first, before), (last, after) in zip(rows, rows[width:], strict=False):
        if first >= end and (after - before) / (last - first) >= _ENOUGH * best:
            return round(first - end, 2)
    return None


def _request(number: int) -> CompletionRequest:
    return CompletionRequest((Message("user", f"What is there to say about the number {number}?"),), seed=0)


def _rows(given: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    best = given.limit / given.latency
    count = round(best * given.seconds)
    yield "steady", measure(given.latency, given.limit, count, given.limit)
    yield "unknown", measure(given.latency, given.limit, count, 2 * given.limit)
    start = given.seconds / 6
    yield "burst", measure(given.latency, given.limit, count, given.limit, (start, start + 3))


def main(arguments: list[str] | None = None) -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency", type=float, default=0.3, help="seconds")
    parser.add_argument("--limit", type=int, default=200, help="requests at once")
    parser.add_argument("--seconds", type=float, default=45.0, help="that the requests of a row take at best")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    figures: dict[str, Any] = {
        "latency": given.latency,
        "limit": given.limit,
        "best_per_second": round(given.limit / given.latency, 1),
        **dict(_rows(given)),
        "machine": {"processors": os.cpu_count(), "python": platform.python_version(), "system": platform.system()},
        "command": f"python -m benchmarks.endpoint_throughput --latency {given.latency} --limit {given.limit} "
        f"--seconds {given.seconds}",
    }
    if given.out:
        write_json(given.out / "endpoint_throughput.json", figures)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
