"""Whether the package is there that asks endpoints."""

from __future__ import annotations

from importlib.util import find_spec

from fspo.errors import ConfigError

__all__ = ["need_client"]


def need_client() -> None:
    """Check that the package that asks endpoints is installed.

    Raises:
        ConfigError: it is missing.
    """
    if find_spec("openai") is None:
        raise ConfigError(
            "Asking an endpoint needs the package openai; install fspo with the extra 'endpoint' "
            "(pip install -e '.[endpoint]' in the project's folder)."
        )
