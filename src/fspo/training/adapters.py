"""Which weights of a model are trained: low-rank adapters or all of them."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from peft.utils.other import ModulesToSaveWrapper, TrainableTokensWrapper
from transformers.pytorch_utils import Conv1D

from fspo.errors import ConfigError
from fspo.training.config import LoraSettings

__all__ = ["frozen_copy", "prepare_weights"]

_HARMLESS_STARTS = frozenset({"gaussian", "orthogonal"})
"""Ways of peft to begin adapters, beside its usual one, that leave the model's own weights alone."""


def prepare_weights(model: Any, lora: LoraSettings | LoraConfig | None, *, seed: int) -> Any:
    """The model ready to be trained: with fresh adapters, whose first weights the seed decides, or with all weights.

    Raises:
        ConfigError: the settings name no layer of this model, or train one of several layers that share a weight; or a
            peft configuration is one of those that change the weights below the adapters.
    """
    if lora is None:
        return model.float().requires_grad_(True)
    if getattr(model, "peft_config", None) == {}:
        del model.peft_config  # left behind by adapters that were merged
    settings = _checked(lora) if isinstance(lora, LoraConfig) else _peft_settings(model, lora)
    tied = _tied_parts(model)
    devices = [weight.device for weight in model.parameters() if weight.is_cuda][:1]
    with torch.random.fork_rng(devices=devices), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by a name on its way out
        warnings.filterwarnings("ignore", message="fan_in_fan_out")  # peft finds the right way round for each layer
        warnings.filterwarnings("ignore", message="Model has `tie_word_embeddings=True`")  # checked below
        torch.manual_seed(seed)
        try:
            policy = get_peft_model(model, settings)
        except ValueError as error:
            raise ConfigError(
                f"lora.target_modules: {lora.target_modules} names no layers of this model ({error}). Name some of its "
                f"linear layers: {', '.join(_linear_names(model))}."
            ) from error
    _check_tied(policy, tied)
    made: Any = policy.peft_config["default"]
    if isinstance(made.target_modules, set):  # it would be saved in an order that changes from process to process
        made.target_modules = sorted(made.target_modules)
    return policy


def frozen_copy(model: Any) -> Any:
    """A copy of the model that never changes, as the reference of a training of all weights."""
    return copy.deepcopy(model).requires_grad_(False).eval()


def _peft_settings(model: Any, lora: LoraSettings) -> LoraConfig:
    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]
        lora_dropout=lora.dropout,
        target_modules=_linear_names(model) if lora.target_modules == "all-linear" else lora.target_modules,
        layers_to_transform=_last_layers(model, lora),
        task_type="CAUSAL_LM",
    )


def _checked(lora: LoraConfig) -> LoraConfig:
    """A copy of peft's configuration, whose adapters can be switched off to leave the model they were put on."""
    if lora.bias != "none":
        raise ConfigError(f"peft_config: bias={lora.bias!r} trains weights outside the adapters; set 'none'.")
    if isinstance(lora.init_lora_weights, str) and lora.init_lora_weights not in _HARMLESS_STARTS:
        raise ConfigError(
            f"peft_config: init_lora_weights={lora.init_lora_weights!r} changes the weights below the adapters, which "
            f"are the reference; choose True or {', '.join(sorted(_HARMLESS_STARTS))}."
        )
    settings = copy.deepcopy(lora)
    settings.task_type = settings.task_type or "CAUSAL_LM"
    return settings


def _tied_parts(model: Any) -> list[dict[str, torch.nn.Module]]:
    """The groups of parts of the model, by name, that share a weight, such as tied embeddings."""
    owners: dict[int, dict[str, torch.nn.Module]] = {}
    for name, part in model.named_modules():
        for weight in part.parameters(recurse=False):
            owners.setdefault(id(weight), {})[name] = part
    return [sharing for sharing in owners.values() if len(sharing) > 1]


def _check_tied(policy: Any, tied: Sequence[Mapping[str, torch.nn.Module]]) -> None:
    """Refuse adapters that train parts which share a weight apart from each other.

    Merged into the weight, such an adapter would change the other parts too. Adapters that are shared as the weight
    is, such as those of trainable tokens, change all parts alike.
    """
    inner = policy.get_base_model()
    for sharing in tied:
        parts = {name: inner.get_submodule(name) for name in sorted(sharing)}
        trained = {
            frozenset(id(weight) for weight in part.parameters() if weight.requires_grad) for part in parts.values()
        }
        changed = {name: part for name, part in parts.items() if part is not sharing[name]}
        if len(trained) == 1 or not changed:
            continue
        remedies = dict.fromkeys(_remedy(name.rsplit(".", 1)[-1], part) for name, part in changed.items())
        raise ConfigError(
            f"The adapters train {' and '.join(changed)} alone, but this model uses one weight for "
            f"{' and '.join(parts)} (tied embeddings), so a merged or exported policy would differ from the trained "
            f"one; {', and '.join(remedies)}."
        )


def _remedy(name: str, part: torch.nn.Module) -> str:
    """What to change in the setting that put `part` in the place of the model's own."""
    if isinstance(part, ModulesToSaveWrapper):
        return f"leave {name} out of modules_to_save, or set ensure_weight_tying=True"
    if isinstance(part, TrainableTokensWrapper):
        return f"leave {name} out of trainable_token_indices"
    return f"leave {name} out of target_modules"


def _linear_names(model: Any) -> list[str]:
    # peft's own "all-linear" can't be confined to some layers.
    head = model.get_output_embeddings()
    kinds = (torch.nn.Linear, Conv1D)  # GPT-2 and its kin have the latter, which is a linear layer turned round
    linear = (name for name, part in model.named_modules() if isinstance(part, kinds) and part is not head)
    return sorted({name.rsplit(".", 1)[-1] for name in linear})


def _last_layers(model: Any, lora: LoraSettings) -> list[int] | None:
    if lora.last_layers is None:
        return None
    count = model.config.get_text_config().num_hidden_layers
    if lora.last_layers > count:
        raise ConfigError(f"lora.last_layers: {lora.last_layers}, but the model has only {count} layers.")
    return list(range(count - lora.last_layers, count))
