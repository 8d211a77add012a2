"""What to do with results that are there already."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Existing"]


class Existing(StrEnum):
    """What to do where the folder already holds something of the same stage."""

    RESUME = "resume"
    OVERWRITE = "overwrite"
    FAIL = "fail"
