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
from fspo.study.texts import PageTexts, built_in

__all__ = ["REGISTRATION_FILE", "changed_settings", "registration_of", "save_registration"]

REGISTRATION_FILE = "registration.json"
_NAMED_BY_STUDY = {"arms", "codes"}
"""Settings whose keys are names that the study gives, so that one more or less is a change."""
_EXACT = {"extra_body", "quotas", "text", "title"}
"""Settings whose whole content is the study's."""


def registration_of(
    config: StudyConfig, material: Material, weights: Mapping[str, str | None] | None = None
) -> dict[str, Any]:
    """The registration of a study, ready for JSON; `weights` identifies the weights of each arm, where they are known.

    Its `fingerprint` is the SHA-256 of the design and of all texts that items may be made of. Publish it before the
    study begins, and anybody can check afterwards that neither has changed: with the version of fspo that the
    registration names, because a later one may have further settings.
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

    What only one of them has, because it was registered with another version of fspo, is no change: a setting, or a
    text of the pages.
    """
    known = dict(before)
    has_all_texts = "language" not in known  # an earlier version registered also the texts that came with it
    known.setdefault("language", next(iter(known["languages"])))
    texts = known.pop("languages"), after["languages"]
    changed = [key for key, value in after.items() if key in known and not _same_setting(key, known[key], value)]
    return changed if _same_languages(*texts, has_all_texts=has_all_texts) else [*changed, "languages"]


def _same_setting(key: str, before: Any, after: Any) -> bool:
    if key in _EXACT:
        return bool(before == after)
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        if key in _NAMED_BY_STUDY and before.keys() != after.keys():
            return False
        return all(_same_setting(name, before[name], after[name]) for name in before.keys() & after.keys())
    if isinstance(before, list) and isinstance(after, list):
        return len(before) == len(after) and all(_same_setting("", *pair) for pair in zip(before, after, strict=True))
    return bool(before == after)


def _same_languages(
    before: Mapping[str, Mapping[str, str]], after: Mapping[str, Mapping[str, str]], *, has_all_texts: bool
) -> bool:
    """Whether the languages, and the study's own texts in each, are the same.

    Args:
        before: language -> texts, as registered.
        after: language -> the study's own texts.
        has_all_texts: whether `before` has all texts, so that nobody knows which of them were the study's own; then
            only the study's own texts of now are compared.
    """
    if before.keys() != after.keys():
        return False
    for language, own in after.items():
        known, others = before[language], built_in(language)
        names = own.keys() & (known.keys() | others.keys())
        if not has_all_texts:
            names |= known.keys() & PageTexts.model_fields.keys()
        if any(known.get(name, others.get(name)) != own.get(name, others.get(name)) for name in names):
            return False
    return True


def save_registration(folder: Path, registration: dict[str, Any]) -> Path:
    """Write the registration into the study's folder.

    Raises:
        StorageError: the file can't be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / REGISTRATION_FILE
    write_json(path, registration)
    return path
