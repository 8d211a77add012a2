"""How fast training and generation are on a quiet machine and beside a busy program, by threads and how they wait.

    python -m benchmarks.busy_machine --out docs/results/busy_machine         # 4 minutes on 2 cores
    python -m benchmarks.busy_machine --demo configs/reviews-cpu.yaml         # also a run, alone and beside the program

Every measurement is a process of its own, since OpenMP reads its environment when it is loaded. It takes training steps
with adapters as in `configs/reviews-cpu.yaml`, and generates a batch of answers, each after a warm-up. The ways:

- `spinning`: as many threads as cores, which wait for each other as the OpenMP library does by itself;
- `sleeping`: the same under OMP_WAIT_POLICY=PASSIVE;
- `watched`: the same, but they sleep only while the machine is busy (`fspo.modeling.threads`): what a run
  does when the load comes while it runs;
- `chosen`: the same with only as many threads as cores are free at the start: what a run does when the load was there
  before.

The busy program waits for nothing and uses one core. Alone and busy follow each other in every way and round, so that
all see the same machine; figures are medians over the rounds. With --demo, `fspo run` makes the run from nothing in a
temporary folder, alone and then beside the busy program. The machine must do nothing else: what it did at the start is
in the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.command_line import command_line
from benchmarks.models import SHAPE, load_episode, load_pair
from benchmarks.training_step import code_digest, device_name
from fspo.errors import FspoError, TrainingError
from fspo.files import write_json, write_text
from fspo.modeling import threads
from fspo.modeling.generation import Sampling, generate_ids
from fspo.modeling.logprobs import branch_logprobs
from fspo.modeling.memory import keep_memory
from fspo.modeling.rendering import RenderedPrompt
from fspo.printing import counted
from fspo.training.adapters import prepare_weights
from fspo.training.config import LoraSettings
from fspo.training.objectives import ipo

__all__ = ["WAYS", "Job", "busy", "main", "measured"]

WAYS = ("spinning", "sleeping", "watched", "chosen")
_PLACES = ("alone", "busy")
_SPEEDS = ("trained_tokens_per_second", "generated_tokens_per_second")
_OPENMP = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
_LORA = LoraSettings(r=16, alpha=32, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"], last_layers=20)
"""As in configs/reviews-cpu.yaml."""


@dataclass(frozen=True)
class Job:
    """What one process measures."""

    way: str = "spinning"
    model: str = "smollm2-135m"
    steps: int = 2
    answers: int = 24
    new_tokens: int = 12


def measured(job: Job) -> dict[str, float]:
    """Train and generate in this process, in the given way; the figures."""
    keep_memory()
    if job.way == "chosen":
        threads.use(threads.choose(threads.look()))
    if job.way in ("chosen", "watched"):
        threads.sleep_while_busy()
    model, _ = load_pair(job.model, dtype="float32", device="cpu", seed=0)
    lora = LoraSettings() if job.model.startswith(SHAPE) else _LORA
    model = prepare_weights(model, lora, seed=0).train()
    return {"threads": torch.get_num_threads(), **_training(model, job), **_generation(model, job)}


def _training(model: Any, job: Job) -> dict[str, float]:
    episode = load_episode(job.model, shots=4, queries=2, response_tokens=20, seed=0)
    branches = sum(len(branch.prompt_ids) + sum(map(len, branch.responses)) for branch in episode.branches)
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=1e-5)

    def step() -> None:
        logps_BR = branch_logprobs(model, [episode])[0].means
        ipo(logps_BR[:, 0] - logps_BR[:, 1], 0.3).mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()

    seconds, cores = _timed(step, job.steps)
    tokens = job.steps * (len(episode.trunk_ids) + branches)
    return {"trained_tokens_per_second": tokens / seconds, "cores_in_training": cores}


def _generation(model: Any, job: Job) -> dict[str, float]:
    episode = load_episode(job.model, shots=1, queries=1, response_tokens=20, seed=0)
    question = episode.branches[0].prompt_ids
    requests = [RenderedPrompt(episode.trunk_ids, question, seed=number) for number in range(job.answers)]
    lengths: list[int] = []

    def answer() -> None:
        answers = generate_ids(model, requests, Sampling(max_new_tokens=job.new_tokens))
        lengths.append(sum(len(answer.ids) for answer in answers))

    seconds, cores = _timed(answer, 1)
    return {"generated_tokens_per_second": lengths[-1] / seconds, "cores_in_generation": cores}


def _timed(work: Callable[[], None], times: int) -> tuple[float, float]:
    """Seconds that it takes, and how many cores' time it used, after a warm-up."""
    work()
    start, used = time.perf_counter(), time.process_time()
    for _ in range(times):
        work()
    seconds = time.perf_counter() - start
    return seconds, (time.process_time() - used) / seconds


@contextmanager
def busy() -> Iterator[None]:
    """Another program that uses one core all the time."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as program:
        try:
            yield
        finally:
            program.kill()


def _measure(job: Job) -> dict[str, float]:
    environment = _environment()
    if job.way == "sleeping":
        environment["OMP_WAIT_POLICY"] = "PASSIVE"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.busy_machine", "--job", json.dumps(asdict(job))],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise TrainingError(f"The measurement of '{job.way}' ended with {done.returncode}; see what it said above.")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _environment() -> dict[str, str]:
    """That of this process, without what decides on threads."""
    kept = {name: value for name, value in os.environ.items() if name not in _OPENMP}
    return kept | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TOKENIZERS_PARALLELISM": "false"}


def _in(place: str) -> AbstractContextManager[None]:
    return busy() if place == "busy" else nullcontext()


def _rounds(job: dict[str, Any], rounds: int) -> dict[str, Any]:
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for number in range(rounds):
        for way in WAYS:
            for place in _PLACES:
                print(f"round {number + 1}: {way}, {place}", file=sys.stderr)
                with _in(place):
                    found.setdefault((way, place), []).append(_measure(Job(way=way, **job)))
    return {way: {place: _median(found[way, place]) for place in _PLACES} for way in WAYS}


def _median(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]}


def _demo(config: Path) -> dict[str, float]:
    seconds = {}
    for place in _PLACES:
        print(f"{config}: {place}", file=sys.stderr)
        with tempfile.TemporaryDirectory() as folder, _in(place):
            command = [sys.executable, "-m", "fspo", "run", "--config", str(config), "--output", f"{folder}/run"]
            start = time.perf_counter()
            done = subprocess.run(command, env=_environment(), stdout=sys.stderr, check=False)
            seconds[f"seconds_{place}"] = time.perf_counter() - start
        if done.returncode:
            raise TrainingError(f"`fspo run --config {config}` ended with {done.returncode}; see what it said above.")
    return seconds | {"ratio": seconds["seconds_busy"] / seconds["seconds_alone"]}


def _page(figures: dict[str, Any]) -> str:
    machine = figures["machine"]
    lines = [
        "# Beside a busy program",
        "",
        f"`{figures['command']}`: {figures['model']}, float32, {machine['device']}, {machine['at_start']} "
        "at the start. The busy program uses one core. Tokens per second, medians over "
        f"{counted(figures['rounds'], 'rounds')}; the program defines the ways, and `figures.json` has all "
        "measurements.",
        "",
        "| way | threads alone, busy | training alone | busy | share | generation alone | busy | share |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for way, found in figures["ways"].items():
        alone, beside = found["alone"], found["busy"]
        cells = [way, f"{alone['threads']:.0f}, {beside['threads']:.0f}"]
        for speed in _SPEEDS:
            cells += [f"{alone[speed]:.0f}", f"{beside[speed]:.0f}", f"{beside[speed] / alone[speed]:.0%}"]
        lines.append(f"| {' | '.join(cells)} |")
    if "demo" in figures:
        demo = figures["demo"]
        lines += [
            "",
            f"`fspo run --config {demo['config']}` took {demo['seconds_alone'] / 60:.1f} minutes alone and "
            f"{demo['seconds_busy'] / 60:.1f} beside the busy program: {demo['ratio']:.2f} times as long.",
        ]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.busy_machine", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--demo", type=Path, metavar="CONFIG", help="also time `fspo run` on this file")
    parser.add_argument("--out", type=Path, help="folder for figures.json and README.md")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.job:
        print(json.dumps(measured(Job(**json.loads(options.job)))))
        return 0
    job = {"model": options.model}
    try:
        figures: dict[str, Any] = {
            "benchmark": "busy_machine",
            "command": command_line("busy_machine", arguments),
            "model": options.model,
            "rounds": options.rounds,
            "machine": {"device": device_name("cpu"), "at_start": str(threads.look())},
            "code": code_digest(),
            "ways": _rounds(job, options.rounds),
        }
        if options.demo is not None:
            figures["demo"] = {"config": str(options.demo), **_demo(options.demo)}
    except FspoError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    if options.out is not None:
        write_json(options.out / "figures.json", figures)
        write_text(options.out / "README.md", _page(figures))
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
