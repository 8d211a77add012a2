"""What a policy's folder says of its training, as far as an evaluation has to know it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fspo.errors import DataError
from fspo.files import read_json
from fspo.modeling.reduction import Reduction
from fspo.paths import expanded
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.sampling import check_no_leak
from fspo.training.config import AGAINST_REFERENCE

__all__ = [
    "Provenance",
    "base_provenance",
    "check_unseen",
    "json_beside",
    "read_provenance",
    "untraced",
    "untraced_note",
]


@dataclass(frozen=True)
class Provenance:
    """How a policy was trained; empty where its folder doesn't say."""

    shots: tuple[int, ...] = ()
    """The shot counts it was trained at."""
    beta: float | None = None
    """The scale of its reward, where its objective has one."""
    reduction: str = ""
    dataset: str = ""
    """The fingerprint of what it was trained on."""
    place: str = ""
    """The policy's folder; empty for a method that trains nothing."""
    start: Provenance | None = None
    """How the policy was trained that training started from; None where that was the base model."""

    @property
    def line(self) -> list[Provenance]:
        """The policy and all those before it, itself first; nothing for a method that trains nothing."""
        return [self, *(self.start.line if self.start else ())] if self.place else []

    def scale(self, reduction: Reduction) -> float:
        """What a margin in nats is multiplied by to be the reward's; 1 where nothing has set it for this reduction."""
        return self.beta if self.beta is not None and self.reduction == reduction else 1.0


def read_provenance(policies: Mapping[str, Path | None]) -> dict[str, Provenance]:
    """Method -> how its policy was trained, and those it started from, from `training.json` beside each."""
    return {name: _read(folder) for name, folder in policies.items()}


def base_provenance(model: str) -> dict[str, Provenance]:
    """How the base model was trained, where it is itself a policy: called by its path; else nothing."""
    folder = expanded(Path(model))
    return {model: _read(folder)} if (folder / "policy.json").is_file() else {}


def check_unseen(trained: Mapping[str, Provenance], train: PreferenceDataset, test: PreferenceDataset) -> None:
    """Check that no policy, and none that it started from, has seen the users or questions of its evaluation.

    A policy without a record of its training data passes; `untraced` lists these.

    Raises:
        DataError: naming a user, question or prompt that is in both parts; or the method whose policy, or the one it
            started from, was trained on other data than `train`, so that the users in its training are unknown.
    """
    check_no_leak(train, test)
    for name, row in trained.items():
        for policy in row.line or [row]:
            if policy.dataset and policy.dataset != train.fingerprint:
                behind = "" if policy is row else f", or rather {policy.place}, which it started from,"
                raise DataError(
                    f"The policy of '{name}'{behind} was trained on other data than the training part here, so it may "
                    "have seen the users it would be evaluated on; train it again, or evaluate it with the data it was "
                    "trained on."
                )


def untraced(trained: Mapping[str, Provenance], *, checked: bool = True) -> list[str]:
    """The methods whose training data are unknown, with the policy if it is one that they started from.

    Without a training part to compare with (`checked` is false) these are all methods that train.
    """
    found = []
    for name, row in trained.items():
        unknown = [policy for policy in row.line if not (policy.dataset and checked)]
        if row in unknown:
            found.append(name)
        elif unknown:
            found.append(f"{name} (which started from {Path(unknown[0].place).name})")
    return found


def untraced_note(found: Sequence[str]) -> str:
    """What `untraced` found in a sentence; empty where that is nothing."""
    if not found:
        return ""
    return (
        "These methods may have seen the users and questions that they are evaluated on, because the training data of "
        f"their policies were not recorded or could not be checked: {', '.join(found)}."
    )


def json_beside(policy: Path, name: str) -> dict[str, Any]:
    """The contents of a JSON file in a policy's folder; empty where there is none."""
    record = read_json(policy / name) if (policy / name).is_file() else {}
    return record if isinstance(record, dict) else {}


def _read(folder: Path | None, before: tuple[Path, ...] = ()) -> Provenance:
    if folder is None or not folder.is_dir():
        return Provenance(place="" if folder is None or not before else str(folder))
    identity = json_beside(folder, "training.json").get("identity", {})
    settings = identity.get("config", {})
    counts = settings.get("ladder") or ([settings["shots"]] if settings.get("shots") else [])
    beta = settings.get("beta") if settings.get("objective") in AGAINST_REFERENCE else None
    return Provenance(
        tuple(sorted(map(int, counts))),
        None if beta is None else float(beta),
        str(settings.get("reduction", "")),
        str(identity.get("dataset", "")),
        str(folder),
        _start(folder, (*before, folder.resolve())),
    )


def _start(folder: Path, before: tuple[Path, ...]) -> Provenance | None:
    """The policy that training started from, beside this one where a run folder was moved since."""
    start = json_beside(folder, "policy.json").get("starts_from")
    if not start:
        return None
    places = [folder / str(start), folder.parent / Path(str(start)).name]
    place = next((place for place in places if place.is_dir()), places[0]).resolve()
    return None if place in before else _read(place, before)
