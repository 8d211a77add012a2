"""The Postgres server of the store's tests."""

from __future__ import annotations

from tests.serving.conftest import postgres

__all__ = ["postgres"]
