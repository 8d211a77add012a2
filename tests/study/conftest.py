"""The Postgres server of the store's tests, and stores that are migrated."""

from __future__ import annotations

import pytest

from tests.serving.conftest import postgres

__all__ = ["postgres"]


@pytest.fixture(scope="session", autouse=True)
def _migrated(migrated_stores: None) -> None:
    """For all tests of this room."""
