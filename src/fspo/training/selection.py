"""Which step's weights are the policy: the best one on held-out people, and when to stop looking for a better one.

What was measured stands in the metrics, so that a training which was killed decides as one which was not.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from fspo.errors import StorageError
from fspo.files import read_jsonl
from fspo.training import checkpoints

__all__ = ["ACCURACY", "Course", "best_weights", "forget_best", "save_best"]

ACCURACY = "eval_margin_accuracy"
"""The figure by which steps are compared."""

_FOLDER = "best"
_KEPT = 2
"""Sets of best weights on disk: one that is being replaced is there until its successor is whole."""


class Course:
    """The evaluations of one training."""

    def __init__(self, accuracies: Mapping[int, float] | None = None) -> None:
        """Begin with evaluations that were made before."""
        self._accuracies = dict(accuracies or {})

    @classmethod
    def read(cls, metrics: Path, until: int) -> Course:
        """The evaluations on record, of steps up to `until`."""
        records = read_jsonl(metrics) if metrics.exists() else []
        return cls({r["step"]: r[ACCURACY] for r in records if ACCURACY in r and r["step"] <= until})

    def add(self, step: int, accuracy: float) -> None:
        """Note an evaluation."""
        self._accuracies[step] = accuracy

    @property
    def best(self) -> int | None:
        """The step with the highest accuracy, the first one of equals; None before any evaluation."""
        return max(self._accuracies, key=lambda step: (self._accuracies[step], -step), default=None)

    def is_over(self, patience: int) -> bool:
        """Whether the last `patience` evaluations brought nothing better; 0 never gives up."""
        best = self.best
        return best is not None and 0 < patience <= sum(step > best for step in self._accuracies)


def save_best(folder: Path, step: int, weights: Mapping[str, Tensor]) -> None:
    """Keep the trained weights of `step` among the checkpoints in `folder`, whole or not at all.

    Raises:
        StorageError: the disk is full or can't be written.
    """
    checkpoints.save_checkpoint(folder / _FOLDER, step, tensors={"weights": weights}, records={}, keep=_KEPT)


def best_weights(folder: Path, step: int) -> Path:
    """The checkpoint with the weights that `save_best` kept of `step`.

    Raises:
        StorageError: it is not there, or not whole.
    """
    newest = checkpoints.newest_checkpoint(folder / _FOLDER)
    if newest is None or newest.name != f"checkpoint-{step}":
        raise StorageError(
            f"{folder / _FOLDER} does not hold the weights of step {step}, which were the best; delete {folder.parent} "
            "and train again."
        )
    return newest


def forget_best(folder: Path, step: int) -> None:
    """Delete what was kept of steps after `step`, which are about to be taken again."""
    for kept in (folder / _FOLDER).glob("checkpoint-*"):
        number = kept.name.rpartition("-")[2]
        if number.isdigit() and int(number) > step:
            shutil.rmtree(kept, ignore_errors=True)
