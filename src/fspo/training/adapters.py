"""Which weights of a model are trained: low-rank adapters or all of them."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers.pytorch_utils import Conv1D

from fspo.errors import ConfigError
from fspo.training.config import LoraSettings

__all__ = ["frozen_copy", "prepare_weights"]

_HARMLESS_STARTS = frozenset({"gaussian", "orthogonal"})
"""Ways of peft to begin adapters, beside its usual one, that leave the model's own weights alone."""


def prepare_weights(model: Any, lora: LoraSettings | LoraConfig | None, *, seed: int) -> Any:
    """The model ready to be trained: with fresh adapters, whose first weights the seed decides, or with all weights.

    Raises:
        ConfigError: the settings name no layer of this model, or one whose weight is that of another layer too; or a
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
        warnings.filterwarnings("ignore", message="Model has `tie_word_embeddings=True`")  # refused below
        torch.manual_seed(seed)
        try:
            policy = get_peft_model(model, settings)
        except ValueError as error:
            raise ConfigError(
                f"lora.target_modules: {lora.target_modules} names no layers of this model ({error}). Name some of its "
                f"linear layers: {', '.join(_linear_names(model))}."
            ) from error
    _check_tied(policy, tied)
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


def _tied_parts(model: Any) -> dict[str, torch.nn.Module]:
    """The parts of the model, by name, that share a weight with another part, such as tied embeddings."""
    owners: dict[int, dict[str, torch.nn.Module]] = {}
    for name, part in model.named_modules():
        for weight in part.parameters(recurse=False):
            owners.setdefault(id(weight), {})[name] = part
    return {name: part for sharing in owners.values() if len(sharing) > 1 for name, part in sharing.items()}


def _check_tied(policy: Any, tied: dict[str, torch.nn.Module]) -> None:
    """Refuse adapters, or trained copies, of one of several parts that share a weight.

    They train that part alone. Merged into the weight, they would change the others too.
    """
    inner = policy.get_base_model()
    changed = sorted(name for name, part in tied.items() if inner.get_submodule(name) is not part)
    if changed:
        raise ConfigError(
            f"The adapters train {', '.join(changed)}, but this model uses one weight for {' and '.join(sorted(tied))} "
            "(tied embeddings), so a merged or exported policy would differ from the trained one; leave "
            f"{', '.join(name.rsplit('.', 1)[-1] for name in changed)} out of target_modules and modules_to_save."
        )


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
