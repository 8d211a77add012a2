"""`fspo serve` as a program, from its start to its end by a signal."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import openai
import pytest
from typer.testing import CliRunner

from fspo.cli.main import app
from fspo.serving.api import create_app
from fspo.serving.store import Store
from tests.serving.echo import EchoEngine, served
from tests.serving.program import serving

pytestmark = pytest.mark.usefixtures("migrated_stores")


def client(folder: Path, address: str) -> openai.OpenAI:
    store = Store.open(folder / "store")
    store.add_user("ann")
    key = store.add_key(store.user_named("ann")).key
    store.close()
    return openai.OpenAI(base_url=address, api_key=key, max_retries=0, timeout=60)


def test_a_signal_ends_the_server_and_no_acknowledged_preference_is_lost(
    speaking_model_path: Path, tmp_path: Path
) -> None:
    acknowledged: list[str] = []
    with serving(tmp_path, "--policy", speaking_model_path, "--request-rate", "100000/minute") as (program, address):
        ann = client(tmp_path, address)

        def add() -> None:
            number = 0
            while True:
                body = {"prompt": f"Question {number}?", "chosen": "Calm.", "rejected": "Loud!"}
                try:
                    acknowledged.append(ann.post("/preferences", body=body, cast_to=object)["id"])  # type: ignore[index]
                except openai.APIConnectionError:
                    return
                number += 1

        answer = ann.chat.completions.create(
            model="fspo", messages=[{"role": "user", "content": "Hello"}], max_tokens=4, seed=1
        )
        assert answer.usage is not None and answer.usage.completion_tokens > 0
        adding = threading.Thread(target=add)
        adding.start()
        while len(acknowledged) < 3:
            time.sleep(0.01)
        program.send_signal(signal.SIGTERM)
        assert program.wait(30) == 0
        adding.join()
    store = Store.open(tmp_path / "store")
    kept = {stored.id for stored in store.preferences(store.user_named("ann"))}
    store.close()
    assert set(acknowledged) <= kept and len(acknowledged) >= 3


def test_another_server_answers_with_the_shots_and_gets_its_own_key(tmp_path: Path) -> None:
    engine, there = EchoEngine(), Store.open(tmp_path / "upstream")
    there.add_user("fspo")
    key = there.add_key(there.user_named("fspo")).key
    with served(create_app(there, engine)) as upstream:
        options = ("--upstream", upstream, "--model", "base", "--adapter", "fspo", "--key-variable", "OF_UPSTREAM")
        with serving(tmp_path, *options, "--no-cache-salt", "--shots", 1, OF_UPSTREAM=key) as (_, address):
            ann = client(tmp_path, address)
            for prompt, chosen in (("A drink?", "Tea."), ("A film?", "Calm.")):
                body = {"prompt": prompt, "chosen": chosen, "rejected": "Loud!"}
                ann.post("/preferences", body=body, cast_to=object)
            for model in ("fspo", "base"):
                ann.chat.completions.create(model=model, messages=[{"role": "user", "content": "A book?"}])
    there.close()
    personal, base = engine.requests
    assert personal.personalised and not base.personalised, "the adapter answers for fspo, and the model for base"
    assert "Calm." in str(personal.turns) and "Tea." not in str(personal.turns), "one shot is the most"
    assert "Calm." not in str(base.turns)
    assert key not in (tmp_path / "said.txt").read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        ((), 2, "--policy"),
        (("--policy", "m", "--dtype", "banana"), 2, "banana"),
        (("--model", "m"), 2, "--upstream"),
        (("--upstream", "http://127.0.0.1:1/v1"), 2, "--model"),
        (("--upstream", "nowhere", "--model", "m"), 2, "http://"),
        (("--upstream", "http://127.0.0.1:1/v1", "--model", "m", "--guidance", "2"), 2, "--guidance"),
        (("--upstream", "http://127.0.0.1:1/v1", "--model", "m", "--memory", "2"), 2, "--memory"),
        (("--upstream", "http://127.0.0.1:1/v1", "--model", "m", "--dtype", "bfloat16"), 2, "--dtype"),
        (("--policy", "m", "--no-cache-salt"), 2, "--upstream"),
        (("--upstream", "http://127.0.0.1:1/v1", "--model", "m", "--key-variable", "sk-" + "a1" * 20), 2, "variable"),
    ],
)
def test_impossible_options_are_refused(arguments: tuple[str, ...], code: int, word: str, tmp_path: Path) -> None:
    found = CliRunner().invoke(app, ["serve", "--port", "0", "--store", str(tmp_path / "store"), *arguments])
    assert found.exit_code == code and word in found.output and "a1a1" not in found.output


def test_nothing_is_created_where_nothing_is_named_to_serve(tmp_path: Path) -> None:
    assert CliRunner().invoke(app, ["serve", "--port", "0", "--store", str(tmp_path / "store")]).exit_code == 2
    assert not (tmp_path / "store").exists()


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        arguments = ["--upstream", "http://127.0.0.1:1/v1", "--model", "m", "--port", str(port)]
        found = CliRunner().invoke(app, ["serve", "--store", str(tmp_path / "store"), *arguments])
    assert found.exit_code == 2 and str(port) in found.output


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_request_of_the_demo_can_be_pasted(tmp_path: Path, speaking_model_path: Path) -> None:
    options = ("--demo", "--policy", speaking_model_path, "--max-tokens", 4)
    with serving(tmp_path, *options) as (_, address):
        said = (tmp_path / "said.txt").read_text()
        request = said[said.index("curl ") :].split("\n\n")[0]
        answer = json.loads(subprocess.run(["sh", "-c", request], capture_output=True, check=True).stdout)
        assert answer["usage"]["completion_tokens"] > 0 and address in request
        key = request.split("Bearer ")[1].split("'")[0]
        asked = openai.OpenAI(base_url=address, api_key=key).get("/next-question", cast_to=object)
        assert asked["gain"] > 0  # type: ignore[index]
