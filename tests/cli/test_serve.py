"""`fspo serve`, and a policy in memory behind the API."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from fspo.cli import serve
from fspo.cli.main import app
from fspo.modeling.model_names import POLICY_FILE
from fspo.modeling.policy import Policy
from fspo.preferences.types import Turn
from fspo.serving.api import ServerSettings, create_app
from fspo.serving.engines.local import LocalEngine
from fspo.serving.listening import bound
from fspo.serving.store import Store
from tests.fake_endpoint import fake_endpoint, stats

pytestmark = pytest.mark.usefixtures("migrated_stores")


def test_a_dry_run_loads_the_policy_and_the_store(speaking_model_path: Path, tmp_path: Path) -> None:
    arguments = [
        "serve",
        "--policy",
        str(speaking_model_path),
        "--store",
        str(tmp_path / "store"),
        "--dry-run",
        "--port=0",
    ]
    output = CliRunner().invoke(app, arguments).output
    assert "for 0 users" in output and "create a store" in output
    assert not (tmp_path / "store").exists()
    store = Store.open(tmp_path / "store")
    store.add_user("ann")
    store.close()
    output = CliRunner().invoke(app, arguments).output
    assert "for 1 user." in output and "create" not in output and "change" not in output
    file = tmp_path / "file"
    file.write_text("not a store")
    wrong = [
        (["--rate", "often"], 2),
        (["--request-rate", "often"], 2),
        (["--policy", str(tmp_path)], 1),
        (["--guidance", "nan"], 2),
        (["--guidance", "inf"], 2),
        (["--memory", "nan"], 2),
        (["--memory", "inf"], 2),
        (["--memory", "1e300"], 2),
        (["--store", str(file / "store")], 1),
        (["--store", "/proc/nope"], 1),
    ]
    for change, code in wrong:
        found = CliRunner().invoke(app, arguments + change)
        assert found.exit_code == code and "Error" in found.output, change
    (tmp_path / "store" / "store.sqlite").write_bytes(b"damaged " * 1000)
    assert CliRunner().invoke(app, arguments).exit_code == 1


def test_a_dry_run_asks_the_other_server_for_both_models_and_makes_no_store(tmp_path: Path) -> None:
    def dry_run(address: str, *more: str) -> Any:
        store = ["--store", str(tmp_path / "store"), "--port=0"]
        found = CliRunner().invoke(app, ["serve", "--dry-run", "--upstream", address, "--model", "m", *store, *more])
        assert not (tmp_path / "store").exists()
        return found

    with fake_endpoint() as address:
        found = dry_run(address, "--adapter", "another")
        assert found.exit_code == 0 and "another and m" in found.output, found.output
        assert stats(address)["came"] == 0, "the list of models says it"
    found = dry_run(address)
    assert found.exit_code == 1 and address.removesuffix("/v1") in found.output and "reached" in found.output
    assert "kept" not in found.output, "a server has nothing to keep"
    found = dry_run("127.0.0.1:9")
    assert found.exit_code == 2 and "http://" in found.output and ".." not in found.output
    for wrong in (("http://me:secret@127.0.0.1:9/v1",), (address, "--key-variable", "not a name")):
        found = dry_run(*wrong)
        assert found.exit_code == 2 and "--key-variable" in found.output, found.output
        assert "key_variable" not in found.output and "base_url" not in found.output and "secret" not in found.output
    with fake_endpoint(faults={"401": 1.0}) as address:
        found = dry_run(address, "--adapter", "not-listed")
    assert found.exit_code == 2 and "--key-variable" in found.output


def test_a_demo_without_its_policy_says_that_the_model_is_untrained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    loaded: list[str | None] = []
    monkeypatch.setattr(serve, "_policy", lambda place, *_: loaded.append(place))
    monkeypatch.setattr(serve._EngineOptions, "check", lambda _: None)

    def dry_run(*more: str) -> str:
        found = CliRunner().invoke(app, ["serve", "--demo", "--dry-run", "--port=0", *more])
        assert found.exit_code == 0, found.output
        return str(found.output)

    said = dry_run()
    assert "runs/demo" in said and f"untrained model {loaded[0]}" in said and "make demo" in said
    assert "untrained" not in dry_run("--policy", "m")
    policy = Path("runs/demo/methods/fspo") / POLICY_FILE
    policy.parent.mkdir(parents=True)
    policy.touch()
    assert "untrained" not in dry_run() and loaded[-1] == str(policy.parent)


def test_a_demo_leaves_the_store_of_the_environment_alone(
    speaking_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FSPO_STORE", str(tmp_path / "usual"))
    arguments = ["serve", "--policy", str(speaking_model_path), "--dry-run", "--port=0"]

    def dry_run(*more: str) -> str:
        found = CliRunner().invoke(app, [*arguments, *more])
        assert found.exit_code == 0, found.output
        return " ".join(found.output.split())

    assert f"create a store in {tmp_path / 'usual'}" in dry_run()
    assert "create a store in a temporary folder" in dry_run("--demo")
    for place in ("usual", "other"):
        assert f"create a store in {tmp_path / place}" in dry_run("--demo", "--store", str(tmp_path / place))


def test_a_wrong_limit_of_requests_is_named_before_a_store_is_made(tmp_path: Path) -> None:
    arguments = ["serve", "--policy", "none", "--store", str(tmp_path / "store"), "--port=0", "--rate", "often"]
    assert CliRunner().invoke(app, arguments).exit_code == 2 and not (tmp_path / "store").exists()


def test_a_port_in_use_is_named_before_anything_is_made(tmp_path: Path) -> None:
    arguments = ["serve", "--policy", str(tmp_path / "no-policy"), "--store", str(tmp_path / "store")]
    with bound("127.0.0.1", 0) as other:
        other.listen()
        port = str(other.getsockname()[1])
        for more in ([], ["--dry-run"]):
            found = CliRunner().invoke(app, [*arguments, "--port", port, *more])
            assert (found.exit_code, found.output.count(port)) == (2, 1)
    assert not (tmp_path / "store").exists()


def test_a_model_that_was_not_trained_is_shown_preferences_as_a_conversation(speaking_model_path: Path) -> None:
    loaded = serve._policy(str(speaking_model_path), "float32", None)
    assert loaded is not None and loaded.renderer.layout == "conversation"


def test_a_policy_in_memory_answers_with_the_shots_of_the_key(speaking_model_path: Path, tmp_path: Path) -> None:
    store, policy = Store.open(tmp_path / "store"), Policy.load(speaking_model_path)
    store.add_user("ann")
    ann = store.user_named("ann")
    for number in range(3):
        store.add_preference(ann, (Turn("user", f"Question {number}?"),), "A calm one.", "A loud one.")
    headers = {"authorization": f"Bearer {store.add_key(ann).key}"}
    body: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 6, "seed": 1}
    with TestClient(create_app(store, LocalEngine(policy)), headers=headers) as http:
        first, again = (
            http.post("/v1/chat/completions", json={**body, "model": "fspo", "fspo": {"shots": True}}).json()
            for _ in range(2)
        )
        base = http.post("/v1/chat/completions", json={**body, "model": "base"}).json()
        too_long = {**body, "model": "fspo", "messages": [{"role": "user", "content": "many words " * 2_500}]}
        refused = http.post("/v1/chat/completions", json=too_long)
        http.delete("/v1/preferences")
        after = http.post("/v1/chat/completions", json={**body, "model": "fspo"}).json()
    assert first["choices"] == again["choices"] and len(first["fspo"]["shots"]) == 3
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
    assert base["usage"]["prompt_tokens"] < first["usage"]["prompt_tokens"]
    assert after["usage"]["prompt_tokens"] < first["usage"]["prompt_tokens"]
    assert refused.status_code == 400 and refused.json()["error"]["message"]
    store.close()


@pytest.mark.parametrize(("reads", "longest"), [(60, 30), (4096, 512), (None, 512)])
def test_an_answer_without_a_limit_leaves_room_for_its_prompt(
    tiny_model_path: Path, reads: int | None, longest: int
) -> None:
    policy = Policy.load(tiny_model_path)
    policy.renderer.max_length = reads
    assert serve._longest_answer(policy) == longest and serve._longest_answer(None) == 512


def test_what_was_read_of_a_user_is_dropped_when_another_program_deletes_them(
    speaking_model_path: Path, tmp_path: Path
) -> None:
    store, engine = Store.open(tmp_path / "store"), LocalEngine(Policy.load(speaking_model_path))
    for name in ("ann", "bob"):
        store.add_user(name)
        store.add_preference(store.user_named(name), (Turn("user", "A drink?"),), "A calm one.", "A loud one.")
    keys = [store.add_key(store.user_named(name)).key for name in ("ann", "bob")]
    body = {"model": "fspo", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2, "seed": 1}
    with TestClient(create_app(store, engine, ServerSettings(look_seconds=0.05))) as http:

        def ask(key: str) -> Any:
            answer = http.post("/v1/chat/completions", json=body, headers={"authorization": f"Bearer {key}"})
            return answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"] if answer.is_success else None

        assert [ask(key) for key in keys] == [0, 0] and engine.counts.trunks == 2
        arguments = ["users", "delete", "ann", "--yes", "--store", str(tmp_path / "store")]
        assert CliRunner().invoke(app, arguments).exit_code == 0
        while engine.counts.trunks == 2:
            time.sleep(0.02)
        assert engine.counts.trunks == 1 and ask(keys[0]) is None and ask(keys[1]) > 0
        other = Store.open(tmp_path / "store")
        other.remove_preferences(other.user_named("bob"))
        other.close()
        while engine.counts.trunks:
            time.sleep(0.02)
    store.close()
