"""How long a training takes: the time of one episode, measured."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from fspo.modeling.loading import fast_dtype
from fspo.modeling.preparing import prepare_model
from fspo.training.adapters import frozen_copy, prepare_weights
from fspo.training.config import TrainingConfig
from fspo.training.processes import joined
from fspo.training.references import reference_of
from fspo.training.start import Start
from fspo.training.steps import StepBatch, Unit
from fspo.training.trainer import PolicyTrainer

__all__ = ["time_episode"]


def time_episode(config: TrainingConfig, model: str | Path, unit: Unit, folder: Path) -> float:
    """Seconds that one episode takes through a model, forth and back, as in a step of a training with these settings.

    The settings have one user in a step. The folder is empty, for what a trainer may write.

    Raises:
        ModelError: the model can't be loaded, or can't be trained by trunk and branches.
    """
    if config.dtype == "auto":
        config = config.model_copy(update={"dtype": fast_dtype()})
    joined()
    loaded = Start(model, folder).load()
    prepare_model(loaded)
    policy = prepare_weights(loaded, config.lora, seed=config.seed)
    frozen = frozen_copy(policy) if config.lora is None and config.needs_reference else None
    reference = reference_of(policy, frozen) if config.needs_reference else None
    nothing: Any = []
    trainer = PolicyTrainer(policy, config=config, stream=nothing, collator=nothing, folder=folder, reference=reference)
    trained: Any = trainer.model
    taken: list[float] = []
    while len(taken) < 2 and sum(taken) < 2:  # the first pass also pays for what is made once
        started = time.monotonic()
        trainer.training_step(trained, {"step": StepBatch(((unit,),))})
        taken.append(time.monotonic() - started)
    return min(taken)
