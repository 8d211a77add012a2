"""Few-shot preference optimization: language models that adapt to a person from a handful of preferences."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fspo.evaluation.scoring.reward_models.protocol import RewardModel
    from fspo.methods.adapted_policy import AdaptedPolicy
    from fspo.modeling.policy import Policy
    from fspo.preferences.dataset import PreferenceDataset
    from fspo.preferences.splits import SplitDataset
    from fspo.preferences.types import Person, Preference, Turn, User
    from fspo.runs.api import evaluate, evaluate_answers, synthesize
    from fspo.runs.results import Results, compare
    from fspo.training.api import FSPOTrainer
    from fspo.training.config import LoraSettings
    from fspo.training.settings import FSPOConfig

__all__ = [
    "AdaptedPolicy",
    "FSPOConfig",
    "FSPOTrainer",
    "LoraSettings",
    "Person",
    "Policy",
    "Preference",
    "PreferenceDataset",
    "Results",
    "RewardModel",
    "SplitDataset",
    "Turn",
    "User",
    "__version__",
    "compare",
    "evaluate",
    "evaluate_answers",
    "synthesize",
]

__version__ = "0.1.0"

_HOMES = {
    "AdaptedPolicy": "fspo.methods.adapted_policy",
    "FSPOConfig": "fspo.training.settings",
    "FSPOTrainer": "fspo.training.api",
    "LoraSettings": "fspo.training.config",
    "Person": "fspo.preferences.types",
    "Policy": "fspo.modeling.policy",
    "Preference": "fspo.preferences.types",
    "PreferenceDataset": "fspo.preferences.dataset",
    "Results": "fspo.runs.results",
    "RewardModel": "fspo.evaluation.scoring.reward_models.protocol",
    "SplitDataset": "fspo.preferences.splits",
    "Turn": "fspo.preferences.types",
    "User": "fspo.preferences.types",
    "compare": "fspo.runs.results",
    "evaluate": "fspo.runs.api",
    "evaluate_answers": "fspo.runs.api",
    "synthesize": "fspo.runs.api",
}
"""Public name -> module it lives in, imported when the name is first asked for, since torch takes seconds."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
