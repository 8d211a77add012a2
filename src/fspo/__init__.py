"""Few-shot preference optimization: language models that adapt to a person from a handful of preferences."""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
