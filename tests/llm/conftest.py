"""What all tests of language models share."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorter pauses before a request is repeated."""
    monkeypatch.setattr("fspo.llm.endpoint._SHORTEST", 0.05)
