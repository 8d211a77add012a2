"""A judge that could not be read is asked again once its server is repaired, and nothing else is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.conftest import run
from tests.fake_endpoint import fake_endpoint, stats

pytest.importorskip("aiohttp")

SIZES = {"questions": 12, "responses": 4, "pairs": 8, "shared_pairs": 4, "meaning": "false", "augment_rounds": 2}


def test_what_could_not_be_read_is_asked_again_once_the_server_is_repaired(tmp_path: Path) -> None:
    output, broken = tmp_path / "run", tmp_path / "broken"
    broken.touch()
    with fake_endpoint(broken=broken) as address:
        settings = [f"endpoint.base_url={address}", "endpoint.model=m", "synthesis.steering=persona"]
        settings += [f"synthesis.{key}={value}" for key, value in SIZES.items()]
        sets = [word for setting in settings for word in ("--set", setting)]
        command = ["synth", "--domain", "elix-easy", "--output", output, *sets]
        said = run(*command, code=1).stderr
        assert "None of the judge's answers" in said and "--on-existing overwrite" in said
        seen = stats(address)["answered"]
        broken.unlink()
        assert "None of the judge's answers" in run(*command, code=1).stderr
        assert stats(address)["answered"] == seen  # not without being told to
        run(*command, "--on-existing", "overwrite")
        finished = stats(address)
        assert finished["again"] > 0
        unread = json.loads((output / "data/checks.json").read_text())["labels"]["undecided"].get("unreadable", 0)
        assert unread == 0
        run(*command, "--on-existing", "overwrite")
        assert stats(address)["answered"] == finished["answered"]  # what could be used is not paid for twice
