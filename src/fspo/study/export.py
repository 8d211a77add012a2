"""The records of a study as Parquet, and as a preference dataset that training reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fspo.errors import DataError
from fspo.files import FolderKind, writing
from fspo.preferences.types import User
from fspo.serving.people_data import Export
from fspo.study.records import StudyRecords

if TYPE_CHECKING:
    from fspo.preferences.dataset import PreferenceDataset

__all__ = ["EXPORT", "people_in", "save_parquet", "study_dataset"]


EXPORT = FolderKind(
    "an export of a study",
    needs=("participants.jsonl", "items.jsonl", "events.jsonl"),
    may=("participants.parquet", "items.parquet", "events.parquet", "dataset/*"),
)


def save_parquet(records: StudyRecords, folder: Path) -> None:
    """Write participants, items and events as one Parquet file each; mappings are JSON texts.

    Raises:
        StorageError: a file can't be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    for name in ("participants", "items", "events"):
        rows = [_plain(row.model_dump(mode="json")) for row in getattr(records, name)]
        with writing(folder / f"{name}.parquet") as temporary:
            pq.write_table(pa.Table.from_pylist(rows), temporary)


def people_in(records: StudyRecords) -> tuple[str, ...]:
    """The pseudonyms of all participants, for the store's note on who is in an export or a report.

    Also of those who withdrew: the records say that they took part, until they delete everything.
    """
    return tuple(one.id for one in records.participants)


def study_dataset(records: StudyRecords, export: Export) -> PreferenceDataset:
    """The labels and votes as a preference dataset.

    Participants have pseudonyms. Each preference says its stage, which version of the consent its participant agreed
    to, and which store it is from, so that a training on it is noted there. Ties, attention items and practice are left
    out, and so is everybody who withdrew.

    Raises:
        DataError: there are no preferences.
    """
    from fspo.preferences.dataset import PreferenceDataset

    users: list[User] = []
    rows = []
    for one in records.participants:
        source = {"origin": "study", "study": one.study, "consent": one.consent, **export.source}
        own = [item.preference() for item in records.items if item.participant == one.id and item.stage != "practice"]
        voted = [preference for preference in own if preference is not None and one.withdrawn is None]
        users += [User(one.id)] if voted else []
        rows += [replace(row, user=one.id, source={**row.source, **source}) for row in voted]
    if not rows:
        raise DataError("The study has no preferences to export yet.")
    return PreferenceDataset(users, rows, file="the study")


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value for key, value in row.items()
    }
