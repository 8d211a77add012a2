"""One training step of fspo beside TRL's DPOTrainer: pairs per second and peak memory.

    python -m benchmarks.training_step --out docs/results/training_step     # all rows, about 45 minutes on 2 cores
    python -m benchmarks.training_step --rows 8x8x250 --attribute 8x8x250   # one row: shots x queries x response tokens

Both sides take the same step on the same pairs, model, reference, precision and loss (see `sides`). TRL is set up
fairly: `max_length=None` (its default drops long prompts), no gradient checkpointing, fp32, one pair per micro-batch
with as many micro-batches as queries, whose memory is the one to compare with; and, for an even number of queries from
8 on and where it fits, two pairs per micro-batch, if that is faster. Each side runs in a process of its own. Its memory
is the peak of the resident set less that of the loaded policy and reference and all libraries. The micro-batches of a
row are equally large, so TRL's time is that of `peer_micro_batches_measured` of them, taken for all, and of one
optimiser step. An untimed warm-up comes first on each side. Both sides keep freed memory, as fspo does when it trains
(`fspo.modeling.memory`) and TRL by itself does not: `memory_kept` tells whether the C library can.

`speedup` is that of pairs per second; `speedup_cpu` compares processor seconds of all threads (but for TRL's optimiser
step), which other programs on the machine stretch less: where the two differ much, the machine wasn't quiet.
`flop_ratio` is what theory gives (see `theory`; TRL's head scores every position on a processor), and `share_of_theory`
is the part of it that `speedup` reaches. `attribution` takes a row's speedup apart: `sharing` (one sequence per
response against trunk and branches, in fspo itself), `head` (every position against responses only), `rest` (TRL
against fspo without these two); their product is the speedup. `reference` is what precomputing the reference's
log-probs would bring on top. Rows found in the folder `--out` are kept and not measured again, but for those of another
machine, device or code (`measured_with`), which are left out until they are. A row for which there is too little memory
is noted under `failures`, and the other rows are measured. A row without `attribution` is measured again if it is to
have one.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import math
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import fspo
from benchmarks.sides import BETA, Job
from fspo.errors import DataError, FspoError, TrainingError
from fspo.files import read_json, write_json, write_text

__all__ = ["Row", "Settings", "code_digest", "device_name", "main", "measure_rows"]

_PEER = "trl.DPOTrainer"
_TITLES = [
    "shots",
    "queries",
    "response tokens",
    "trunk tokens",
    "pairs/s",
    "TRL pairs/s",
    "speedup",
    "by CPU",
    "theory",
    "share",
    "memory GB",
    "TRL GB",
    "ratio",
    "loss difference",
    "matmul share",
]
_NAME = re.compile(r"(\d+)x(\d+)x(\d+)")


@dataclass(frozen=True, order=True)
class Row:
    """One line of the table."""

    shots: int
    queries: int
    response_tokens: int

    @classmethod
    def of(cls, name: str) -> Row:
        """The row called, for example, `8x4x60`: 8 shots, 4 queries, responses of 60 tokens."""
        found = _NAME.fullmatch(name)
        if found is None or min(map(int, found.groups())) < 1:
            raise argparse.ArgumentTypeError(f"{name!r} is not shots x queries x response tokens, such as 8x4x60")
        return cls(*map(int, found.groups()))

    @classmethod
    def in_record(cls, record: dict[str, Any]) -> Row:
        """The row that a record of its results, or of its failure, is of."""
        return cls(record["shots"], record["queries"], record["response_tokens"])

    @property
    def name(self) -> str:
        """What `of` reads."""
        return f"{self.shots}x{self.queries}x{self.response_tokens}"

    @property
    def work(self) -> int:
        """About how many tokens both sides run through the model for it, to tell how long the rest will take."""
        trunk = self.shots * (2 * self.response_tokens + 50)
        ours = trunk + self.queries * (50 + 2 * self.response_tokens)
        return 2 * ours + 2 * (1 + _sampled(self)) * (trunk + self.response_tokens)


ROWS = tuple(Row(shots, queries, tokens) for tokens, shots, queries in itertools.product((60, 250), (4, 8), (1, 4, 8)))


@dataclass(frozen=True)
class Settings:
    """What all rows of a table share."""

    model: str = "smollm2-135m"
    device: str = "cpu"
    dtype: str = "float32"
    seed: int = 0
    threads: int = 0
    """0: what torch finds."""


def measure_rows(
    settings: Settings,
    rows: Sequence[Row],
    attributed: Sequence[Row] = (),
    *,
    out: Path | None = None,
    repeats: int = 1,
    program: str = "training_step",
) -> dict[str, Any]:
    """Measure `rows`, but those that `out` has already, and keep each one there as soon as it is done.

    `program` is the benchmark that the page names. A row with a failed side is noted under `failures`; it is tried
    again when the folder is measured again.

    Raises:
        DataError: `out` holds rows of other settings.
    """
    source = _source(settings)
    figures = _begun(settings, source, out) | {"benchmark": program, "failures": []}
    kept = {Row.in_record(record): record for record in figures["rows"]}
    todo = [row for row in rows if row not in kept or (row in attributed and "attribution" not in kept[row])]
    started, done = time.monotonic(), 0
    for number, row in enumerate(todo):
        _say(f"row {number + 1} of {len(todo)}, {row.name}: shots x queries x response tokens")
        try:
            kept[row] = _measure(settings, row, row in attributed, repeats) | {"measured_with": source}
        except TrainingError as error:
            _say(f"  {error}")
            figures["failures"].append({**asdict(row), "why": str(error)})
        figures["rows"] = sorted(kept.values(), key=lambda one: (one["response_tokens"], one["shots"], one["queries"]))
        done += row.work
        left = (time.monotonic() - started) / done * sum(other.work for other in todo[number + 1 :])
        _say(f"  about {left / 60:.0f} minutes left")
        if out is not None:
            write_json(out / "figures.json", figures)
            write_text(out / "README.md", _page(figures))
    return figures


def _measure(settings: Settings, row: Row, attributed: bool, repeats: int) -> dict[str, Any]:
    ours = _run(settings, row, side="ours", attributed=attributed, repeats=repeats)
    peers = {1: _run(settings, row, side="peer", micro_batches=_sampled(row))}
    if row.queries >= 8 and row.queries % 2 == 0 and _fits(settings, 2 * peers[1]["memory"]):
        try:
            peers[2] = _run(settings, row, side="peer", pairs_at_once=2)
        except TrainingError:
            _say("  two pairs at once don't fit; one at a time stays the peer's best")
    size = min(peers, key=lambda pairs: float(peers[pairs]["seconds"]))
    peer = peers[size]
    speedup = peer["seconds"] / ours["seconds"]
    flop_ratio = ours["flops_peer"] / ours["flops"]
    figures = {
        "peer": _PEER,
        **asdict(row),
        "trunk_tokens": ours["trunk_tokens"],
        "seconds_ours": ours["seconds"],
        "seconds_peer": peer["seconds"],
        "pairs_per_second_ours": row.queries / ours["seconds"],
        "pairs_per_second_peer": row.queries / peer["seconds"],
        "speedup": speedup,
        "speedup_cpu": peer["cpu_seconds"] / ours["cpu_seconds"],
        "flop_ratio": flop_ratio,
        "flop_ratio_responses_scored": ours["flops_peer_responses_scored"] / ours["flops"],
        "share_of_theory": speedup / flop_ratio,
        "memory_ours": ours["memory"],
        "memory_peer": peers[1]["memory"],
        "memory_ratio": ours["memory"] / peers[1]["memory"],
        "memory_kept": ours["memory_kept"] and peers[1]["memory_kept"],
        "loss_difference": max(abs(ours["losses"][place] - loss) for place, loss in peers[1]["losses"]),
        "loss": math.fsum(ours["losses"]) / row.queries,
        "matmul_share": ours["flops"] / ours["seconds"] / ours["matmul_flops_per_second"],
        "matmul_flops_per_second": ours["matmul_flops_per_second"],
        "seconds_ours_each": ours["seconds_each"],
        "peer_pairs_per_micro_batch": size,
        "peer_micro_batches_measured": len(peer["seconds_each"]),
        "peer_seconds_by_pairs_per_micro_batch": {str(pairs): one["seconds"] for pairs, one in peers.items()},
    }
    return figures | ({"attribution": _attribution(ours, peer)} if attributed else {})


def _attribution(ours: dict[str, Any], peer: dict[str, Any]) -> dict[str, float]:
    return {
        "sharing": ours["seconds_unshared"] / ours["seconds"],
        "head": ours["seconds_unshared_every_position"] / ours["seconds_unshared"],
        "rest": peer["seconds"] / ours["seconds_unshared_every_position"],
        "reference": ours["seconds"] / ours["seconds_without_reference"],
    }


def _run(settings: Settings, row: Row, **more: Any) -> dict[str, Any]:
    shared = {name: value for name, value in asdict(settings).items() if name != "threads"}
    job = Job(**shared, **asdict(row), **more)
    _say(f"  {job.side}{f', {job.pairs_at_once} pairs at once' if job.pairs_at_once > 1 else ''} ...")
    environment = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TOKENIZERS_PARALLELISM": "false"}
    if settings.threads:
        environment["OMP_NUM_THREADS"] = str(settings.threads)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.sides", json.dumps(asdict(job))],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        why = "was killed, most likely for want of memory" if done.returncode == -9 else f"ended with {done.returncode}"
        raise TrainingError(
            f"The side {job.side} of row {row.name} {why}; choose smaller --rows, or see what it said above."
        )
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _sampled(row: Row) -> int:
    return max(1, row.queries // 4)


def _fits(settings: Settings, memory: int) -> bool:
    """Whether a step that takes so much memory above the weights surely finds it here."""
    if settings.device != "cpu":
        return True
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return False
    available = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
    return available is not None and int(available[1]) * 2**10 > memory * 1.2 + 3 * 2**30


def _source(settings: Settings) -> dict[str, Any]:
    """What else a row's figures depend on: a row of another machine, device or code is no part of this table."""
    return {
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "device": device_name(settings.device),
        "code": code_digest(),
    }


def device_name(device: str) -> str:
    """What the device calls itself; a processor by its model where the system tells."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or device
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return platform.processor() or device if found is None else found[1]


def code_digest() -> str:
    """A digest of the sources of fspo and of the benchmarks."""
    digest = hashlib.sha256()
    for folder in (Path(fspo.__file__).parent, Path(__file__).parent):
        for path in sorted(folder.rglob("*.py")):
            digest.update(f"{path.relative_to(folder.parent).as_posix()}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _begun(settings: Settings, source: dict[str, Any], out: Path | None) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "benchmark": "training_step",
        "loss": f"ipo, mean log-probs per token, beta {BETA}",
        "settings": asdict(settings),
        "machine": {"platform": platform.platform(), "processors": os.cpu_count()},
        "versions": {name: version(name) for name in ("torch", "transformers", "trl")},
        "rows": [],
    }
    if out is None or not (out / "figures.json").exists():
        return figures
    begun = dict(read_json(out / "figures.json"))
    if any(begun.get(name) != figures[name] for name in ("loss", "settings", "versions")):
        raise DataError(
            f"{out} holds rows measured with other settings or versions; name another folder, or delete it."
        )
    kept = [row for row in begun["rows"] if row.get("measured_with") == source]
    if len(kept) < len(begun["rows"]):
        _say(f"{len(begun['rows']) - len(kept)} rows of another machine, device or code are left out")
    return figures | {"rows": kept}


def _page(figures: dict[str, Any]) -> str:
    settings, machine = figures["settings"], figures["machine"]
    kept = "Neither side keeps freed memory."
    if all(row["memory_kept"] for row in figures["rows"]):
        kept = "Both sides keep freed memory (`fspo.modeling.memory`), which TRL by itself does not."
    lines = [
        "# One training step beside TRL's DPOTrainer",
        "",
        f"`python -m benchmarks.{figures['benchmark']}`: {settings['model']}, "
        f"{settings['dtype']} on {settings['device']}, {machine['processors']} processors, reference included on both "
        f"sides, {figures['loss']}; TRL {figures['versions']['trl']} with `max_length=None` and neither gradient "
        f"checkpointing nor mixed precision. {kept} The program defines each column; `figures.json` has all "
        "measurements.",
        "",
        *_table(_TITLES, [_line(row) for row in figures["rows"]]),
    ]
    kept_rows = set(map(Row.in_record, figures["rows"]))
    missing = [row for record in figures["failures"] if (row := Row.in_record(record)) not in kept_rows]
    if missing:
        lines += ["", f"Not measured, since a side failed: {', '.join(row.name for row in missing)}."]
    return "\n".join([*lines, *_attributions(figures["rows"])]) + "\n"


def _line(row: dict[str, Any]) -> list[str]:
    return [
        *(str(row[name]) for name in ("shots", "queries", "response_tokens", "trunk_tokens")),
        *(f"{row[name]:.3f}" for name in ("pairs_per_second_ours", "pairs_per_second_peer")),
        *(f"{row[name]:.2f}" for name in ("speedup", "speedup_cpu", "flop_ratio")),
        f"{row['share_of_theory']:.0%}",
        *(f"{row[name] / 1e9:.2f}" for name in ("memory_ours", "memory_peer")),
        f"{row['memory_ratio']:.2f}",
        f"{row['loss_difference']:.0e}",
        f"{row['matmul_share']:.0%}",
    ]


def _table(titles: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(cells) + " |" for cells in (titles, ["---"] * len(titles), *lines)]


def _attributions(rows: Sequence[dict[str, Any]]) -> list[str]:
    taken_apart = [row for row in rows if "attribution" in row]
    if not taken_apart:
        return []
    parts = ("sharing", "head", "rest", "reference")
    lines = [
        [*(str(row[name]) for name in ("shots", "queries", "response_tokens"))]
        + [f"{row['attribution'][part]:.2f}" for part in parts]
        for row in taken_apart
    ]
    return [
        "",
        "Where it comes from: sharing x head x rest is the speedup; precomputing the reference comes on top.",
        "",
        *_table(["shots", "queries", "response tokens", *parts], lines),
    ]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _rows(text: str) -> list[Row]:
    return [Row.of(name) for name in text.split(",")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.training_step", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", default=Settings.model, help="the built-in model's name, a folder, or a hub id")
    parser.add_argument("--rows", type=_rows, default=list(ROWS), help="such as 8x8x250,4x1x60; by default all 12")
    parser.add_argument(
        "--attribute", type=_rows, help="rows to take apart (default: those with 8 shots and 8 queries)"
    )
    parser.add_argument("--repeats", type=int, default=1, help="timed steps of ours in each row")
    parser.add_argument("--threads", type=int, default=0, help="threads of both sides (default: what torch takes)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder for figures.json and README.md")
    options = parser.parse_args(arguments)
    settings = Settings(model=options.model, seed=options.seed, threads=options.threads)
    attributed = options.attribute
    if attributed is None:
        attributed = [row for row in options.rows if (row.shots, row.queries) == (8, 8)]
    try:
        figures = measure_rows(settings, options.rows, attributed, out=options.out, repeats=options.repeats)
    except FspoError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(figures))
    return 1 if figures["failures"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
