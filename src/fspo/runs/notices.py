"""Bars and notices of the model libraries, which a run replaces by its own."""

from __future__ import annotations

__all__ = ["quiet"]


def quiet() -> None:
    """Turn off the progress bars and notices of the model libraries."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
