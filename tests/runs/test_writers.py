"""The language models of a run, and what is said of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from fspo.llm.types import CompletionRequest, Message
from fspo.progress import Silent
from fspo.runs.config import load_config
from fspo.runs.folder import RunFolder
from fspo.runs.writers import say_spent, writers_of
from tests.fake_endpoint import fake_endpoint


class Said(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def test_what_served_twice_in_a_first_call_is_not_called_from_before(tmp_path: Path) -> None:
    pytest.importorskip("openai")
    with fake_endpoint(latency=0.0, limit=4) as where:
        settings = ["synthesis={recipe: paper, domain: elix-easy}", f"endpoint={{base_url: '{where}', model: m}}"]
        folder, said = RunFolder(load_config(None, settings, tmp_path / "run")), Said()
        writers = writers_of(folder, Silent())
        for _ in range(2):
            writers.ask.complete([CompletionRequest((Message("user", "Hello"),), seed=seed) for seed in range(3)])
        say_spent(folder, writers, said)
    (line,) = said.lines
    assert " gave 3 answers in all calls of this run" in line
    assert line.endswith("; 3 requests were answered from what was kept.")
    assert "before" not in line
