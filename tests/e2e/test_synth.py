"""`fspo synth` by the paper's recipe: against a server over HTTP with its faults, and on models of this machine."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from fspo.preferences.dataset import PreferenceDataset
from tests.e2e.conftest import run, start
from tests.fake_endpoint import fake_endpoint, stats
from tests.synthesis.helpers import write_domain

pytest.importorskip("aiohttp")
pytestmark = pytest.mark.timeout(600)

SIZES = ["questions=16", "pairs=9", "shared_pairs=5", "responses=4", "shard=3", "meaning=false", "batch=64"]


def arguments(address: str, output: Path, *more: str, domain: str) -> list[object]:
    """Everything on: views, portraits, refinement, bounds of disagreement, the pairwise judge."""
    settings = [f"synthesis.{size}" for size in (*SIZES, "steering=views", "portraits=true")]
    settings += [f"endpoint.base_url={address}", "endpoint.model=scripted", "endpoint.timeout=2", *more]
    settings += ["endpoint.requests_in_flight=16", "endpoint.retries=12"]
    return ["synth", "--domain", domain, "--output", output, *(word for s in settings for word in ("--set", s))]


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.slow
def test_with_faults_and_kills_the_data_are_the_same_and_nothing_is_asked_twice(tmp_path: Path) -> None:
    domain = str(write_domain(tmp_path / "mine"))
    with fake_endpoint() as address:
        done = run(*arguments(address, tmp_path / "quiet", domain=domain))
        assert "6 users are in" in done.stdout
        assert stats(address)["again"] == 0
    faults = {"429": 0.02, "500": 0.015, "malformed": 0.01, "truncated": 0.01, "disconnect": 0.01, "hang": 0.002}
    output = tmp_path / "rough"
    with fake_endpoint(latency=0.01, limit=12, faults=faults, port=int(urlsplit(address).port or 0)) as address:
        for files in ("data/begun.json", "data/questions.jsonl", "data/views.jsonl", "data/responses.jsonl"):
            kill_when(output / files, arguments(address, output, domain=domain))
        run(*arguments(address, output, domain=domain))
        seen = stats(address)
    told = {"checks.json", "README.md"}  # they count the replies that could not be used
    rough, quiet = digests(output / "data"), digests(tmp_path / "quiet" / "data")
    assert {name for name in quiet if rough.get(name) != quiet[name]} <= told and rough.keys() == quiet.keys()
    assert set(seen["faults"]) >= {"429", "500", "malformed", "truncated", "disconnect"}
    # A kill can lose what was answered and not yet written: at most what was under way.
    assert seen["again"] <= 4 * 16
    checks = json.loads((output / "data" / "checks.json").read_text())
    before = json.loads((tmp_path / "quiet/data/checks.json").read_text())
    assert checks.pop("replies").keys() >= {"not readable"} and not before.pop("replies")
    assert checks == before
    assert checks["refinement"]["sentences"] > 0
    assert checks["casting"]["made_anew"] > 0


def kill_when(path: Path, options: list[object]) -> None:
    """Run, and kill -9 soon after the file is there."""
    process = start(*options)
    deadline = time.monotonic() + 120
    while not path.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    process.kill()
    process.wait()


def test_a_domain_of_ones_own_needs_no_configuration(speaking_model_path: Path, tmp_path: Path) -> None:
    folder = write_domain(tmp_path / "my-domain")
    settings = [
        "judge=measured",
        "questions=4",
        "augment=false",
        "responses=6",
        "meaning=false",
        "margin=0.1",
        "min_words=2",
    ]
    sets = [word for setting in settings for word in ("--set", f"synthesis.{setting}")]
    output = tmp_path / "run"
    options = ["synth", "--domain", folder, "--output", output, "--set", f"model={speaking_model_path}", *sets]
    assert "Would make in" in run(*options, "--dry-run").stdout
    done = run(*options)
    assert "6 users are in" in done.stdout
    dataset = PreferenceDataset.load(output / "data")
    assert {user.traits["length"] for user in dataset.users.values()} == {-1.0, 1.0}
    assert all(
        (len(p.chosen.split()) > len(p.rejected.split())) == (dataset.users[p.user].traits["length"] > 0)
        for p in dataset
    )
    before = digests(output / "data")
    run(*options, "--on-existing", "overwrite")
    assert digests(output / "data") == before


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (["--domain", "elix-eazy"], "did you mean 'elix-easy'"),
        (["--domain", "roleplay", "--set", "synthesis.users=5000"], "the domain 'roleplay' has 1500"),
        (["--domain", "roleplay", "--set", "synthesis.jugde=llm"], "did you mean 'synthesis.judge'"),
        (["--domain", "roleplay", "--set", "ensemble=[{weight: 1}]"], "either an endpoint or a model"),
    ],
)
def test_bad_input_is_told_in_a_sentence(change: list[str], told: str, tmp_path: Path) -> None:
    done = run("synth", *change, "--output", tmp_path / "run", "--dry-run", code=1 if "eazy" in change[1] else 2)
    assert told in " ".join(done.stderr.split())
    assert not (tmp_path / "run").exists()


def test_an_endpoint_that_is_away_is_told_and_nothing_is_lost(tmp_path: Path) -> None:
    with fake_endpoint() as address:
        pass
    options = [
        *arguments(address, tmp_path / "run", domain=str(write_domain(tmp_path / "mine"))),
        "--set",
        "endpoint.retries=0",
    ]
    done = run(*options, code=1)
    assert "can't be reached; start the server" in " ".join(done.stderr.split())
    with fake_endpoint(port=int(urlsplit(address).port or 0)):
        assert "6 users are in" in run(*options).stdout
