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

Moment = Callable[[], bool]
"""Whether it is time to kill."""


def lines(out: Path) -> int:
    return (out / METRICS_FILE).read_bytes().count(b"\n") if (out / METRICS_FILE).exists() else 0


def kill_when(model: Path, out: Path, moment: Moment) -> bool:
    """Start the training in a process of its own and kill it at that moment after a step; whether it still ran."""
    before = lines(out)
    process = preloaded.start("tests.training.train_tiny", model, out, json.dumps(SETTINGS), env=os.environ)
    while process.poll() is None and lines(out) <= before:  # resuming drops the steps after the checkpoint
        time.sleep(0.01)
    while process.poll() is None and not moment():
        time.sleep(0.001)
    process.kill()
    return process.wait() == -signal.SIGKILL


def after(seconds: float) -> Moment:
    """So long after it is first asked."""
    begun: list[float] = []

    def moment() -> bool:
        begun.append(time.monotonic())
        return begun[-1] - begun[0] > seconds

    return moment


def while_writing(out: Path, pause: float) -> Moment:
    """A moment after a checkpoint is begun."""

    def moment() -> bool:
        if any((out / CHECKPOINTS_FOLDER).glob(".checkpoint-*")):
            time.sleep(pause)
            return True
        return False

    return moment


@pytest.mark.slow
def test_every_resume_after_a_kill_goes_on_and_the_losses_are_those_of_an_uninterrupted_training(
    tiny_model_path: Path, tmp_path: Path
) -> None:
    rng = random.Random(0)
    out = tmp_path / "killed"
    torn = kills = 0
    for number in range(KILLS):
        seconds, pause = rng.uniform(0, 0.15), rng.uniform(0, 0.002)
        kills += kill_when(tiny_model_path, out, while_writing(out, pause) if number % 2 else after(seconds))
        torn += any((out / CHECKPOINTS_FOLDER).glob(".checkpoint-*"))
    assert kills == KILLS
    assert torn >= KILLS // 4, "too few kills hit a checkpoint half written for this to show anything"
    seldom = {**SETTINGS, "save_every": 100}
    train_tiny(tiny_model_path, out, **seldom)
    whole = train_tiny(tiny_model_path, tmp_path / "whole", **seldom)
    assert figures(out) == figures(whole)
    assert same(weights(out), weights(whole))
