"""How large a model is, without loading or downloading it."""

from __future__ import annotations

import math
from pathlib import Path

from fspo.modeling.embedded import EMBEDDED_MODEL
from fspo.modeling.places import is_hub_id
from fspo.paths import expanded

__all__ = ["count_weights"]

_EMBEDDED = 134_515_008


def count_weights(name: str) -> int | None:
    """The number of weights of the model of that name; None where its files are not on this machine.

    They are counted in the headers of its safetensors files.
    """
    if name == EMBEDDED_MODEL:
        return _EMBEDDED
    files = _cached(name) if is_hub_id(name) else sorted(expanded(Path(name)).glob("*.safetensors"))
    return sum(map(_weights_in, files)) if files else None


def _cached(name: str) -> list[Path]:
    """The weights of a hub's model in the cache; a model in one file, as small ones are."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "model.safetensors")
    return [Path(found)] if isinstance(found, str) else []


def _weights_in(file: Path) -> int:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as tensors:
            return sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    except (OSError, SafetensorError):
        return 0  # whoever loads it tells what is wrong with it
