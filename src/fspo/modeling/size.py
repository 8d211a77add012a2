"""How large a model is, without loading or downloading it."""

from __future__ import annotations

import math
from pathlib import Path

from fspo.modeling.builtin_model import BUILTIN_MODEL
from fspo.modeling.model_names import place_here

__all__ = ["count_saved", "count_weights"]

_BUILTIN_WEIGHTS = 134_515_008


def count_weights(name: str) -> int | None:
    """The number of weights of the model of that name; None where its files are not on this machine.

    They are counted in the headers of its safetensors files: of those that transformers loads, where the folder has
    the same weights in another form too, such as `consolidated.safetensors`.
    """
    if name == BUILTIN_MODEL:
        return _BUILTIN_WEIGHTS
    folder = place_here(name, weights=True)
    if folder is None:
        return None
    files = sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("*.safetensors"))
    return sum(map(_weights_in, files)) if files else None


def count_saved(folder: Path) -> int:
    """The numbers in the safetensors files of a folder, not below it; of a policy, those that its training changed."""
    return sum(map(_weights_in, sorted(folder.glob("*.safetensors"))))


def _weights_in(file: Path) -> int:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as tensors:
            return sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    except (OSError, SafetensorError):
        return 0  # loading it says what is wrong with it
