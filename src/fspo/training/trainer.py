"""The training loop: transformers' Trainer, fed with episodes, with losses on branches and crash-safe checkpoints."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback
from transformers.integrations.integration_utils import TensorBoardCallback

from fspo.errors import ConfigError, StorageError, TrainingError
from fspo.files import append_jsonl, read_jsonl, write_text
from fspo.modeling.generation import evaluating
from fspo.modeling.memory import give_back_memory, keep_memory
from fspo.modeling.threads import sleep_while_busy
from fspo.progress import Task
from fspo.training import checkpoints, processes
from fspo.training.arguments import arguments
from fspo.training.callbacks import SaveByTime
from fspo.training.companion import Companion
from fspo.training.config import TrainingConfig
from fspo.training.losses import (
    PassScores,
    Reference,
    add_figures,
    figures,
    means,
    partial_loss,
    score,
    with_margins,
    without_loss,
)
from fspo.training.rationalization import Rationalizer
from fspo.training.references import FrozenReference, trainable_weights
from fspo.training.selection import Course, best_weights, prune_best, save_best
from fspo.training.steps import EpisodeStream, Margins, Share, StepBatch, StepCollator, Unit, shares

__all__ = ["CHECKPOINTS_FOLDER", "LOGS_FOLDER", "METRICS_FILE", "PolicyTrainer", "trim_metrics"]

METRICS_FILE = "metrics.jsonl"
CHECKPOINTS_FOLDER = "checkpoints"
LOGS_FOLDER = "logs"
"""What trackers write, beside the checkpoints."""


class PolicyTrainer(Trainer):
    """Trains a policy on episodes; every step's figures go to `metrics.jsonl` at once.

    Of transformers' Trainer it uses the loop, optimiser, schedule, clipping, precision, devices and trackers. A step is
    cut into passes of bounded size, whose gradients add up to those of the whole step. Several processes share the
    units of each step, balanced by their tokens, and all add up to the same gradients.

    Attributes:
        listener: told of every step done, if there is one.
        course: the evaluations made so far.
        measure: gives metrics of the caller's own, which join those of every evaluation.
        validation: units that are measured now and then.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        *,
        config: TrainingConfig,
        stream: EpisodeStream,
        collator: StepCollator,
        folder: Path,
        reference: Reference | None = None,
        validation: Sequence[Unit] = (),
        rationalizer: Rationalizer | None = None,
        companion: Companion | None = None,
        callbacks: Sequence[TrainerCallback | type[TrainerCallback]] = (),
    ) -> None:
        """Prepare a training of `config.steps` steps whose checkpoints and metrics live in `folder`.

        Weights that require gradients are trained. `reference` enters the reference model, and the rationalizer lets
        the policy draft the descriptions of every step, where the settings ask for them. `validation` is scored every
        `config.evaluate_every` steps, rendered with both sides and the mirror. The companion is a part of the model.

        Raises:
            ConfigError: a step has fewer users than there are processes, or these are to shard the weights in a way
                that is not supported.
        """
        self._config, self._folder, self._collator = config, folder, collator
        self.listener: Task | None = None
        self.measure: Callable[[], Mapping[str, float]] | None = None
        keep_memory()
        sleep_while_busy()
        self.course = Course()
        self._reference, self.validation, self._rationalizer = reference, list(validation), rationalizer
        self._companion = companion
        self._figures: dict[str, float] = {}
        self._batch = StepBatch(())
        self._started = time.monotonic()
        own_callbacks: list[Any] = [SaveByTime(config.save_minutes)] if config.save_minutes else []
        own_callbacks += callbacks
        super().__init__(
            model=model,
            args=arguments(config, folder / CHECKPOINTS_FOLDER),
            train_dataset=stream,
            data_collator=collator,
            callbacks=own_callbacks,
        )
        if self.is_fsdp_enabled and rationalizer is not None:
            raise ConfigError(
                "A model whose weights are sharded over processes can't draft descriptions; launch with "
                "configs/accelerate/ddp.yaml, or set describe to gold or none."
            )
        if self.is_fsdp_enabled and companion is not None:
            raise ConfigError(
                "A model whose weights are sharded over processes can't train a method's own weights beside it; launch "
                "with configs/accelerate/ddp.yaml."
            )
        if self.is_fsdp_enabled and config.precompute_reference and config.needs_reference:
            raise ConfigError(
                "A model whose weights are sharded over processes can't score episodes beforehand; launch with "
                "configs/accelerate/ddp.yaml, or set precompute_reference: false."
            )
        if self.is_fsdp_enabled and isinstance(reference, FrozenReference):
            reference.frozen = processes.sharded_reference(self.accelerator, reference.frozen)
        self.remove_callback(PrinterCallback)  # progress has its own line
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, TensorBoardCallback) and callback.logging_dir is None:
                callback.logging_dir = str(folder / LOGS_FOLDER)

    def create_accelerator_and_postprocess(self) -> None:
        """Let accelerate find out which processes there are, and whether these shard the weights."""
        processes.check_launcher()
        super().create_accelerator_and_postprocess()
        self.is_fsdp_enabled = processes.setup_sharding(self.accelerator)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The steps; every process draws all units of a step and trains on its share of them."""
        stream: Any = self.train_dataset
        return DataLoader(stream, batch_size=self._config.users_per_step, collate_fn=self.data_collator)

    def training_step(
        self, model: torch.nn.Module, inputs: dict[str, Any], num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """One optimiser step's losses and gradients, pass by pass.

        Raises:
            TrainingError: the loss is not a number, naming step, episodes and users.
        """
        self._started = time.monotonic()
        model.train()
        batch: StepBatch = inputs["step"]
        if self._rationalizer is not None:
            batch = self._rationalizer.step(self.accelerator.unwrap_model(model), batch)
        self._batch = batch
        count, share = self.accelerator.num_processes, self._share(batch)
        sums: dict[str, float] = {"loss": 0.0}
        broken: list[Unit] = []
        for turn, units in enumerate(share.passes):
            counts = turn < share.counted
            with self._gradients_meet(model, last=turn + 1 == len(share.passes)):
                scores = self._scores(model, units)
                loss = partial_loss(scores, self._config, pairs=batch.pairs, descriptions=batch.descriptions) * counts
                # Gradients are averaged over the processes, and are to be summed.
                self.accelerator.backward(loss * count)
            sums["loss"] += (value := loss.item())
            if not math.isfinite(value):
                broken += without_loss(scores, units, self._config)
            if counts:
                add_figures(sums, figures(scores, self._config), units, batch)
        self._figures = self._summed(sums)
        total = self._figures.pop("loss")
        if not math.isfinite(total):
            found = [unit for part in processes.collected(broken) for unit in part]
            raise self._not_finite("loss", found or list(batch.units))
        give_back_memory()
        return torch.tensor(total, device=self.args.device)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Write the figures of a step to `metrics.jsonl`, to trackers and to whoever shows progress."""
        if "loss" in logs:
            logs |= self._figures | self._speed()
            if self._config.evaluate_every and self.state.global_step % self._config.evaluate_every == 0:
                logs |= self.with_own_metrics(self.evaluate_episodes())
            if self.is_world_process_zero():
                append_jsonl(self._folder / METRICS_FILE, {"step": self.state.global_step, **logs})
                if self.listener is not None:
                    self.listener.advance(1, _note(logs))
            self._select(logs)
        super().log(logs, start_time)

    def evaluate_episodes(self) -> dict[str, float]:
        """Figures on the validation episodes, their names starting with `eval_`; nothing without such episodes."""
        if not self.validation:
            return {}
        process, count = self.accelerator.process_index, self.accelerator.num_processes
        rows: list[dict[str, float]] = []
        units: Sequence[Unit] = self.validation
        with evaluating(self._unwrapped()) as policy, torch.no_grad():
            if self._rationalizer is not None:
                units = self._rationalizer.measured(policy)
            for first in range(0, len(units), count):
                counts = first + process < len(units)
                # A process without a unit left scores another one along with the others, and doesn't count it.
                place = first + process if counts else 0
                scores = self._scores(policy, [units[place]])
                rows += [figures(scores, self._config)] if counts else []
                if units is self.validation and not self.is_fsdp_enabled:
                    self.validation[place] = with_margins(units[place], scores)
        found = means([row for part in processes.collected(rows) for row in part])
        return {f"eval_{name}": value for name, value in found.items()}

    def with_own_metrics(self, found: Mapping[str, float]) -> dict[str, float]:
        """`found` and what `measure` gives, as `eval_NAME`; it changes nothing in what is drawn after it.

        Raises:
            ConfigError: it gives something else than names and numbers, or a name that `found` has.
        """
        if self.measure is None:
            return dict(found)
        state = checkpoints.random_state()
        try:
            own = self.measure()
        finally:
            checkpoints.restore_random_state(*state)
        if not isinstance(own, Mapping) or not all(isinstance(value, int | float) for value in own.values()):
            raise ConfigError(f"compute_metrics must return names and numbers, such as {{'words': 12.0}}, not {own!r}.")
        if taken := [name for name in own if f"eval_{name}" in found]:
            raise ConfigError(
                f"compute_metrics returned '{taken[0]}', which is a metric of fspo; name yours differently."
            )
        return {**found, **{f"eval_{name}": float(value) for name, value in own.items()}}

    def remember(self, margins: Mapping[int, Margins], validation: Mapping[int, Margins]) -> None:
        """Take the reference's margins of these episodes, by their numbers, instead of asking it in every step."""
        self.data_collator = self._collator = dataclasses.replace(self._collator, margins=margins)
        self.validation = [dataclasses.replace(unit, margins=validation[unit.index]) for unit in self.validation]

    def restore_best(self) -> None:
        """Give the policy the weights of the best evaluation."""
        if self.course.best is not None:
            self.restore(best_weights(self._folder / CHECKPOINTS_FOLDER, self.course.best))

    def restore(self, checkpoint: Path) -> None:
        """Give the policy the weights of a checkpoint."""
        self._load_from_checkpoint(str(checkpoint))

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not counted: transformers' estimate knows nothing of branches."""
        return 0

    def _select(self, logs: dict[str, float]) -> None:
        step = self.state.global_step
        if not self.course.add(step, logs):
            return
        if self._config.keep_best and self.course.best == step:
            weights = processes.whole(self._trained())
            if self.args.should_save:
                save_best(self._folder / CHECKPOINTS_FOLDER, step, weights)
            self.accelerator.wait_for_everyone()
        if self.course.is_over(self._config.patience):
            self.control.should_training_stop = self.control.should_save = True

    def _scores(self, policy: torch.nn.Module, units: Sequence[Unit]) -> PassScores:
        with self.accelerator.autocast():
            return score(policy, units, self._config, self._reference, self._companion)

    def _share(self, batch: StepBatch) -> Share:
        if self.accelerator.num_processes == 1:
            return Share(batch.passes, len(batch.passes))
        own: int = self.accelerator.process_index
        return shares(list(batch.units), self.accelerator.num_processes, self._config.row_tokens)[own]

    def _gradients_meet(self, model: torch.nn.Module, *, last: bool) -> AbstractContextManager[Any]:
        """Replicated weights are averaged once a step; of sharded ones no process holds all gradients for so long."""
        return nullcontext() if last or self.is_fsdp_enabled else self.accelerator.no_sync(model)

    def _summed(self, sums: dict[str, float]) -> dict[str, float]:
        """The sums of all processes added up; what one of them lacks counts as nothing."""
        total: dict[str, float] = {}
        for part in processes.collected(sums):
            for name, value in part.items():
                total[name] = total.get(name, 0.0) + value
        return total

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: Any = None) -> Any:
        # The last place before the optimiser would spread what is not a number into all weights.
        norm = super()._get_grad_norm(model, grad_norm)  # type: ignore[no-untyped-call]
        if not math.isfinite(float(norm)):
            raise self._not_finite("gradient", list(self._batch.units))
        return norm

    def _not_finite(self, what: str, units: Sequence[Unit]) -> TrainingError:
        episodes = ", ".join(str(index) for index in sorted({unit.index for unit in units}))
        users = ", ".join(sorted({unit.user for unit in units}))
        return TrainingError(
            f"The {what} of step {self.state.global_step + 1} is not a number (episodes {episodes} of users {users}); "
            "lower the learning rate, or look at these users' data. What was trained up to the last checkpoint is kept."
        )

    def _speed(self) -> dict[str, float]:
        seconds = time.monotonic() - self._started
        tokens = self._batch.tokens
        dropped = sum(unit.plain.dropped_shots for unit in self._batch.units)
        return {
            "tokens": tokens,
            "seconds": seconds,
            "tokens_per_second": tokens / max(seconds, 1e-9),
            "dropped_shots": dropped,
        }

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        optimizer, optimizer_record = checkpoints.optimizer_state(self._tools()[0])
        weights, optimizer = processes.whole(self._trained()), processes.whole(optimizer)
        random = processes.collected(checkpoints.random_state())
        if self.args.should_save:
            names = [f"random-{process}" for process in range(len(random))]
            checkpoints.save_checkpoint(
                self._folder / CHECKPOINTS_FOLDER,
                self.state.global_step,
                tensors={
                    "weights": weights,
                    "optimizer": optimizer,
                    **{name: tensors for name, (tensors, _) in zip(names, random, strict=True)},
                },
                records={
                    "optimizer": optimizer_record,
                    "scheduler": self._tools()[1].state_dict(),
                    "trainer_state": dataclasses.asdict(self.state),
                    **{name: record for name, (_, record) in zip(names, random, strict=True)},
                },
            )
            prune_best(self._folder / CHECKPOINTS_FOLDER)
        self.accelerator.wait_for_everyone()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        weights = self._trained()
        saved = checkpoints.read_tensors(Path(resume_from_checkpoint), "weights")
        if {name: weight.shape for name, weight in weights.items()} != {
            name: weight.shape for name, weight in saved.items()
        }:
            raise StorageError(
                f"{resume_from_checkpoint} holds other weights than the ones to be trained; delete it to start again."
            )
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(processes.like(saved[name], weight))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            folder = Path(checkpoint)
            optimizer, scheduler = self._tools()
            weights = [weight for group in optimizer.param_groups for weight in group["params"]]
            tensors = {
                name: processes.like(value, weights[int(name.split(".")[0])])
                for name, value in checkpoints.read_tensors(folder, "optimizer").items()
            }
            checkpoints.restore_optimizer(optimizer, tensors, checkpoints.read_record(folder, "optimizer"))
            scheduler.load_state_dict(checkpoints.read_record(folder, "scheduler"))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            folder = Path(checkpoint)
            name = f"random-{self.accelerator.process_index}"
            if not (folder / f"{name}.json").exists():  # fewer processes wrote it
                name = "random-0"
            checkpoints.restore_random_state(
                checkpoints.read_tensors(folder, name), checkpoints.read_record(folder, name)
            )

    def _tools(self) -> tuple[torch.optim.Optimizer, Any]:
        if self.optimizer is None or self.lr_scheduler is None:
            raise TrainingError("There is nothing to save or to restore before training has begun.")
        return self.optimizer, self.lr_scheduler

    def _trained(self) -> dict[str, torch.nn.Parameter]:
        processes.reshard(self._unwrapped())
        return trainable_weights(self._unwrapped())

    def _unwrapped(self) -> torch.nn.Module:
        module: torch.nn.Module = self.accelerator.unwrap_model(self.model)
        return module


def trim_metrics(folder: Path, step: int) -> None:
    """Forget the figures of steps after `step`, which are about to be taken again."""
    path = folder / METRICS_FILE
    if path.exists():
        kept = [record for record in read_jsonl(path) if record.get("step", 0) <= step]
        write_text(path, "".join(json.dumps(record) + "\n" for record in kept))


def _note(logs: dict[str, Any]) -> str:
    parts = [f"loss {logs['loss']:.3g}"]
    for name, title in (("margin_accuracy", "accuracy"), ("direction_accuracy", "direction"), ("nll", "nll")):
        if name in logs:
            parts.append(f"{title} {logs[name]:.2f}")
    parts.append(f"{logs['tokens_per_second']:.0f} tokens/s")
    return ", ".join(parts)
