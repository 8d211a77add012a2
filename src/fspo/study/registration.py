"""What is fixed before the first participant: the design and the texts, with a fingerprint of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fspo.files import write_json
from fspo.identity import digest
from fspo.study.config import StudyConfig
from fspo.study.material import Material

__all__ = ["REGISTRATION_FILE", "changed_settings", "registration_of", "save_registration"]

REGISTRATION_FILE = "registration.json"


def registration_of(
    config: StudyConfig, material: Material, weights: Mapping[str, str | None] | None = None
) -> dict[str, Any]:
    """The registration of a study, ready for JSON.

    Its `fingerprint` is the SHA-256 of the design and of all texts that items may be made of. Publish it before the
    study begins, and anybody can check afterwards that neither has changed.

    Args:
        config: the study.
        material: its texts.
        weights: arm -> what identifies its weights, or None.
    """
    texts = digest(asdict(material), 64)
    return {
        "study": config.name,
        "fingerprint": digest([config.fingerprint(), texts], 64),
        "registered": datetime.now(UTC).isoformat(timespec="seconds"),
        "fspo": version("fspo"),
        "texts": texts,
        "weights": dict(weights or {}),
        "design": config.design(),
    }


def changed_settings(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The settings in which a design differs from a registered one.

    A text of the pages that the registered design lacks, because it came with a later version of fspo, is no change.
    """
    known = before.get("languages", {})
    languages = {
        language: {name: text for name, text in texts.items() if name in known.get(language, texts)}
        for language, texts in after["languages"].items()
    }
    return [key for key, value in {**after, "languages": languages}.items() if before.get(key) != value]


def save_registration(folder: Path, registration: dict[str, Any]) -> Path:
    """Write the registration into the study's folder.

    Raises:
        StorageError: the file can't be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / REGISTRATION_FILE
    write_json(path, registration)
    return path
