"""The limits on texts from people: their length and their characters."""

from __future__ import annotations

import re

from fspo.errors import DataError

__all__ = ["MOST_CHARACTERS", "MOST_OF_DESCRIPTION", "check_description", "check_length", "check_storable", "fault_of"]

MOST_CHARACTERS = 32_000
"""Of one text."""
MOST_OF_DESCRIPTION = 2_000
"""Characters of a description; it takes room from the preferences."""
_BINARY = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_NOT_STORABLE = re.compile("[\x00\ud800-\udfff]")
"""Postgres has no NUL, and UTF-8 no half of a surrogate pair."""


def fault_of(text: str) -> str:
    """The end of a sentence on a text with a control character; empty if there is none."""
    found = _BINARY.search(text)
    return "" if found is None else f"has the control character U+{ord(found[0]):04X}; remove it"


def check_length(what: str, value: str, longest: int) -> None:
    """Check a short text.

    Raises:
        DataError: it is too long.
    """
    if len(value) > longest:
        raise DataError(f"A {what} has at most {longest} characters; this one has {len(value):,}.")


def check_description(description: str) -> None:
    """Check how a user is described.

    Raises:
        DataError: the description is too long, or has a control character.
    """
    if len(description) > MOST_OF_DESCRIPTION:
        raise DataError(
            f"A description has at most {MOST_OF_DESCRIPTION:,} characters; this one has {len(description):,}."
        )
    if fault := fault_of(description):
        raise DataError(f"The description {fault}.")


def check_storable(*texts: str) -> None:
    """Check that the database can hold the texts, which may be of a model.

    Raises:
        DataError: one has a character that it can't hold.
    """
    if any(_NOT_STORABLE.search(text) for text in texts):
        raise DataError("The store can't hold this text; leave out characters such as NUL (U+0000).")
