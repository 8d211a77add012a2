"""One recorded trajectory of the real command; ways of training that must all give it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import pytest

from fspo.files import read_json, read_jsonl
from fspo.modeling.policies import load_policy
from fspo.training.checkpoints import newest_checkpoint
from fspo.training.steps import StepBatch, StepCollator, split_passes
from tests.training.trajectories import METHODS, TOLERANCE, Recorded, call, gap, launched, moved, two_ranks, weights_gap

WEIGHTS = 1e-4
"""A tenth of one step: AdamW makes steps of full size of the smallest gradients, rounding and all."""


@pytest.fixture(scope="module")
def recorded(tiny_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return Recorded(tmp_path_factory.mktemp("trajectory"), tiny_model_path)


def test_the_trajectory_goes_somewhere(recorded: Recorded, tiny_model_path: Path) -> None:
    assert moved(recorded.output, tiny_model_path) > 0.01
    for method in METHODS:
        records = read_jsonl(recorded.output / "methods" / method / "metrics.jsonl")
        assert len({round(record["loss"], 3) for record in records}) > 5
        assert len({record["tokens"] for record in records}) > 5


def test_what_saves_memory_does_not_matter(recorded: Recorded) -> None:
    output = recorded.begin("frugal")
    call("train", *recorded.arguments(output, "row_tokens=1", "gradient_checkpointing=true"))
    assert gap(recorded.output, output) < TOLERANCE
    assert weights_gap(recorded.output, output) < WEIGHTS


def test_the_order_of_packing_does_not_matter(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    original = StepCollator.__call__

    def packed(self: StepCollator, episodes: object) -> dict[str, StepBatch]:
        first, *units = original(self, episodes)["step"].units  # type: ignore[arg-type]
        return {"step": StepBatch(split_passes([*units, first], self.config.row_tokens))}

    monkeypatch.setattr(StepCollator, "__call__", packed)
    output = recorded.begin("packed")
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
    text = killed("fsdp2", recorded.folder, arguments, "1", lambda: len(read_jsonl(folder / "metrics.jsonl")) >= 5)
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


def killed(kind: str, folder: Path, arguments: Sequence[object], victim: str, moment: Callable[[], bool]) -> str:
    """Kill one of the processes at that moment; what the command printed. The others must not wait for it for long."""
    with launched(kind, folder, *arguments) as (launcher, out):
        while launcher.poll() is None and not moment():
            time.sleep(0.02)
        children = psutil.Process(launcher.pid).children()
        [worker] = [child for child in children if child.environ().get("RANK") == victim]
        worker.kill()
        assert launcher.wait(timeout=120) != 0  # by itself gloo waits for half an hour
        out.seek(0)
        return out.read()
