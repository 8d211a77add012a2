"""What the tests of policies share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import once
from tests.methods.policies.round_worlds import says_both


@pytest.fixture(scope="session")
def both(tiny_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy that says yes and no equally often."""
    return once(tmp_path_factory, "says-both", lambda out: says_both(tiny_model_path, out))
