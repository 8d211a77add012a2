"""The settings of a training in the terms of transformers' Trainer."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import TrainingArguments
from transformers.integrations.integration_utils import (
    INTEGRATION_TO_CALLBACK,
    get_available_reporting_integrations,
)

from fspo.errors import ConfigError
from fspo.printing import suggestion
from fspo.training.config import TrainingConfig

__all__ = ["arguments", "check_trackers"]


def check_trackers(config: TrainingConfig) -> None:
    """Check that the trackers of `report_to` are known and installed.

    Raises:
        ConfigError: naming the one that is not.
    """
    for name in config.trackers:
        if name not in INTEGRATION_TO_CALLBACK:
            hint = suggestion(name, sorted(INTEGRATION_TO_CALLBACK))
            raise ConfigError(f"report_to: there is no tracker '{name}'{hint}")
        if name not in get_available_reporting_integrations():  # type: ignore[no-untyped-call]
            raise ConfigError(f"report_to: {name} is not installed; run `pip install {name}`, or leave it out.")


def arguments(config: TrainingConfig, folder: Path) -> TrainingArguments:
    """The arguments of transformers' Trainer that a training with these settings has; `folder` is its own to write in.

    Raises:
        ConfigError: a step has fewer users than there are processes.
    """
    chosen = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=config.users_per_step,
        max_steps=config.steps,
        learning_rate=config.learning_rate,
        lr_scheduler_type="constant_with_warmup" if config.schedule == "constant" else config.schedule,
        warmup_steps=min(config.warmup, config.steps - 1),  # step 1 of a warm-up has a learning rate of 0
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
        report_to=config.trackers or "none",
        run_name=str(folder.parent),
        disable_tqdm=True,
        dataloader_num_workers=0,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        train_sampling_strategy="sequential",
        average_tokens_across_devices=False,
        use_cpu=not torch.accelerator.is_available(),
        ddp_find_unused_parameters=False,
    )
    chosen._n_gpu = min(chosen.n_gpu, 1)  # DataParallel can't split an episode
    if config.users_per_step < chosen.world_size:
        raise ConfigError(
            f"{chosen.world_size} processes can't share {config.users_per_step} users a step; set users_per_step to "
            f"{chosen.world_size} or more, or launch fewer processes."
        )
    return chosen
