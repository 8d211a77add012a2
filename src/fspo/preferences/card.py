"""The card of an imported dataset: where it is from, how much of it there is, and what was left out."""

from __future__ import annotations

from pathlib import Path

from fspo.preferences.published import PUBLISHED, Imported
from fspo.preferences.validation import find_respelt
from fspo.printing import counted

__all__ = ["CARD", "imported_card", "is_imported_card"]

CARD = "README.md"
"""The file of a dataset's card."""

_MARK = "<!-- Written by fspo data import. -->"
"""Tells a card that an import wrote from what somebody wrote about the data."""


def imported_card(imported: Imported, kind: str, source: str) -> str:
    """The card of data that was imported, in Markdown with the hub's header.

    Args:
        imported: the dataset, and what was left out of it.
        kind: one of `fspo.preferences.published.PUBLISHED`; anything else is a table of one's own.
        source: where it is from: a file or folder, which the card names without its path, or hub:owner/name.
    """
    dataset, name = imported.dataset, source if source.startswith("hub:") else Path(source).resolve().name
    first = {why: place.replace(source, name, 1) for why, place in imported.first.items()}
    left_out = [f"- {counted(count, why)}; the first: {first[why]}." for why, count in imported.left_out.items()]
    about = (
        f"{PUBLISHED[kind].about}. The licence of the source applies."
        if kind in PUBLISHED
        else "A table of preferences."
    )
    notes = "".join(f"- {note}\n" for note in imported.notes)
    respelt = [f"- {note}" for note in find_respelt(dataset.preferences)]
    return f"""---
tags: [preference, personalization, fspo]
configs:
  - config_name: preferences
    default: true
    data_files: preferences.parquet
  - config_name: users
    data_files: users.parquet
---

{_MARK}

# Preferences from {name}

{about}
{notes}
| | |
|---|---|
| users | {len(dataset.users):,} |
| questions | {dataset.question_count:,} |
| preferences | {len(dataset):,} |

## Left out

{_lines(left_out)}

## Questions in several spellings

{_lines(respelt)}
"""


def is_imported_card(text: str) -> bool:
    """Whether a card is one that an import wrote, and so belongs to the data."""
    return _MARK in text


def _lines(lines: list[str]) -> str:
    return "\n".join(lines) or "None."
