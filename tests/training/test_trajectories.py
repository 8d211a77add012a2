"""One recorded trajectory of the real command; ways of training that must all give it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import pytest

from fspo.files import read_json, read_jsonl
from fspo.modeling.policies import load_policy
from fspo.training.checkpoints import newest_checkpoint
from fspo.training.steps import StepBatch, StepCollator, Unit, split_passes
from tests.training.trajectories import METHODS, TOLERANCE, Recorded, call, gap, launch, moved, two_ranks, weights_gap

WEIGHTS = 1e-4
"""A tenth of one step: AdamW makes steps of full size of the smallest gradients, rounding and all."""

Order = Callable[[Sequence[Unit]], list[Unit]]


@pytest.fixture(scope="module")
def recorded(tiny_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return Recorded(tmp_path_factory.mktemp("trajectory"), tiny_model_path)


def test_the_trajectory_goes_somewhere(recorded: Recorded, tiny_model_path: Path) -> None:
    assert moved(recorded.output, tiny_model_path) > 0.01
    for method in METHODS:
        records = read_jsonl(recorded.output / "methods" / method / "metrics.jsonl")
        assert len({round(record["loss"], 3) for record in records}) > 5
        assert len({record["tokens"] for record in records}) > 5


@pytest.mark.parametrize(
    "settings", [["row_tokens=1"], ["row_tokens=1600"], ["gradient_checkpointing=true"]], ids=" ".join
)
def test_what_must_not_matter_does_not(recorded: Recorded, settings: list[str]) -> None:
    output = recorded.begin(" ".join(settings))
    call("train", *recorded.arguments(output, *settings))
    assert gap(recorded.output, output) < TOLERANCE
    assert weights_gap(recorded.output, output) < WEIGHTS


@pytest.mark.parametrize("order", [lambda units: units[::-1], lambda units: [*units[1:], *units[:1]]], ids=["-1", "+1"])
def test_the_order_of_packing_does_not_matter(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch, order: Order, request: pytest.FixtureRequest
) -> None:
    original = StepCollator.__call__

    def packed(self: StepCollator, episodes: object) -> dict[str, StepBatch]:
        units = order(list(original(self, episodes)["step"].units))  # type: ignore[arg-type]
        return {"step": StepBatch(split_passes(units, self.config.row_tokens))}

    monkeypatch.setattr(StepCollator, "__call__", packed)
    output = recorded.begin(request.node.callspec.id)
    call("train", *recorded.arguments(output))
    assert gap(recorded.output, output) < TOLERANCE


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one(recorded: Recorded) -> None:
    output = recorded.begin("ddp")
    text = two_ranks("ddp", "train", *recorded.arguments(output, "row_tokens=1"))
    assert text.count("Training fspo: done") == 1  # one process speaks
    assert gap(recorded.output, output) < TOLERANCE
    assert weights_gap(recorded.output, output) < WEIGHTS


@pytest.mark.slow
def test_two_processes_that_share_the_weights_give_the_losses_of_one_although_one_of_them_died(
    recorded: Recorded,
) -> None:
    output = recorded.begin("fsdp2")
    arguments = ["train", *recorded.arguments(output, "row_tokens=1600", "gradient_checkpointing=true")]
    folder = output / "methods/fspo"
    text = killed(launch("fsdp2", *arguments), "1", lambda: len(read_jsonl(folder / "metrics.jsonl")) >= 5)
    assert "Training ipo: done" in text
    assert gap(recorded.output, output, ["ipo"]) < TOLERANCE
    checkpoint = newest_checkpoint(folder / "checkpoints")
    assert checkpoint is not None
    assert read_json(checkpoint / "trainer_state.json")["global_step"] >= 4
    assert not (folder / "policy.json").exists()
    text = two_ranks("fsdp2", *arguments)
    assert "of 10 done before" in text
    assert gap(recorded.output, output) < TOLERANCE
    assert weights_gap(recorded.output, output) < WEIGHTS
    for method in METHODS:
        assert type(load_policy(output / "methods" / method)).__name__ == "LlamaForCausalLM"


def killed(process: subprocess.Popen[str], victim: str, moment: Callable[[], bool]) -> str:
    """Kill one of the processes at that moment; what the command printed. The others must not wait for it for long."""
    try:
        while process.poll() is None and not moment():
            time.sleep(0.005)
        [worker] = [child for child in psutil.Process(process.pid).children() if child.environ().get("RANK") == victim]
        worker.kill()
        out, _ = process.communicate(timeout=120)  # by itself gloo waits for half an hour
        assert process.returncode not in (0, None)
        return out
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
