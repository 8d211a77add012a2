"""transformers without its own progress bars and notes; fspo shows its own progress."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["quiet", "quietly"]


def quiet() -> None:
    """Turn off transformers' progress bars and notes."""
    log = _log()
    log.disable_progress_bar()
    log.set_verbosity_error()


@contextmanager
def quietly() -> Iterator[None]:
    """Turn them off inside alone."""
    log = _log()
    shown, level = log.is_progress_bar_enabled(), log.get_verbosity()
    quiet()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if shown:
            log.enable_progress_bar()


def _log() -> Any:
    from transformers.utils import logging

    return logging
