"""transformers without its own progress bars and notes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers.utils import logging as transformers_logging

__all__ = ["quietly"]


@contextmanager
def quietly() -> Iterator[None]:
    """Load without transformers' own progress bars and notes; fspo shows its own progress."""
    log: Any = transformers_logging
    shown, level = log.is_progress_bar_enabled(), log.get_verbosity()
    log.disable_progress_bar()
    log.set_verbosity_error()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if shown:
            log.enable_progress_bar()
