"""Checkpoints that are there whole or not at all, without pickle.

A checkpoint is a folder `checkpoint-STEP` with tensors (safetensors) and records (JSON), and a manifest of every file's
size and hash. A process killed at any moment leaves the checkpoints before it untouched.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fspo.errors import StorageError
from fspo.files import FolderKind, read_json, replace_folder, write_json

__all__ = [
    "newest_checkpoint",
    "optimizer_state",
    "random_state",
    "read_record",
    "read_tensors",
    "remove_checkpoints",
    "restore_optimizer",
    "restore_random_state",
    "save_checkpoint",
    "steps_of",
]

_MANIFEST = "manifest.json"
_PREFIX = "checkpoint-"
_CHECKPOINT = FolderKind("a checkpoint", needs=(), may=("*.json", "*.safetensors"))


def save_checkpoint(
    folder: Path,
    step: int,
    *,
    tensors: Mapping[str, Mapping[str, Tensor]],
    records: Mapping[str, Any],
    keep: int | None = 2,
) -> Path:
    """Write a checkpoint of `step` into `folder`, then delete all but the newest `keep`.

    Each of `tensors` is written to `NAME.safetensors`, each of `records` to `NAME.json`. None keeps all checkpoints.

    Raises:
        StorageError: the disk is full or can't be written; older checkpoints are untouched.
    """
    place = folder / f"{_PREFIX}{step}"
    with replace_folder(place, _CHECKPOINT, alone=True) as staging:
        for name, group in tensors.items():
            _save_tensors(staging / f"{name}.safetensors", group)
        for name, record in records.items():
            (staging / f"{name}.json").write_text(json.dumps(record), encoding="utf-8")
        files = {path.name: _stated(path) for path in sorted(staging.iterdir())}
        write_json(staging / _MANIFEST, {"step": step, "files": files})
    _tidy(folder, keep)
    return place


def newest_checkpoint(folder: Path) -> Path | None:
    """The complete checkpoint with the most steps, or None; torn and tampered ones are passed over."""
    return next((path for path in steps_of(folder).values() if _is_complete(path)), None)


def steps_of(folder: Path) -> dict[int, Path]:
    """Step -> its checkpoint, complete or not, the newest first."""
    numbered = {
        int(path.name.removeprefix(_PREFIX)): path
        for path in folder.glob(f"{_PREFIX}*")
        if path.name.removeprefix(_PREFIX).isdigit()
    }
    return dict(sorted(numbered.items(), reverse=True))


def read_tensors(checkpoint: Path, name: str) -> dict[str, Tensor]:
    """The tensors saved under `name`.

    Raises:
        StorageError: they are missing or unreadable.
    """
    path = checkpoint / f"{name}.safetensors"
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise StorageError(f"{path} can't be read ({error}); delete {checkpoint} and run the command again.") from error


def read_record(checkpoint: Path, name: str) -> Any:
    """What was saved under `name`.

    Raises:
        StorageError: it is missing or unreadable.
    """
    return read_json(checkpoint / f"{name}.json")


def optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimiser's state as tensors, named `parameter.key`, and the rest of it as JSON."""
    state = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    plain: dict[str, Any] = {}
    for parameter, values in state["state"].items():
        for key, value in values.items():
            (tensors if isinstance(value, Tensor) else plain)[f"{parameter}.{key}"] = value
    return tensors, {"groups": state["param_groups"], "plain": plain}


def restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], record: Mapping[str, Any]
) -> None:
    """Give an optimiser of the same parameters the state that `optimizer_state` took."""
    state: dict[int, dict[str, Any]] = {}
    for name, value in {**tensors, **record["plain"]}.items():
        parameter, key = name.split(".", 1)
        state.setdefault(int(parameter), {})[key] = value
    groups = [
        {key: tuple(value) if isinstance(current.get(key), tuple) else value for key, value in saved.items()}
        for saved, current in zip(record["groups"], optimizer.param_groups, strict=True)
    ]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def random_state() -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state of Python's, NumPy's and torch's global random generators."""
    tensors = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors |= {f"cuda.{device}": state for device, state in enumerate(torch.cuda.get_rng_state_all())}
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    record = {"python": random.getstate(), "numpy": [kind, np.asarray(keys).tolist(), position, has_gauss, cached]}
    return tensors, record


def restore_random_state(tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
    """Set the global random generators to what `random_state` took; a device that is gone is passed over."""
    torch.set_rng_state(tensors["cpu"])
    for device in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        if (state := tensors.get(f"cuda.{device}")) is not None:
            torch.cuda.set_rng_state(state, device)
    version, internal, gauss = record["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, position, has_gauss, cached = record["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), position, has_gauss, cached))


def _save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    try:
        # A clone of each, since safetensors refuses tensors that share memory.
        save_file({name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}, path)
    except SafetensorError as error:
        raise StorageError(
            f"{path} could not be written ({error}); free some space and run the same command again."
        ) from error


def _stated(path: Path) -> dict[str, Any]:
    with path.open("rb") as handle:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(handle, "sha256").hexdigest()}


def _is_complete(checkpoint: Path) -> bool:
    try:
        files = read_json(checkpoint / _MANIFEST)["files"]
        return all(_stated(checkpoint / name) == stated for name, stated in files.items())
    except (StorageError, OSError, KeyError, TypeError, AttributeError):
        return False


def remove_checkpoints(folder: Path) -> None:
    """Remove all checkpoints in `folder`, and the folder itself where nothing else is in it."""
    _tidy(folder, keep=0)
    with suppress(OSError):
        folder.rmdir()


def _tidy(folder: Path, keep: int | None) -> None:
    for old in list(steps_of(folder).values())[keep:] if keep is not None else ():
        shutil.rmtree(old, ignore_errors=True)
    for staging in folder.glob(f".{_PREFIX}*"):
        shutil.rmtree(staging, ignore_errors=True)
