"""A command that `accelerate launch` (or torchrun) started as several processes: the first speaks and writes.

Which process this is stands in the environment, so that nothing heavy is imported to know it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from fspo.errors import ConfigError, TrainingError

__all__ = ["count", "follow", "is_first", "leading", "number", "refuse_several", "together"]

_LOST = ("gloo", "nccl", "connection closed by peer", "connection reset", "broken pipe")
"""Words of the errors by which a process learns that another one is gone."""


def count() -> int:
    """How many processes this command consists of."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "LOCAL_RANK" in os.environ else 1


def number() -> int:
    """Which of them this one is, from 0."""
    return int(os.environ.get("RANK", "0")) if count() > 1 else 0


def is_first() -> bool:
    """Whether this process writes the files of the command and shows its progress."""
    return number() == 0


def refuse_several(verb: str) -> None:
    """Let a verb that is made for one process be started as one alone.

    Raises:
        ConfigError: there are several.
    """
    if count() > 1:
        raise ConfigError(
            f"`fspo {verb}` runs in one process, and {count()} were launched; only `fspo train` shares its work among "
            "processes, so run this command without a launcher."
        )


@contextmanager
def leading() -> Iterator[None]:
    """In the first process: what has to be done before the others may go on, or must not."""
    try:
        yield
    except BaseException:
        _tell(False)
        raise
    _tell(True)


def follow() -> None:
    """In all other processes: wait for what the first has to do before.

    Raises:
        ConfigError: it could not be done; the first process says why.
    """
    if not _tell(True):
        raise ConfigError("The first process of this command has given up.")


def _tell(well: bool) -> bool:
    if count() == 1:
        return well
    from fspo.training.processes import agreed, joined

    joined()
    return agreed(well)


@contextmanager
def together() -> Iterator[None]:
    """Work along with the other processes, if there are any.

    Raises:
        TrainingError: another process is gone, without which this one can't go on.
    """
    if count() == 1:
        yield
        return
    from fspo.training.processes import joined

    process = joined()
    try:
        yield
    except RuntimeError as error:
        if not any(word in str(error).lower() for word in _LOST):
            raise
        raise TrainingError(
            "Another process of this command has ended, so this one can't go on; what was trained up to the last "
            "checkpoint is kept. Run the same command again to go on."
        ) from error
    process.destroy_process_group()
