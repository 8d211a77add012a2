"""The language models of a run, and what is said of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from fspo.files import read_json
from fspo.llm.ensemble import Ensemble
from fspo.llm.types import CompletionRequest, Message
from fspo.progress import Silent
from fspo.runs.config import load_config
from fspo.runs.folder import RunFolder
from fspo.runs.writers import SPENDING, endpoints_of, say_spent, writers_of
from tests.fake_endpoint import fake_endpoint, stats
from tests.progress_lines import Lines


def test_what_served_twice_in_a_first_call_is_not_called_from_before(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    with fake_endpoint(latency=0.0, limit=4) as where:
        settings = ["synthesis={domain: elix-easy}", f"endpoint={{base_url: '{where}', model: m}}"]
        folder, said = RunFolder(load_config(None, settings, tmp_path / "run")), Lines()
        endpoints = endpoints_of(folder, said)
        writers = writers_of(folder, endpoints)
        for _ in range(2):
            writers.ask.complete([CompletionRequest((Message("user", "Hello"),), seed=seed) for seed in range(3)])
        folder.path.mkdir(exist_ok=True)
        say_spent(folder, endpoints, said)
    (line,) = said.lines
    assert " gave 3 answers in all calls of this run" in line
    assert line.endswith("; 3 requests were answered from what was kept.")
    assert "before" not in line
    noted = read_json(folder.path / SPENDING)
    assert noted == {"answers.sqlite": {"model": "m", "requests": 3, "prompt_tokens": 60, "tokens": 30, "dollars": 0.0}}


def test_two_servers_that_call_their_models_the_same_are_two_also_after_they_moved(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    request = CompletionRequest((Message("user", "Hello"),), seed=1)

    def asked(*addresses: str) -> list[int]:
        """How many requests each server has answered."""
        members = ", ".join(f"{{endpoint: {{base_url: '{where}', model: default}}}}" for where in addresses)
        settings = ["synthesis={domain: elix-easy}", f"ensemble=[{members}]"]
        settings.append(f"endpoint={{base_url: '{addresses[0]}', model: default, timeout: 60}}")
        folder = RunFolder(load_config(None, settings, tmp_path / "run"))
        written = writers_of(folder, endpoints_of(folder, Silent())).write
        assert isinstance(written, Ensemble)
        for member in written.members:
            member.model.complete([request])
        return [stats(where)["answered"] for where in addresses]

    with fake_endpoint(latency=0.0, limit=4) as one, fake_endpoint(latency=0.0, limit=4) as other:
        assert asked(one, other) == [1, 1]
        assert asked(one, other) == [1, 1]  # kept
        assert asked(one, other, one) == [1, 1, 1]  # the same server twice
        with fake_endpoint(latency=0.0, limit=4) as moved:
            assert asked(one, moved) == [1, 0]
    files = sorted(path.name for path in (tmp_path / "run").glob("answers*.sqlite"))
    assert files == ["answers-default.2.sqlite", "answers.sqlite"]
