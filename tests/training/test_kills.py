"""Training killed with -9 eight times, half of them while a checkpoint is being written."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fspo.training.trainer import CHECKPOINTS_FOLDER, METRICS_FILE
from tests import preloaded
from tests.training.test_train import figures, same, weights
from tests.training.train_tiny import train_tiny

KILLS = 8
SETTINGS = {"steps": 40, "save_every": 1, "queries": 1}


def lines(out: Path) -> int:
    return (out / METRICS_FILE).read_bytes().count(b"\n") if (out / METRICS_FILE).exists() else 0


def kill_when(model: Path, out: Path, moment: Callable[[], bool]) -> bool:
    """Start the training in a process of its own, kill it at that moment, and say whether it was still going."""
    settings = json.dumps(SETTINGS)
    process = preloaded.start("tests.training.train_tiny", model, out, settings, env=os.environ)
    while process.poll() is None and not moment():
        time.sleep(0.001)
    process.kill()
    return process.wait() == -signal.SIGKILL


@pytest.mark.slow
def test_every_resume_after_a_kill_goes_on_and_the_losses_are_those_of_an_uninterrupted_training(
    tiny_model_path: Path, tmp_path: Path
) -> None:
    rng = random.Random(0)
    out = tmp_path / "killed"
    torn = kills = 0
    for number in range(KILLS):
        before, seconds, pause = lines(out), rng.uniform(0, 0.15), rng.uniform(0, 0.002)
        started: list[float] = []

        def going(before: int = before, started: list[float] = started) -> bool:
            """Whether a step of this process is done, which notes the time."""
            if not started and lines(out) > before:
                started.append(time.monotonic())
            return bool(started)

        def at_random(
            seconds: float = seconds, started: list[float] = started, going: Callable[[], bool] = going
        ) -> bool:
            return going() and time.monotonic() - started[0] > seconds

        def while_writing(pause: float = pause, going: Callable[[], bool] = going) -> bool:
            if going() and any((out / CHECKPOINTS_FOLDER).glob(".checkpoint-*")):
                time.sleep(pause)
                return True
            return False

        kills += kill_when(tiny_model_path, out, while_writing if number % 2 else at_random)
        torn += any((out / CHECKPOINTS_FOLDER).glob(".checkpoint-*"))
    assert kills == KILLS
    assert torn >= KILLS // 4, "too few kills hit a checkpoint half written for this to show anything"
    train_tiny(tiny_model_path, out, **SETTINGS)
    whole = train_tiny(tiny_model_path, tmp_path / "whole", **SETTINGS)
    assert figures(out) == figures(whole)
    assert same(weights(out), weights(whole))
