"""The arguments of `FSPOTrainer`: the settings of a training, and the folder it goes to."""

from __future__ import annotations

from collections.abc import Iterable
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, ValidationError, model_validator

from fspo.errors import ConfigError
from fspo.paths import LocalPath, PlaceName
from fspo.printing import nearest
from fspo.pydantic_errors import first_fault
from fspo.training.config import LoraSettings, Objective, TrainingConfig

__all__ = ["FSPOConfig", "unknown_argument"]

_SAME = MappingProxyType({"max_steps": "steps", "loss_type": "objective"})
"""Name in TRL -> the same thing here."""

_OTHERWISE = MappingProxyType(
    {
        "bf16": "set dtype='bfloat16'.",
        "data_collator": "leave it out, since episodes are rendered by fspo.",
        "eval_steps": "set evaluate_every.",
        "eval_strategy": "set evaluate_every, or call evaluate().",
        "gradient_accumulation_steps": "set users_per_step, the size of a step, and row_tokens, what runs at once.",
        "logging_steps": "leave it out, since every step's figures go to metrics.jsonl.",
        "lr_scheduler_type": "set schedule.",
        "max_completion_length": "set max_length; responses are never cut, and the oldest shots give way.",
        "max_prompt_length": "set max_length; prompts are never cut, and the oldest shots give way.",
        "num_train_epochs": "set steps or max_steps; every step draws new episodes, unless `episodes` fixes them.",
        "per_device_train_batch_size": "set users_per_step, the episodes of one step on all devices together.",
        "precompute_ref_log_probs": "set episodes, how many there are, and precompute_reference.",
        "ref_model": "leave it out, since the reference is the model as it was at the start.",
        "save_steps": "set save_every.",
        "simpo_gamma": "set gamma.",
        "tokenizer": "call it processing_class.",
        "warmup_ratio": "set warmup, in steps.",
        "warmup_steps": "set warmup.",
    }
)
"""Argument of TRL's trainers -> what does that here."""


class FSPOConfig(TrainingConfig):
    """Settings of an `FSPOTrainer`: all settings of `TrainingConfig`, and the folder of the policy.

    These have the name and the meaning of TRL's DPOConfig: `beta`, `gradient_checkpointing`, `label_smoothing`,
    `learning_rate`, `max_grad_norm`, `output_dir`, `report_to`, `seed`, `weight_decay`. `max_steps` and `loss_type` are
    TRL's names of `steps` and `objective`. Any other name of TRL's is refused, and the error says what to set instead.

    The differences from TRL:

    - A step is `users_per_step` episodes of `shots` + `queries` preferences, not a batch of pairs.
    - A response's log-probability is a sum over its tokens, also for IPO, so that `beta` means the papers' beta;
      `reduction="mean"` changes that.
    - Without a `peft_config`, fspo trains the adapters of `lora`; `lora=None` trains all weights.

    Raises:
        ConfigError: an argument is unknown (naming the nearest known one), out of range, or contradicts another.
    """

    output_dir: PlaceName | LocalPath = Field(
        description="Folder of the policy, its metrics and, while it trains, checkpoints."
    )
    max_steps: int = Field(default_factory=lambda data: data["steps"], description="TRL's name of `steps`.")
    loss_type: Objective = Field(
        default_factory=lambda data: data["objective"], description="TRL's name of `objective`."
    )

    if not TYPE_CHECKING:  # the type checker derives the arguments from the fields

        def __init__(self, **settings: Any) -> None:
            try:
                super().__init__(**settings)
            except ValidationError as error:
                raise _explained(error) from error

    @model_validator(mode="before")
    @classmethod
    def _under_one_name(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        values = dict(values)
        for theirs, ours in _SAME.items():
            if theirs in values:
                value = values.pop(theirs)
                if values.setdefault(ours, value) != value:
                    raise ValueError(f"{theirs} is another name of {ours}, and they differ; give one of them")
        return values

    @model_validator(mode="after")
    def _each_has_an_effect(self) -> Self:
        for name, needed in self.without_effect(sorted(self.model_fields_set)).items():
            raise ValueError(f"{name} has no effect with these settings: it needs {needed}; set that, or leave it out")
        return self

    def training(self, lora: LoraSettings | None) -> TrainingConfig:
        """The settings of the training itself, with these adapters."""
        return TrainingConfig.model_validate({name: getattr(self, name) for name in _FIELDS} | {"lora": lora})


_FIELDS = tuple(TrainingConfig.model_fields)


def unknown_argument(owner: str, name: str, known: Iterable[str]) -> ConfigError:
    """Say that there is no such argument, and what to give in its place."""
    if name in _OTHERWISE:
        return ConfigError(f"{owner} has no argument '{name}': {_OTHERWISE[name]}")
    close = nearest(name, known)
    hint = f"; did you mean '{close}'?" if close else f"; help({owner}) shows what it takes."
    return ConfigError(f"{owner} has no argument '{name}'{hint}")


def _explained(error: ValidationError) -> ConfigError:
    fault, known = first_fault(error, FSPOConfig), FSPOConfig.model_fields
    if fault.kind == "extra_forbidden" and len(fault.key) == 1:
        return unknown_argument("FSPOConfig", fault.key[0], known)
    if fault.kind == "missing":
        return ConfigError(f"FSPOConfig needs {fault.key[0]}: {known[fault.key[0]].description}")
    return ConfigError(f"FSPOConfig: {fault.sentence}")
