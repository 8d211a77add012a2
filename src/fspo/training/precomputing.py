"""What the reference says of fixed episodes, asked once before the first step and kept in a file."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from accelerate import Accelerator

from fspo.errors import TrainingError
from fspo.progress import Progress
from fspo.records import KeyedLog
from fspo.training.config import TrainingConfig
from fspo.training.losses import Reference, reference_margins
from fspo.training.processes import agreed, collected
from fspo.training.steps import Margins, Unit

__all__ = ["REFERENCE_FILE", "precompute"]

REFERENCE_FILE = "reference.jsonl"
"""A line for each episode, with the part of the data that it is from."""


def precompute(
    reference: Reference,
    unit: Callable[[int], Unit],
    count: int,
    *,
    part: str,
    config: TrainingConfig,
    folder: Path,
    accelerator: Accelerator,
    progress: Progress,
) -> dict[int, Margins]:
    """The reference's margins of the episodes 0 to `count` - 1, by their numbers; those on file are not asked again.

    `part` names what they are drawn from, unlike anything else that `folder` may hold margins of (`reference.jsonl`).
    `accelerator` knows the precision, and the other processes, which share the episodes.

    Raises:
        TrainingError: a margin is not a number.
        StorageError: the disk is full.
    """
    log = KeyedLog(folder / REFERENCE_FILE, Margins)
    found = agreed({number: log[key] for number in range(count) if (key := f"{part}/{number}") in log})
    missing = [number for number in range(count) if number not in found]
    if not missing:
        return found
    own, processes = accelerator.process_index, accelerator.num_processes
    with progress.task("Scoring episodes by the reference", count, count - len(missing)) as task:
        for first in range(0, len(missing), processes):
            numbers = missing[first : first + processes]
            scored = {}
            if own < len(numbers):
                with accelerator.autocast():
                    scored = {numbers[own]: reference_margins(reference, unit(numbers[own]), config)}
            for one in collected(scored):
                for number, margins in one.items():
                    if not all(map(math.isfinite, [*margins.plain, *(margins.mirrored or ())])):
                        raise TrainingError(
                            f"The reference's score of episode {number} is not a number; look at its data."
                        )
                    found[number] = margins
                    if accelerator.is_main_process:
                        log.put(f"{part}/{number}", margins)
            task.advance(len(numbers))
    return found
