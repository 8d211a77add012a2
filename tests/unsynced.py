"""Files that do not wait for the disk: tests end programs at any moment, but never the machine.

A disk takes some milliseconds to confirm that it has a record, and the suite writes tens of thousands of them.
"""

from __future__ import annotations

import os

__all__ = ["unsync"]


def unsync() -> None:
    """Let this process, and what it forks, write without waiting for the disk."""
    os.fsync = _fsync


def _fsync(handle: object) -> None:
    """In the place of `os.fsync`, which waits."""
