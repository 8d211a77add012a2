"""Few-shot preference optimization: language models that adapt to a person from a handful of preferences."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fspo.preferences.dataset import PreferenceDataset
    from fspo.training.api import FSPOTrainer
    from fspo.training.config import LoraSettings
    from fspo.training.settings import FSPOConfig

__all__ = ["FSPOConfig", "FSPOTrainer", "LoraSettings", "PreferenceDataset", "__version__"]

__version__ = "0.1.0"

_HOMES = {
    "FSPOConfig": "fspo.training.settings",
    "FSPOTrainer": "fspo.training.api",
    "LoraSettings": "fspo.training.config",
    "PreferenceDataset": "fspo.preferences.dataset",
}
"""Public name -> module it lives in, imported when the name is first asked for, since torch takes seconds."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
