"""The records of a study as Parquet, and as a preference dataset that training reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fspo.errors import DataError
from fspo.files import writing
from fspo.preferences.types import User
from fspo.study.records import StudyRecords

__all__ = ["save_dataset", "save_parquet"]


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


def save_dataset(records: StudyRecords, folder: Path) -> int:
    """Write the labels and votes as a preference dataset, and return how many preferences it has.

    Ties, attention items and practice are left out.

    Raises:
        DataError: there are none.
    """
    from fspo.preferences.dataset import PreferenceDataset

    voted = [item.preference() for item in records.items if item.stage != "practice"]
    preferences = [preference for preference in voted if preference is not None]
    if not preferences:
        raise DataError("The study has no preferences to export yet.")
    people = {preference.user for preference in preferences}
    users = [User(one.id) for one in records.participants if one.id in people]
    PreferenceDataset(users, preferences, file="the study").save(folder)
    return len(preferences)


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value for key, value in row.items()
    }
