"""What happens beside the steps of a training: a checkpoint after some minutes, however few steps they hold."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from fspo.training.processes import agreed

__all__ = ["SaveByTime"]


class SaveByTime(TrainerCallback):
    """Asks for a checkpoint after the first step that ends so many minutes after the last checkpoint."""

    def __init__(self, minutes: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`minutes` between checkpoints, by `clock` in seconds."""
        self._seconds, self._clock = 60 * minutes, clock
        self._saved = clock()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Count from the first step on."""
        self._saved = self._clock()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Ask for a checkpoint when it is time; rank 0's clock counts for all processes, which save together."""
        if agreed(self._clock() - self._saved >= self._seconds):
            control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Count from this checkpoint on, whatever asked for it."""
        self._saved = self._clock()
