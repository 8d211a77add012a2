"""A small training in a process of its own, to be killed: `python -m tests.training.train_tiny MODEL OUT SETTINGS`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from fspo.training.config import TrainingConfig
from fspo.training.train import train_policy
from tests.training.helpers import small_dataset

__all__ = ["tiny_settings", "train_tiny"]


def tiny_settings(**changes: Any) -> TrainingConfig:
    base = {
        "objective": "mirrored-contrast",
        "bias_weight": 0.1,
        "shots": 2,
        "queries": 2,
        "users_per_step": 2,
        "steps": 16,
        "save_every": 3,
        "learning_rate": 0.01,
        "lora": {"r": 4, "dropout": 0.1},
    }
    return TrainingConfig.model_validate({**base, **changes})


def train_tiny(model: str | Path, out: Path, **changes: Any) -> Path:
    """Train on the small dataset; anything of `tiny_settings` can be changed."""
    return train_policy(tiny_settings(**changes), small_dataset(), model=model, out=out, method="tiny")


if __name__ == "__main__":
    train_tiny(sys.argv[1], Path(sys.argv[2]), **json.loads(sys.argv[3]))
