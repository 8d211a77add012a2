"""A million preferences through the whole recipe against an endpoint that answers at once, killed ten times.

    python -m benchmarks.synthesis_scale --out docs/results/synthesis_scale
    python -m benchmarks.synthesis_scale --preferences 20000 --compare 5000 --kills 3          # a smaller one

The roleplay domain with every stage on: questions augmented, viewpoints, an ensemble of two for the responses,
portraits, the pairwise judge in both orders, refinement, bounds of disagreement; only the sentence embedder of the
diversity check is off. The endpoint is `instant`; the real cache, pacing, accounts and files are above it.

First a smaller dataset (`--compare`) is made twice, once without a break and once with as many kills: `identical` says
whether all files are the same, byte by byte. Then the large one is made with kills. A kill is a `kill -9` at a random
moment, drawn as a number of requests sent. `requests_repeated` counts the requests that were sent although their answer
was in the cache when the process started; `answers_lost` counts those that the endpoint had answered, but a kill came
before the answer was in the cache, so that they were asked again: at most what was under way. `peak_memory_gb` is the
largest resident set of any of the processes, libraries included. `outside_endpoint` is the share of the time of the
unbroken run that was not spent in the endpoint.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.instant import InstantTransport
from fspo.files import read_json, write_json
from fspo.llm.cache import RequestCache
from fspo.llm.endpoint import Endpoint, EndpointConfig
from fspo.llm.ensemble import Ensemble, Member
from fspo.progress import PlainProgress
from fspo.synthesis.config import SynthesisConfig
from fspo.synthesis.synthesize import Writers, synthesize

__all__ = ["Made", "config_of", "main", "make"]

_KEY = 32
_DECIDED = 0.93
"""About how many of the pairs are decided; the figures are counted, and this only sizes the run."""
_SHARED = 16
_USERS = 1500


def config_of(preferences: int) -> SynthesisConfig:
    """The recipe, sized for so many preferences."""
    users = min(_USERS, max(20, preferences // 100))
    pairs = max(_SHARED, round(preferences / _DECIDED / users))
    sizes = {"questions": max(60, min(600, preferences // 500)), "responses": 16, "augment_rounds": 8}
    stages = {"steering": "views", "portraits": True, "judge": "llm", "meaning": False}
    return SynthesisConfig.model_validate(
        {"domain": "roleplay", "users": users, "pairs": pairs, "shared_pairs": _SHARED} | {**sizes, **stages}
    )


def work(folder: Path, config: SynthesisConfig) -> None:
    """What one process does: resume from the files that are there."""
    began = time.perf_counter()
    cache = RequestCache(folder / "answers.sqlite")
    transports: list[InstantTransport] = []

    def endpoint(model: str) -> Endpoint:
        address = "http://127.0.0.1:9/v1"  # nobody is there, and nobody is asked
        settings = EndpointConfig.model_validate({"base_url": address, "model": model, "requests_in_flight": 64})
        transports.append(InstantTransport(settings.identity(), folder / "sent"))
        return Endpoint(settings, cache, transports[-1])

    ask = endpoint("asked")
    write = Ensemble([Member(endpoint("one"), 2.0), Member(endpoint("other"), 1.0, 0.7)])
    synthesize(config, Writers(ask, write), folder / "data", PlainProgress(sys.stderr))
    seconds = {"wall": time.perf_counter() - began, "endpoint": sum(one.seconds for one in transports)}
    write_json(folder / "seconds.json", seconds)


@dataclass
class Made:
    """How a dataset was made."""

    folder: Path
    kills: int = 0
    peak_memory_gb: float = 0.0
    seconds: float = 0.0
    """Of all processes together."""
    repeated: int = 0
    lost: int = 0
    sent: int = 0
    kept: set[bytes] = field(default_factory=set)
    """Keys whose answers are in the cache."""

    @property
    def preferences(self) -> int:
        """Rows of the dataset."""
        return int(pq.read_metadata(self.folder / "data" / "preferences.parquet").num_rows)

    def digest(self) -> str:
        """Of all files of the dataset."""
        whole, data = hashlib.sha256(), self.folder / "data"
        for path in sorted(path for path in data.rglob("*") if path.is_file()):
            whole.update(f"{path.relative_to(data)}\n".encode() + hashlib.sha256(path.read_bytes()).digest())
        return whole.hexdigest()


def make(folder: Path, config: SynthesisConfig, kills: int, rng: random.Random, arguments: list[str]) -> Made:
    """Make a dataset in processes of its own, which are killed so many times."""
    folder.mkdir(parents=True)
    # A few more are asked than these, so that every kill comes before the end.
    expected = 2 * (config.users or 0) * config.pairs + (config.questions or 0) * config.responses
    moments = sorted(rng.randrange(expected // 100, expected * 9 // 10) for _ in range(kills))
    made = Made(folder)
    while not (folder / "seconds.json").exists():
        kills_before = made.kills
        process = subprocess.Popen([sys.executable, "-m", "benchmarks.synthesis_scale", "--work", folder, *arguments])
        began = time.perf_counter()
        try:
            code = _watch(process, folder, made, moments)
        except BaseException:
            process.kill()
            process.wait()
            raise
        made.seconds += time.perf_counter() - began
        if code and (code != -signal.SIGKILL or made.kills == kills_before):  # -9 may also mean that memory ran out
            raise SystemExit(f"The work in {folder} failed with code {code}.")
        _count(made)
    return made


def _watch(process: subprocess.Popen[bytes], folder: Path, made: Made, moments: list[int]) -> int:
    """Wait for the process, and kill it when so many requests are sent; returns its exit code.

    A moment that the last process ran past comes as soon as this one has sent something.
    """
    while (code := process.poll()) is None:
        made.peak_memory_gb = max(made.peak_memory_gb, _peak_memory_gb(process.pid))
        if moments and _sent(folder) >= max(moments[0], made.sent + 1):
            process.kill()
            made.kills += 1
            del moments[0]
            return process.wait()
        time.sleep(0.005)
    return code


def _peak_memory_gb(pid: int) -> float:
    """The largest resident set so far. What wait4 says would count the process that started this one, too."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:  # it has just ended
        return 0.0
    return sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) * 1024 / 1e9


def _sent(folder: Path) -> int:
    log = folder / "sent"
    return log.stat().st_size // _KEY if log.exists() else 0


def _count(made: Made) -> None:
    """Look through what the last process sent, and what is in the cache now."""
    with (made.folder / "sent").open("rb") as log:
        log.seek(made.sent * _KEY)
        data = log.read()
    keys = [data[at : at + _KEY] for at in range(0, len(data), _KEY)]
    made.repeated += sum(key in made.kept for key in keys)
    made.sent += len(keys)
    connection = sqlite3.connect(made.folder / "answers.sqlite")
    made.kept = {bytes.fromhex(key) for (key,) in connection.execute("SELECT key FROM answers")}
    connection.close()
    made.lost += len(set(keys) - made.kept)


def main(arguments: list[str] | None = None) -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preferences", type=int, default=1_000_000)
    parser.add_argument("--compare", type=int, default=100_000, help="preferences of the dataset that is made twice")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="draws the moments of the kills")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.work:
        work(given.work, config_of(given.preferences))
        return
    with tempfile.TemporaryDirectory() as scratch:
        figures = _measure(Path(scratch), given)
    if given.out:
        write_json(given.out / "synthesis_scale.json", figures)
    print(json.dumps(figures))


def _measure(scratch: Path, given: argparse.Namespace) -> dict[str, Any]:
    rng = random.Random(given.seed)

    def made(name: str, preferences: int, kills: int) -> Made:
        folder = scratch / name
        return make(folder, config_of(preferences), kills, rng, ["--preferences", str(preferences)])

    quiet, rough = made("quiet", given.compare, 0), made("rough", given.compare, given.kills)
    large = made("large", given.preferences, given.kills)
    seconds = read_json(quiet.folder / "seconds.json")
    checks = read_json(large.folder / "data" / "checks.json")
    return {
        "preferences": large.preferences,
        "users": checks["counts"]["users"],
        "responses": checks["counts"]["responses"],
        "requests": large.sent,
        "peak_memory_gb": round(max(one.peak_memory_gb for one in (quiet, rough, large)), 3),
        "kills": large.kills,
        "requests_repeated": large.repeated + rough.repeated,
        "answers_lost": large.lost + rough.lost,
        "identical": quiet.digest() == rough.digest(),
        "identical_at": quiet.preferences,
        "identical_kills": rough.kills,
        "preferences_per_second": round(large.preferences / large.seconds, 1),
        "unbroken_preferences_per_second": round(quiet.preferences / quiet.seconds, 1),
        "seconds": round(large.seconds, 1),
        "outside_endpoint": round(1 - seconds["endpoint"] / seconds["wall"], 4),
        "peak_memory_gb_at_identical": round(quiet.peak_memory_gb, 3),
        "dataset_mb": round(sum(p.stat().st_size for p in (large.folder / "data").rglob("*") if p.is_file()) / 1e6, 1),
        "cache_mb": round((large.folder / "answers.sqlite").stat().st_size / 1e6, 1),
        "refined_users": checks["refinement"]["users"],
        "made_anew": checks["casting"]["made_anew"],
        "order": checks["labels"]["order"],
        "machine": {"processors": os.cpu_count(), "python": platform.python_version(), "system": platform.system()},
        "command": f"python -m benchmarks.synthesis_scale --preferences {given.preferences} --compare {given.compare} "
        f"--kills {given.kills} --seed {given.seed}",
    }


if __name__ == "__main__":
    main()
