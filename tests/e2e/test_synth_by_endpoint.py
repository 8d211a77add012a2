"""The configuration for an endpoint, by the real program over HTTP; its amounts are cut down, its stages are not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT, run
from tests.fake_endpoint import fake_endpoint, stats

pytest.importorskip("aiohttp")

SIZES = {"questions": 40, "responses": 4, "pairs": 24, "shared_pairs": 8, "meaning": "false", "augment_rounds": 2}


def test_the_configuration_for_an_endpoint_runs_and_asks_nothing_twice(tmp_path: Path) -> None:
    output = tmp_path / "run"
    with fake_endpoint() as address:
        endpoint = {"base_url": address, "model": "scripted"}
        member = f"{{endpoint: {{base_url: '{address}', model: another}}, temperature: 1.2}}"
        settings = [f"endpoint.{key}={value}" for key, value in endpoint.items()]
        settings += [f"synthesis.{key}={value}" for key, value in SIZES.items()]
        settings.append(f"ensemble=[{member}, {member.replace('1.2', '0.7').replace('another', 'scripted')}]")
        sets = [word for setting in settings for word in ("--set", setting)]
        command = ["synth", ROOT / "configs/elix-easy-endpoint.yaml", "--output", output, *sets]
        done = run(*command)
        assert "5 users are in" in done.stdout
        seen = stats(address)
        assert seen["answered"] > 300
        run(*command)
        assert stats(address)["answered"] == seen["answered"]
    checks = json.loads((output / "data/checks.json").read_text())
    models = checks["sampling"]["models"]
    assert len(models) == 2 and all(" at T=" in model for model in models)
    assert (output / "data/views.jsonl").is_file()
    assert checks["labels"]["order"]["agreement"] > 0.9
    card = (output / "data/README.md").read_text()
    assert "viewpoints" in card
    assert "127.0.0.1" not in card
