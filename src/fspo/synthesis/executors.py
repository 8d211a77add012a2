"""Who labels the shards: this process, or several (`fspo.synthesis.ray_executor`). The labels are the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from fspo.progress import Task
from fspo.synthesis.shards import Labeller, Shard

__all__ = ["Executor", "InProcessExecutor"]


class Executor(Protocol):
    """Has shards labelled."""

    def label(self, here: Labeller, shards: Sequence[Shard], task: Task) -> Iterator[Shard]:
        """Yield each shard when its files are there, in any order.

        Args:
            here: labels in this process, where that is wanted; `here.work` says what others need to know.
            shards: those that are not finished.
            task: advanced by the users that are labelled.

        Raises:
            ModelError: the judge failed; finished shards stay.
            StorageError: the disk is full.
        """


class InProcessExecutor:
    """Labels one shard after the other in this process."""

    def label(self, here: Labeller, shards: Sequence[Shard], task: Task) -> Iterator[Shard]:
        """Yield each shard when its files are there."""
        for shard in shards:
            here.label(shard, task)
            yield shard
