"""An endpoint that is real: transformers' own server with the built-in model, over HTTP."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from fspo.errors import FspoError
from fspo.llm.cache import RequestCache
from fspo.llm.endpoint import Endpoint, EndpointConfig
from fspo.llm.types import CompletionRequest, Message
from fspo.modeling.builtin_model import obtain
from tests.preloaded import Program, start

for package in ("aiohttp", "fastapi", "uvicorn"):
    pytest.importorskip(package)
pytestmark = [pytest.mark.builtin_model, pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def model() -> str:
    return str(obtain())


@pytest.fixture(scope="module")
def address(model: str) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    serve = "from transformers.cli.transformers import main; main()"
    options = ["serve", model, "--device", "cpu", "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    process = start("-c", serve, *options, env=environment)
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", process)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait()


def _wait_for(url: str, process: Program | subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urlopen(url, timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.5)
    raise AssertionError("The server did not start.")


def request(text: str, temperature: float = 0.0) -> CompletionRequest:
    return CompletionRequest((Message("user", text),), max_tokens=12, temperature=temperature)


def test_it_answers_counts_and_is_asked_once(address: str, model: str, tmp_path: Path) -> None:
    cache = RequestCache(tmp_path / "answers.sqlite")
    config = EndpointConfig(base_url=address, model=model, requests_in_flight=2)
    asked = [request("What is the capital of France?"), request("Name a colour.", 1.0)]
    first = Endpoint(config, cache).complete(asked)
    assert "Paris" in first[0].text
    assert all(0 < answer.tokens <= 12 for answer in first)
    spent = cache.spent()
    assert spent.requests == 2
    assert spent.prompt_tokens > 20
    again = Endpoint(config, cache)
    assert again.complete(asked) == first
    assert again.reused == 2


def test_a_name_it_does_not_know_is_told(address: str) -> None:
    other = Endpoint(EndpointConfig(base_url=address, model="no-such-model", retries=0))
    with pytest.raises(FspoError) as caught:
        other.complete([request("Hello?")])
    assert "\n" not in str(caught.value)
