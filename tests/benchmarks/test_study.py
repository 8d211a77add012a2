"""Simulated people take part in a study through its pages while the server is killed; the benchmark has 200 of them."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import study
from benchmarks.study import SimulatedClient, coverage, run, simulated_config
from fspo.study.material import load_material
from fspo.study.simulated import Rater, TextTraits
from tests import preloaded
from tests.study.site import opened_site


def test_every_vote_counts_once_although_the_server_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forked(command: list[str], cwd: Path) -> Any:
        return preloaded.start(*command[2:], env=os.environ, cwd=cwd)

    monkeypatch.setattr(study, "subprocess", SimpleNamespace(Popen=forked))
    config = simulated_config(tmp_path / "study", labels=2, comparisons=2)
    kinds = ["attentive"] * 6 + ["always-left", "careless"]
    found = run(config, kinds, kills=1, seed=0, pause=(0.1, 0.2), leaving=0.0)
    assert (found["lost"], found["doubled"], found["wrong"]) == (0, 0, 0)
    assert found["participants"] == found["finished"] == 8
    assert found["votes"] == 8 * (1 + 4 + 4)
    assert found["kills"] == 1 and found["repeated_votes"] > 0
    assert found["always_left"] == 0.5
    assert 0 < found["truth"] < 1 and found["win_rate"]["items"] <= 8 * 2


class _Habit(random.Random):
    """Somebody who always sends an old form after a vote, with the other choice."""

    def random(self) -> float:
        return 0.12

    def choice(self, seq: Any) -> Any:
        return "2" if seq == "120" else seq[0]


def test_an_old_form_is_not_the_one_whose_vote_was_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = []
    with opened_site(tmp_path) as site:
        person = site.person().begin()

        async def request(_: SimulatedClient, method: str, path: str, **sent: Mapping[str, str]) -> Any:
            if path == "/vote" and not lost:
                lost.append(path)
                return None
            return person.client.request(method, path, data=sent.get("data"))

        monkeypatch.setattr(SimulatedClient, "_request", request)
        texts = TextTraits(site.config, load_material(site.config))
        client = SimulatedClient("ann", Rater("always-left", votes=2), texts, "http://study", _Habit())
        asyncio.run(client.take_part())
        kept = {row.id: row.choice for row in site.store.records("small").items if row.choice}
        assert lost and kept == client.choices and set(kept.values()) == {"first"}


def test_coverage_is_measured_against_the_truth_of_many_studies(tmp_path: Path) -> None:
    found = coverage(simulated_config(tmp_path, labels=4, comparisons=6), studies=4, people=10)
    personal, neither = found["personal"], found["no_difference"]
    assert personal["truth"] - neither["truth"] > 0.05 and abs(neither["truth"] - 0.5) < 0.05
    assert 0 <= neither["significant"] <= personal["significant"] <= 1
