"""Versions of everything that a run's figures depend on."""

from __future__ import annotations

import platform
from importlib import metadata

__all__ = ["versions"]

_LIBRARIES = ("torch", "transformers", "peft", "accelerate", "safetensors", "tokenizers", "pyarrow", "numpy", "scipy")


def versions() -> dict[str, str]:
    """Versions of Python, of fspo and of the libraries that figures depend on."""
    from fspo import __version__

    found = {"python": platform.python_version(), "fspo": __version__}
    for library in _LIBRARIES:
        try:
            found[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            found[library] = "not installed"
    return found
