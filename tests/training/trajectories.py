"""A run of the real command whose losses are compared, and what it is made of."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import psutil
import torch
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env
from safetensors.torch import load_file
from typer.testing import CliRunner

from fspo.cli.main import app
from fspo.files import read_jsonl
from tests import forked_python, preloaded

__all__ = ["METHODS", "ROOT", "TOLERANCE", "Recorded", "call", "gap", "launched", "moved", "two_ranks", "weights_gap"]

ROOT = Path(__file__).parents[2]
METHODS = ("ipo", "fspo")
"""All weights against a frozen copy; adapters against the model without them, with the mirror."""
TOLERANCE = 1e-5

_OTHERWISE = {"seconds", "tokens_per_second"}

_CONFIG = """
name: trajectory
model: {model}
data: {data}
methods: [ipo, fspo]
from_base: [fspo]
training:
  all:
    {{shots: 2, queries: 2, steps: 10, users_per_step: 3, learning_rate: 1.0e-3, warmup: 1, save_every: 2,
    evaluate_every: 10, evaluate_episodes: 3, keep_best: true}}
  ipo: {{lora: null, beta: 0.1}}
  fspo: {{lora: {{r: 4}}, objective: mirrored-contrast, bias_weight: 0.1}}
evaluation: {{shots: 2, queries: 2, ladder: [0, 2], max_new_tokens: 4}}
"""


class Recorded:
    """The losses of one process with the default settings, and the means to train again in another way."""

    def __init__(self, folder: Path, model: Path) -> None:
        """Make a dataset of people whose answers are of uneven length, and train on it."""
        self.folder, self.config = folder, folder / "run.yaml"
        with (folder / "ratings.jsonl").open("w") as handle:
            for user in range(8):
                for question in range(22):
                    warm, slow = " and warm" * (user + question % 2), " too" * (question % 5)
                    pair = [f"The music of {question} is great{warm}.", f"The plot of {question} is dull{slow}."]
                    row = {"user": f"u{user}", "prompt": f"What of {question}?"}
                    handle.write(json.dumps(row | {"chosen": pair[user % 2], "rejected": pair[1 - user % 2]}) + "\n")
        call("data", "import", folder / "ratings.jsonl", folder / "data")
        shares = ("--test-users", "0.13", "--test-questions", "0.19", "--validation", "0.2")
        call("data", "split", folder / "data", *shares)
        self.config.write_text(_CONFIG.format(model=model, data=folder / "data"))
        call("synth", "--config", self.config, "--output", folder / "begun")
        self.output = self.begin("one")
        call("train", *self.arguments(self.output))

    def begin(self, name: str) -> Path:
        """A run's folder that holds the data alone."""
        output = self.folder / name
        shutil.copytree(self.folder / "begun", output)
        return output

    def arguments(self, output: Path, *settings: str) -> list[object]:
        """The options of a run into `output`."""
        sets = [part for setting in settings for part in ("--set", f"training.all.{setting}")]
        return ["--config", self.config, "--output", output, *sets]


def call(*arguments: object) -> None:
    """Run `fspo` in this process."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output


@contextmanager
def launched(
    kind: str, folder: Path, *arguments: object
) -> Iterator[tuple[preloaded.Program | subprocess.Popen[bytes], IO[str]]]:
    """`fspo` as two processes of accelerate's launcher, and the file of what they print; all are forked."""
    launcher = ("accelerate.commands.launch", "--main_process_port", 0, "--config_file", _configuration(kind))
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "src"),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHON_EXEC": str(forked_python.executable(folder)),
    }
    with tempfile.TemporaryFile("w+") as out:
        program = preloaded.start(*launcher, "-m", "fspo", *arguments, env=environment, stdout=out, stderr=out)
        try:
            yield program, out
        finally:
            if program.poll() is None:
                for child in psutil.Process(program.pid).children():
                    child.kill()
                program.kill()


def two_ranks(kind: str, *arguments: object) -> str:
    """Run `fspo` as the two processes that accelerate would launch, which have the libraries already; their output."""
    environment = _of_launcher(kind) | {"PYTHONPATH": str(ROOT / "src"), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    with ExitStack() as stack:
        ranks = []
        for rank in ("0", "1"):
            out, err = (stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(2))
            own = environment | {"RANK": rank, "LOCAL_RANK": rank}
            program = preloaded.start("fspo", *arguments, env=own, stdout=out, stderr=err)
            stack.callback(program.kill)
            ranks.append((program, out, err))
        text = ""
        for program, out, err in ranks:
            code = program.wait(timeout=250)
            out.seek(0), err.seek(0)
            assert code == 0, err.read()
            text += out.read()
    return text


def _of_launcher(kind: str) -> dict[str, str]:
    """The environment that accelerate's launcher makes from a configuration, and the address of rank 0."""
    options = ["--config_file", _configuration(kind), "--main_process_port", "0"]
    parsed = launch_command_parser().parse_args([*options, "fspo"])
    settings, _, _ = _validate_launch_command(parsed)
    environment: dict[str, str] = prepare_multi_gpu_env(settings)
    return environment | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": settings.master_port}


def _configuration(kind: str) -> str:
    return str(ROOT / f"configs/accelerate/{kind}.yaml")


def gap(one: Path, other: Path, methods: Sequence[str] = METHODS) -> float:
    """The largest difference between two runs' losses and figures at any step, relative to those above 1."""
    worst = 0.0
    for method in methods:
        records, others = (read_jsonl(output / "methods" / method / "metrics.jsonl") for output in (one, other))
        assert [record["step"] for record in records] == [record["step"] for record in others] == list(range(1, 11))
        for record, again in zip(records, others, strict=True):
            assert record.keys() == again.keys()
            for figure in record.keys() - _OTHERWISE:
                worst = max(worst, abs(record[figure] - again[figure]) / max(1.0, abs(record[figure])))
    return worst


def weights_gap(one: Path, other: Path) -> float:
    """The largest difference between two runs' trained weights."""
    worst = 0.0
    for path in sorted(one.glob("methods/*/**/*.safetensors")):
        tensors, others = load_file(path), load_file(other / path.relative_to(one))
        assert tensors.keys() == others.keys()
        for name, tensor in tensors.items():
            worst = max(worst, (tensor - others[name]).abs().max().item() if tensor.numel() else 0.0)
    return worst


def moved(output: Path, model: Path) -> float:
    """How far training has moved the weights of the first method, so that equal ones mean something."""
    before, after = load_file(model / "model.safetensors"), load_file(output / "methods/ipo/model.safetensors")
    return max(torch.dist(tensor, after[name]).item() for name, tensor in before.items())
