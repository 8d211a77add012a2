"""The errors that a user can cause and fix: one clear sentence each, shown without a traceback."""

from __future__ import annotations

__all__ = ["ConfigError", "DataError", "FspoError", "ModelError", "StorageError", "TrainingError"]


class FspoError(Exception):
    """What is wrong, where, and how to fix it, in one sentence; the command line prints only that."""

    exit_code = 1


class ConfigError(FspoError):
    """A configuration or an argument is missing, misspelt or contradictory.

    Other errors say that what it names (data, a model, a store, a file) is missing.
    """

    exit_code = 2


class DataError(FspoError):
    """A dataset, a row of it, or what is asked of it does not hold together."""


class ModelError(FspoError):
    """A model can't be obtained, or can't do what is asked of it exactly."""


class TrainingError(FspoError):
    """Training can't go on; what was reached before is kept."""


class StorageError(FspoError):
    """A file can't be read or written, such as on a full disk."""
