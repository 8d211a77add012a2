"""Which step's weights are the policy: the best one on held-out people, and when to stop looking for a better one.

What was measured stands in the metrics, so that a training which was killed decides as one which was not.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from fspo.errors import StorageError
from fspo.files import read_jsonl
from fspo.training import checkpoints

__all__ = ["Course", "best_weights", "forget_best", "prune_best", "remove_all", "save_best"]

_FIGURES = ("eval_margin_accuracy", "eval_margin")
"""Steps are compared by the first, and where they are equal in it by the second: accuracy is coarse."""

_FOLDER = "best"


class Course:
    """The evaluations of one training."""

    def __init__(self) -> None:
        """Begin without any."""
        self._figures: dict[int, tuple[float, ...]] = {}

    @classmethod
    def read(cls, metrics: Path, until: int) -> Course:
        """The evaluations on record, of steps up to `until`."""
        course = cls()
        for record in read_jsonl(metrics) if metrics.exists() else []:
            if record["step"] <= until:
                course.add(record["step"], record)
        return course

    def add(self, step: int, figures: Mapping[str, float]) -> bool:
        """Note the figures of a step, and return whether there is an evaluation among them."""
        evaluated = all(name in figures for name in _FIGURES)
        if evaluated:
            self._figures[step] = tuple(_comparable(figures[name]) for name in _FIGURES)
        return evaluated

    @property
    def best(self) -> int | None:
        """The step with the highest accuracy, of equals the larger margin; None before any evaluation."""
        return max(self._figures, key=lambda step: (self._figures[step], -step), default=None)

    def is_over(self, patience: int) -> bool:
        """Whether the last `patience` evaluations brought nothing better; 0 never gives up."""
        best = self.best
        return best is not None and 0 < patience <= sum(step > best for step in self._figures)


def _comparable(figure: float | None) -> float:
    # What is not a number is null in a file, and never the best.
    return figure if figure is not None and math.isfinite(figure) else -math.inf


def save_best(folder: Path, step: int, weights: Mapping[str, Tensor]) -> None:
    """Keep the trained weights of `step` among the checkpoints in `folder`, whole or not at all.

    Raises:
        StorageError: the disk is full or can't be written.
    """
    checkpoints.save_checkpoint(folder / _FOLDER, step, tensors={"weights": weights}, records={}, keep=None)
    prune_best(folder)


def prune_best(folder: Path) -> None:
    """Delete the best weights that nothing in `folder` can ask for any more.

    A training that is killed goes on from a checkpoint and forgets what was the best after it, so that what was the
    best at each of the checkpoints stays, as does the best of all.
    """
    kept = checkpoints.steps_of(folder / _FOLDER)
    needed = {max(kept, default=0)}
    for resumed in checkpoints.steps_of(folder):
        needed.add(max((step for step in kept if step <= resumed), default=0))
    for step in kept.keys() - needed:
        shutil.rmtree(kept[step], ignore_errors=True)


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


def remove_all(folder: Path) -> None:
    """Remove the checkpoints in `folder` and the best weights among them; files of others stay."""
    for place in (folder / _FOLDER, folder):
        checkpoints.remove_checkpoints(place)


def forget_best(folder: Path, step: int) -> None:
    """Delete what was kept of steps after `step`, which are about to be taken again."""
    for number, kept in checkpoints.steps_of(folder / _FOLDER).items():
        if number > step:
            shutil.rmtree(kept, ignore_errors=True)
