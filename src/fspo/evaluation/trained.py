"""What a policy's folder says of its training, as far as an evaluation has to know it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fspo.errors import DataError
from fspo.evaluation.config import Reduction
from fspo.files import read_json
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.sampling import check_no_leak

__all__ = ["Trained", "check_unseen", "trained_as"]

_SCALED = frozenset({"ipo", "dpo", "robust-dpo", "hinge"})
"""Objectives whose reward is beta times the margin over the reference."""


@dataclass(frozen=True)
class Trained:
    """How a policy was trained; empty where its folder doesn't say."""

    shots: tuple[int, ...] = ()
    """The shot counts it was trained at."""
    beta: float | None = None
    """The scale of its reward, where its objective has one."""
    reduction: str = ""
    dataset: str = ""
    """The fingerprint of what it was trained on."""

    def scale(self, reduction: Reduction) -> float:
        """What a margin in nats is multiplied by to be the reward's; 1 where nothing has set it for this reduction."""
        return self.beta if self.beta is not None and self.reduction == reduction else 1.0


def trained_as(policies: Mapping[str, Path | None]) -> dict[str, Trained]:
    """Method -> how its policy was trained, from `training.json` beside it."""
    return {name: _read(folder) for name, folder in policies.items()}


def check_unseen(trained: Mapping[str, Trained], train: PreferenceDataset, test: PreferenceDataset) -> None:
    """Check that no policy has seen whom or what it is evaluated on.

    Raises:
        DataError: naming a user, question or prompt that is in both parts; or the method that was trained on other data
            than `train`, of which nobody can say whom it has seen.
    """
    try:
        check_no_leak(train, test)
    except DataError as error:
        raise DataError(
            f"{str(error).rstrip('.')}; divide the data anew with `fspo data split`, or leave it out of one part."
        ) from error
    for name, row in trained.items():
        if row.dataset and row.dataset != train.fingerprint:
            raise DataError(
                f"The policy of '{name}' was trained on other data than the training part here, so it may have seen "
                "the users it would be evaluated on; train it again, or evaluate it with the data it was trained on."
            )


def _read(folder: Path | None) -> Trained:
    path = folder / "training.json" if folder is not None else None
    record = read_json(path) if path is not None and path.is_file() else {}
    identity: Mapping[str, Any] = record.get("identity", {}) if isinstance(record, dict) else {}
    settings = identity.get("config", {})
    counts = settings.get("ladder") or ([settings["shots"]] if settings.get("shots") else [])
    beta = settings.get("beta") if settings.get("objective") in _SCALED else None
    return Trained(
        tuple(sorted(map(int, counts))),
        None if beta is None else float(beta),
        str(settings.get("reduction", "")),
        str(identity.get("dataset", "")),
    )
