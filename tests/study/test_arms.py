"""Arms on a server: the labels go as turns of a conversation, and only with the personalised arm."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fspo.errors import ConfigError
from fspo.files import write_json
from fspo.modeling.policy import Policy
from fspo.study.app import create_study_app
from fspo.study.arms import check_shots, layout_notes, load_models, open_engines, weights_of_arms
from fspo.study.store import StudyStore
from tests.serving.engines.streaming_server import StreamingServer, chunk, streaming_server
from tests.study.site import ScriptedEngine, StudySite, study_config


@contextmanager
def served_elsewhere(**settings: Any) -> Iterator[StreamingServer]:
    """The server in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server = streaming_server(**settings)
    try:
        yield asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result(20)
    finally:
        asyncio.run_coroutine_threadsafe(server.__aexit__(None, None, None), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_a_study_with_arms_on_a_server(tmp_path: Path) -> None:
    events = [chunk("An answer "), chunk("from elsewhere.", "stop"), "[DONE]"]
    store = StudyStore.open(tmp_path / "store")
    with served_elsewhere(events=events) as server:
        arms = {
            name: {
                "endpoint": {"base_url": server.address, "model": f"model-{name}"},
                "personalised": name == "personal",
                "cache_salt": name == "base",
            }
            for name in ("personal", "base")
        }
        config = study_config(tmp_path, arms=arms)
        assert weights_of_arms(config) == {"personal": None, "base": None}
        site = StudySite(config, store, ScriptedEngine())
        site.app = create_study_app(config, site.material, store, open_engines(config, load_models(config)))
        with site.running():
            person = site.person().finish()
            assert person.heading == "Thank you" and server.address not in str(person.received)
    by_model = {name: [body for body in server.bodies if body["model"] == f"model-{name}"] for name in arms}
    assert len(by_model["personal"]) == len(by_model["base"]) == 4
    for body in by_model["personal"]:
        assert [message["role"] for message in body["messages"]] == ["user", "assistant"] * 3 + ["user"]
        assert "cache_salt" not in body
    for body in by_model["base"]:
        assert len(body["messages"]) == 1 and body["cache_salt"]
    compared = [item for item in store.records("small").items if item.arms]
    assert {item.first for item in compared} == {"An answer from elsewhere."}
    store.close()


def test_an_arm_in_another_layout_than_its_policy_was_trained_in_is_named(tmp_path: Path) -> None:
    policy = tmp_path / "policy"
    policy.mkdir()
    details = {"context": "shots", "training": {"layout": "conversation"}}
    write_json(policy / "policy.json", {"base": "m", "adapters": [], "details": details})

    def notes(**arm: Any) -> list[str]:
        arms = {"own": {"policy": str(policy), **arm}, "base": {"policy": str(policy), "personalised": False}}
        return layout_notes(study_config(tmp_path, arms=arms))

    assert notes() == notes(layout="conversation") == []
    (note,) = notes(layout="labelled")
    assert "The arm 'own': " in note and "trained with shots in the layout 'conversation'" in note


def test_a_policy_that_reads_fewer_labels_than_the_study_asks_for_is_refused(
    tmp_path: Path, tiny_model_path: Path
) -> None:
    config = study_config(tmp_path)
    personal, base = config.arms

    def check(reads: int, *shots: int) -> None:
        policy = Policy.load(tiny_model_path, shots=reads)
        asked_for = config.comparisons.model_copy(update={"shots": shots})
        check_shots(config.model_copy(update={"comparisons": asked_for}), {personal: policy, base: policy})

    for reads, shots in ((3, ()), (2, (1, 2)), (0, ())):  # none at all: a policy that is not for the single person
        check(reads, *shots)
    for reads, shots in ((2, ()), (2, (1, 3))):
        with pytest.raises(ConfigError, match=rf"'{personal}'.*{reads} shots.*{max(shots or (3,))} labels"):
            check(reads, *shots)
