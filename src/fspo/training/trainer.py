"""The training loop: transformers' Trainer, fed with episodes, with losses on branches and crash-safe checkpoints."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, Trainer, TrainingArguments

from fspo.errors import StorageError, TrainingError
from fspo.files import append_jsonl, read_jsonl, write_text
from fspo.modeling.memory import keep_memory
from fspo.progress import Task
from fspo.training import checkpoints
from fspo.training.config import TrainingConfig
from fspo.training.losses import Reference, figures, score, total_loss
from fspo.training.rationalization import Rationalizer
from fspo.training.selection import Course, best_weights, save_best
from fspo.training.steps import EpisodeStream, StepBatch, StepCollator, Unit

__all__ = ["CHECKPOINTS_FOLDER", "METRICS_FILE", "PolicyTrainer", "reference_of", "trainable_weights", "trim_metrics"]

METRICS_FILE = "metrics.jsonl"
CHECKPOINTS_FOLDER = "checkpoints"


class PolicyTrainer(Trainer):
    """Trains a policy on episodes; every step's figures go to `metrics.jsonl` at once.

    Of transformers' Trainer it uses the loop, optimiser, schedule, clipping, precision, devices and trackers. A step is
    cut into passes of bounded size, whose gradients add up to those of the whole step.

    Attributes:
        listener: told of every step done, if there is one.
        course: the evaluations made so far.
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
    ) -> None:
        """Prepare a training of `config.steps` steps whose checkpoints and metrics live in `folder`.

        Args:
            model: the policy; weights that require gradients are trained.
            config: the settings.
            stream: the episodes, `config.users_per_step` for each step.
            collator: renders them.
            folder: gets `metrics.jsonl` and `checkpoints/`.
            reference: enters the reference model, where the objective needs one.
            validation: units scored every `config.evaluate_every` steps, rendered with both sides and the mirror.
            rationalizer: lets the policy draft the descriptions of every step, where the settings ask for it.

        Raises:
            TrainingError: the processes can't share the users of a step evenly, or shard the weights.
        """
        self._config, self._folder = config, folder
        self.listener: Task | None = None
        keep_memory()
        self.course = Course()
        self._reference, self._validation, self._rationalizer = reference, validation, rationalizer
        self._figures: dict[str, float] = {}
        self._batch = StepBatch(())
        self._started = time.monotonic()
        super().__init__(model=model, args=_arguments(config, folder), train_dataset=stream, data_collator=collator)
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise TrainingError(
                "Weights sharded over processes are not supported yet; train with plain data parallelism."
            )
        if not config.report_to:
            self.remove_callback(PrinterCallback)

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
        total = torch.zeros((), device=self.args.device)
        sums: dict[str, float] = {}
        policy = self.accelerator.unwrap_model(model)
        if self._rationalizer is not None:
            batch = self._rationalizer.step(policy, batch)
        for units in batch.passes:
            share = sum(unit.pairs for unit in units) / batch.pairs
            loss, means = self._one_pass(policy, units)
            if not torch.isfinite(loss):
                raise self._not_finite("loss", batch)
            self.accelerator.backward(loss * share)
            total += loss.detach() * share
            for name, value in means.items():
                sums[name] = sums.get(name, 0.0) + value * share
        self._average_gradients(policy)
        self._batch, self._figures = batch, self._averaged(sums)
        return total

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The mean loss of a step in one go, without splitting it into passes; with its figures if `return_outputs`."""
        loss, means = self._one_pass(self.accelerator.unwrap_model(model), list(inputs["step"].units))
        return (loss, means) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Write the figures of a step to `metrics.jsonl`, to trackers and to whoever shows progress."""
        if "loss" in logs:
            logs |= self._figures | self._speed()
            if self._config.evaluate_every and self.state.global_step % self._config.evaluate_every == 0:
                logs |= self.evaluate_episodes()
            if self.is_world_process_zero():
                append_jsonl(self._folder / METRICS_FILE, {"step": self.state.global_step, **logs})
                if self.listener is not None:
                    self.listener.advance(1, _note(logs))
            self._select(logs)
        super().log(logs, start_time)

    def evaluate_episodes(self) -> dict[str, float]:
        """Figures on the validation episodes, their names starting with `eval_`; nothing without such episodes."""
        if not self._validation:
            return {}
        policy = self.accelerator.unwrap_model(self.model)
        was_training = policy.training
        policy.eval()
        sums: dict[str, float] = {}
        with torch.no_grad():
            for unit in self._validation if self._rationalizer is None else self._rationalizer.measured(policy):
                for name, value in self._one_pass(policy, [unit])[1].items():
                    sums[f"eval_{name}"] = sums.get(f"eval_{name}", 0.0) + value / len(self._validation)
        policy.train(was_training)
        return sums

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
            weights = trainable_weights(self._unwrapped())
            if self.args.should_save:
                save_best(self._folder / CHECKPOINTS_FOLDER, step, weights)
        if self.course.is_over(self._config.patience):
            self.control.should_training_stop = self.control.should_save = True

    def _one_pass(self, policy: torch.nn.Module, units: Sequence[Unit]) -> tuple[torch.Tensor, dict[str, float]]:
        with self.accelerator.autocast():
            scores = score(policy, units, self._config, self._reference)
        return total_loss(scores, self._config), figures(scores, self._config)

    def _average_gradients(self, policy: torch.nn.Module) -> None:
        # The passes go around DistributedDataParallel's forward, so its hooks don't do this.
        if self.accelerator.num_processes > 1:
            for weight in policy.parameters():
                if weight.requires_grad:
                    gradient = torch.zeros_like(weight) if weight.grad is None else weight.grad
                    weight.grad = self.accelerator.reduce(gradient, reduction="mean")

    def _averaged(self, means: dict[str, float]) -> dict[str, float]:
        if self.accelerator.num_processes == 1:
            return means
        values = torch.tensor(list(means.values()), device=self.args.device)
        return dict(zip(means, self.accelerator.reduce(values, reduction="mean").tolist(), strict=True))

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: Any = None) -> Any:
        # The last place before the optimiser would spread what is not a number into all weights.
        norm = super()._get_grad_norm(model, grad_norm)  # type: ignore[no-untyped-call]
        if not math.isfinite(float(norm)):
            raise self._not_finite("gradient", self._batch)
        return norm

    def _not_finite(self, what: str, batch: StepBatch) -> TrainingError:
        units = list(batch.units)
        return TrainingError(
            f"The {what} of step {self.state.global_step + 1} is not a number (episodes {units[0].index} to "
            f"{units[-1].index}, users {', '.join(sorted({unit.user for unit in units}))}); lower the learning rate, "
            f"or look at these users' data. What was trained up to the last checkpoint is kept."
        )

    def _speed(self) -> dict[str, float]:
        seconds = time.monotonic() - self._started
        tokens = self._batch.tokens * self.accelerator.num_processes
        dropped = sum(unit.plain.dropped_shots for unit in self._batch.units)
        return {
            "tokens": tokens,
            "seconds": seconds,
            "tokens_per_second": tokens / max(seconds, 1e-9),
            "dropped_shots": dropped,
        }

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        if self.args.should_save:
            optimizer, optimizer_record = checkpoints.optimizer_state(self._tools()[0])
            random, random_record = checkpoints.random_state()
            checkpoints.save_checkpoint(
                self._folder / CHECKPOINTS_FOLDER,
                self.state.global_step,
                tensors={"weights": trainable_weights(self._unwrapped()), "optimizer": optimizer, "random": random},
                records={
                    "optimizer": optimizer_record,
                    "random": random_record,
                    "scheduler": self._tools()[1].state_dict(),
                    "trainer_state": dataclasses.asdict(self.state),
                },
            )
        self.accelerator.wait_for_everyone()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        weights = trainable_weights(self._unwrapped())
        saved = checkpoints.read_tensors(Path(resume_from_checkpoint), "weights")
        if {name: weight.shape for name, weight in weights.items()} != {
            name: weight.shape for name, weight in saved.items()
        }:
            raise StorageError(
                f"{resume_from_checkpoint} holds other weights than the ones to be trained; delete it to start again."
            )
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(saved[name])

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            folder = Path(checkpoint)
            tensors = checkpoints.read_tensors(folder, "optimizer")
            optimizer, scheduler = self._tools()
            checkpoints.restore_optimizer(optimizer, tensors, checkpoints.read_record(folder, "optimizer"))
            scheduler.load_state_dict(checkpoints.read_record(folder, "scheduler"))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            folder = Path(checkpoint)
            tensors = checkpoints.read_tensors(folder, "random")
            checkpoints.restore_random_state(tensors, checkpoints.read_record(folder, "random"))

    def _tools(self) -> tuple[torch.optim.Optimizer, Any]:
        if self.optimizer is None or self.lr_scheduler is None:
            raise TrainingError("There is nothing to save or to restore before training has begun.")
        return self.optimizer, self.lr_scheduler

    def _unwrapped(self) -> torch.nn.Module:
        module: torch.nn.Module = self.accelerator.unwrap_model(self.model)
        return module


def trainable_weights(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The weights that are trained, by name."""
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def trim_metrics(folder: Path, step: int) -> None:
    """Forget the figures of steps after `step`, which are about to be taken again."""
    path = folder / METRICS_FILE
    if path.exists():
        kept = [record for record in read_jsonl(path) if record.get("step", 0) <= step]
        write_text(path, "".join(json.dumps(record) + "\n" for record in kept))


def reference_of(model: torch.nn.Module, frozen: torch.nn.Module | None) -> Reference:
    """The reference model: `frozen` if there is one, else `model` with its adapters off."""

    @contextmanager
    def without_adapters() -> Iterator[torch.nn.Module]:
        was_training = model.training
        model.eval()  # a reference drops nothing out
        try:
            with model.disable_adapter():  # type: ignore[operator]
                yield model
        finally:
            model.train(was_training)

    # The copy is no part of the model that the trainer puts on a device, so it follows it here.
    return without_adapters if frozen is None else lambda: nullcontext(frozen.to(next(model.parameters()).device))


def _arguments(config: TrainingConfig, folder: Path) -> TrainingArguments:
    arguments = TrainingArguments(
        output_dir=str(folder / CHECKPOINTS_FOLDER),
        per_device_train_batch_size=config.users_per_step,
        max_steps=config.steps,
        learning_rate=config.learning_rate,
        lr_scheduler_type="constant_with_warmup" if config.schedule == "constant" else config.schedule,
        warmup_steps=config.warmup,
        optim="adamw_torch",
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        bf16=config.dtype == "bfloat16",
        activation_checkpointing=config.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False},
        use_cache=False,
        seed=config.seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=config.save_every,
        eval_strategy="no",
        report_to=config.report_to or "none",
        disable_tqdm=True,
        dataloader_num_workers=0,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        train_sampling_strategy="sequential",
        average_tokens_across_devices=False,
        use_cpu=not torch.accelerator.is_available(),
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # DataParallel can't split an episode
    users, rest = divmod(config.users_per_step, arguments.world_size)
    if rest:
        raise TrainingError(
            f"{arguments.world_size} processes can't share {config.users_per_step} users a step evenly; "
            f"set users_per_step to a multiple of {arguments.world_size}."
        )
    arguments.per_device_train_batch_size = users
    return arguments


def _note(logs: dict[str, Any]) -> str:
    parts = [f"loss {logs['loss']:.3g}"]
    for name, title in (("margin_accuracy", "accuracy"), ("direction_accuracy", "direction"), ("nll", "nll")):
        if name in logs:
            parts.append(f"{title} {logs[name]:.2f}")
    parts.append(f"{logs['tokens_per_second']:.0f} tokens/s")
    return ", ".join(parts)
