"""What happens beside the steps of a training: checkpoints by time, and a look at the first steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from fspo.training.processes import agreed

__all__ = ["FirstEffect", "FirstSteps", "SaveByTime"]


class FirstEffect(TrainerCallback):
    """Says after the first step that the labels' effect is above the target already, where it is."""

    def __init__(self, say: Callable[[str], object], target: float) -> None:
        """`target` in nats, as in the settings."""
        self._say, self._target = say, target

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Compare the effect of step 1, whose weights are those before training; a resumed training has no step 1."""
        effect = (logs or {}).get("effect", 0.0)
        if state.global_step == 1 and effect > self._target:
            self._say(
                f"The labels' effect is {effect:.3g} nats in step 1, above the target of {self._target:g}: training "
                "will shrink it, and the reward against a reference model that sees the shots may rank pairs the wrong "
                f"way. Set target above {effect:.3g}, or contrast: direction, which leaves the size free but needs "
                "target: observer and responses above 2."
            )


class FirstSteps(TrainerCallback):
    """Tells once how fast the first steps of this process were."""

    def __init__(self, tell: Callable[[float, int], object], steps: int = 2) -> None:
        """Call `tell` after so many steps with the tokens per second of the last of them, and the steps done in all."""
        self._tell, self._left = tell, steps

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Count a step, or the last one if the training has fewer."""
        if self._left and logs and "tokens_per_second" in logs:
            self._left = 0 if state.global_step >= state.max_steps else self._left - 1
            if not self._left:
                self._tell(logs["tokens_per_second"], state.global_step)


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
