"""The configuration for an endpoint against a server that sends every kind of odd reply, by the real program."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fspo.llm.replies import CONTROL
from fspo.preferences.dataset import PreferenceDataset
from tests.e2e.conftest import ROOT, run
from tests.fake_endpoint import HALF, REASONING, REPLIES, fake_endpoint, stats

pytest.importorskip("aiohttp")
pytestmark = pytest.mark.timeout(300)

SIZES = {
    "questions": 60,
    "responses": 6,
    "pairs": 40,
    "shared_pairs": 12,
    "meaning": "false",
    "augment_rounds": 12,
    "refinement": "{rounds: 1, pairs: 4}",
}
SHORT_PAUSES = "import fspo.llm.endpoint\nfspo.llm.endpoint._SHORTEST = 0.01\n"
"""Before a request is repeated."""
FEW = {"questions": 12, "responses": 4, "pairs": 8, "shared_pairs": 4, "augment_rounds": 2, "refinement": "null"}
"""Sizes for a test in which every judgement fails at first."""
SHARES = dict.fromkeys(REPLIES, 0.9 / len(REPLIES)) | {"always-no-choices": 0.02}
"""Nine tenths of all replies are odd, each kind equally often, and a few requests are never answered."""


def synthesized(output: Path, address: str, *more: str, options: tuple[str, ...] = (), code: int = 0) -> str:
    settings = [f"synthesis.{key}={value}" for key, value in SIZES.items()]
    settings += [f"endpoint.base_url={address}", "endpoint.model=scripted", *more]
    sets = [word for setting in settings for word in ("--set", setting)]
    words = [ROOT / "configs/elix-easy-endpoint.yaml", "--output", output, *sets, *options]
    done = run("synth", *words, code=code, first=SHORT_PAUSES)
    return " ".join((done.stdout + done.stderr).split())


KINDS = {
    "orphan": "reasoning cut off",
    "channels": "reasoning cut off",
    "control": "cut at a control token",
    "only-reasoning": "only reasoning",
    "content_filter": "withheld by a filter",
    "error": "half an answer",
    "only-error": "an error in place of an answer",
    "no-choices": "no answer in it",
    "chunks": "not readable",
}
"""Kind of reply -> what it is counted under."""


def test_odd_replies_are_counted_and_none_of_them_gets_into_the_data(tmp_path: Path) -> None:
    output = tmp_path / "run"
    with fake_endpoint(replies=SHARES) as address:
        said = synthesized(output, address, "endpoint.retries=2")
        seen = stats(address)
    assert "5 users are in" in said
    assert set(seen["faults"]) >= SHARES.keys()
    for path in (output / "data").rglob("*"):
        if path.suffix in (".json", ".jsonl", ".md"):
            text = path.read_text()
            assert REASONING not in text and HALF not in text, path
            assert not CONTROL.search(text), path
    for row in PreferenceDataset.load(output / "data"):
        for text in (row.prompt, row.chosen, row.rejected):
            assert REASONING not in text and HALF not in text and not CONTROL.search(text)
    checks = json.loads((output / "data/checks.json").read_text())
    card = (output / "data/README.md").read_text()
    for kind in {*KINDS.values(), "failed requests"}:
        count = checks["replies"][kind]
        assert count > 0
        assert f"{kind} {count:,}" in card
        assert kind in said
    assert checks["counts"]["preferences"] > 50
    assert checks["sampling"]["rejected"]["failed at the endpoint"] > 0
    assert checks["labels"]["undecided"]["failed"] > 0


def test_a_judge_that_only_reasons_is_one_sentence_and_more_tokens_make_the_data(tmp_path: Path) -> None:
    output = tmp_path / "run"
    few = [f"synthesis.{key}={value}" for key, value in FEW.items()]
    with fake_endpoint(replies={"judge-only-reasoning": 1.0}) as address:
        said = synthesized(output, address, *few, code=1)
        assert "used up by reasoning" in said
        assert "synthesis.judge_max_tokens, which is 48" in said
        before = stats(address)["came"]
        more, overwrite = "synthesis.judge_max_tokens=2000", ("--on-existing", "overwrite")
        assert "5 users are in" in synthesized(output, address, *few, more, options=overwrite)
        assert stats(address)["came"] > before
