"""Policies as other tools read them: a chain of adapters as one adapter, or whole weights in a plain folder.

A chain of low-rank adapters adds up: s0 B0 A0 + s1 B1 A1 = [s0 B0, s1 B1] [A0; A1], one adapter whose rank is the sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fspo.files import read_json, write_json

__all__ = ["ADAPTER_CONFIG", "ADAPTER_WEIGHTS", "join_adapters"]

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."

_PLAIN: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "use_dora": (False, None),
    "use_rslora": (False, None),
    "bias": ("none",),
    "modules_to_save": (None, []),
    "rank_pattern": (None, {}),
    "alpha_pattern": (None, {}),
    "trainable_token_indices": (None,),
    "layer_replication": (None,),
    "lora_bias": (False, None),
    "target_parameters": (None, []),
    "alora_invocation_tokens": (None, []),
}
"""What the settings of an adapter must say for it to be a plain sum of products."""


def join_adapters(adapters: Sequence[Path], out: Path, *, base: str) -> bool:
    """Write the one adapter that computes what `adapters`, oldest first, compute on top of each other.

    `out` gets `adapter_config.json`, which names `base` as its base model, and `adapter_model.safetensors`, in peft's
    layout.

    Returns whether it was done: some adapters (DoRA, trained biases, embeddings) don't add up, and nothing is written.
    """
    settings = [read_json(folder / ADAPTER_CONFIG) for folder in adapters]
    loaded = [load_file(folder / ADAPTER_WEIGHTS) for folder in adapters]
    joined, tensors = {**settings[-1], "base_model_name_or_path": base}, loaded[0]
    if len(adapters) > 1:
        if not all(map(_is_plain, settings, loaded)):
            return False
        tensors = _joined_tensors(loaded, settings)
        joined |= _joined_settings(settings, tensors)
    save_file(tensors, out / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    write_json(out / ADAPTER_CONFIG, joined)
    return True


def _is_plain(settings: dict[str, Any], tensors: dict[str, Tensor]) -> bool:
    products = all(".lora_A." in name or ".lora_B." in name for name in tensors)  # embeddings have others
    return products and all(settings.get(key, allowed[0]) in allowed for key, allowed in _PLAIN.items())


def _joined_settings(settings: Sequence[dict[str, Any]], tensors: dict[str, Tensor]) -> dict[str, Any]:
    rank = sum(int(one["r"]) for one in settings)
    return {
        "r": rank,
        "lora_alpha": rank,  # the scales are in the weights
        "lora_dropout": 0.0,
        # By their full names, since the adapters may lie on different layers.
        "target_modules": sorted({name.removeprefix(_PREFIX).split(".lora_")[0] for name in tensors}),
        "layers_to_transform": None,
        "exclude_modules": None,
    }


def _joined_tensors(tensors: Sequence[dict[str, Tensor]], settings: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
    """Every adapted layer's A and B; an adapter that leaves a layer alone adds nothing there."""
    joined = {}
    for name in sorted({name for group in tensors for name in group if ".lora_A." in name}):
        other = name.replace(".lora_A.", ".lora_B.")
        down, up = next((group[name], group[other]) for group in tensors if name in group)
        parts = [
            (group[name], group[other] * (one["lora_alpha"] / one["r"]))
            if name in group
            else (down.new_zeros(one["r"], down.shape[1]), up.new_zeros(up.shape[0], one["r"]))
            for group, one in zip(tensors, settings, strict=True)
        ]
        joined[name] = torch.cat([down for down, _ in parts], dim=0).contiguous()
        joined[other] = torch.cat([up for _, up in parts], dim=1).contiguous()
    return joined
