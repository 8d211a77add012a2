"""Checkpoints: whole or not at all, and exact."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from fspo.errors import StorageError
from fspo.training import checkpoints


def save(folder: Path, step: int, keep: int = 2) -> Path:
    tensors = {"weights": {"a": torch.full((2,), float(step))}}
    return checkpoints.save_checkpoint(folder, step, tensors=tensors, records={"state": {"step": step}}, keep=keep)


def test_newest_complete_checkpoint_comes_back(tmp_path: Path) -> None:
    assert checkpoints.newest_checkpoint(tmp_path) is None
    for step in (2, 10, 9):
        save(tmp_path, step)
    newest = checkpoints.newest_checkpoint(tmp_path)
    assert newest == tmp_path / "checkpoint-10"
    assert checkpoints.read_tensors(newest, "weights")["a"].tolist() == [10.0, 10.0]
    assert checkpoints.read_record(newest, "state") == {"step": 10}


def test_only_the_newest_are_kept_and_nothing_is_left_lying_about(tmp_path: Path) -> None:
    (tmp_path / ".checkpoint-1.77").mkdir()
    for step in range(1, 6):
        save(tmp_path, step, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-4", "checkpoint-5"]


@pytest.mark.parametrize("damage", ["manifest", "missing", "short", "changed", "not json"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, damage: str) -> None:
    save(tmp_path, 1)
    newest = save(tmp_path, 2)
    weights = newest / "weights.safetensors"
    if damage == "manifest":
        (newest / "manifest.json").unlink()
    elif damage == "missing":
        weights.unlink()
    elif damage == "short":
        weights.write_bytes(weights.read_bytes()[:-1])
    elif damage == "changed":
        (newest / "state.json").write_text(json.dumps({"step": 3}))
    else:
        (newest / "manifest.json").write_text("[")
    assert checkpoints.newest_checkpoint(tmp_path) == tmp_path / "checkpoint-1"


def test_a_failed_save_leaves_older_checkpoints_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 1)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match="disk is full"):
        save(tmp_path, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]


def test_unreadable_tensors_are_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"weights\.safetensors"):
        checkpoints.read_tensors(tmp_path, "weights")


def trained(layer: torch.nn.Linear, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        layer(torch.randn(4, 3)).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD])
def test_optimizer_and_random_state_go_on_exactly(tmp_path: Path, kind: type[torch.optim.Optimizer]) -> None:
    torch.manual_seed(3)
    layer = torch.nn.Linear(3, 2)
    optimizer = kind(layer.parameters(), lr=0.1)  # type: ignore[call-arg]
    trained(layer, optimizer, 3)
    tensors, record = checkpoints.optimizer_state(optimizer)
    noise, noise_record = checkpoints.random_state()
    saved = checkpoints.save_checkpoint(
        tmp_path,
        3,
        tensors={"weights": dict(layer.state_dict()), "optimizer": tensors, "random": noise},
        records={"optimizer": record, "random": noise_record},
    )
    trained(layer, optimizer, 3)
    drawn = (random.random(), np.random.random(), torch.rand(1).item())

    again = torch.nn.Linear(3, 2)
    again.load_state_dict(checkpoints.read_tensors(saved, "weights"))
    other = kind(again.parameters(), lr=0.5)  # type: ignore[call-arg]
    checkpoints.restore_optimizer(
        other, checkpoints.read_tensors(saved, "optimizer"), checkpoints.read_record(saved, "optimizer")
    )
    checkpoints.restore_random_state(
        checkpoints.read_tensors(saved, "random"), checkpoints.read_record(saved, "random")
    )
    trained(again, other, 3)
    assert torch.equal(again.weight, layer.weight)
    assert (random.random(), np.random.random(), torch.rand(1).item()) == drawn
