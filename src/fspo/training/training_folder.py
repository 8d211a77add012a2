"""The folder of a training: the record of what is trained on what, the lock, and the policy that goes there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from fspo.errors import ConfigError, StorageError
from fspo.files import check_unclaimed, locked, read_json, storage_error, write_json
from fspo.identity import same
from fspo.modeling.folders import ADAPTERS, MODEL, TOKENIZER_FILES
from fspo.modeling.model_names import POLICY_FILE
from fspo.training.companion import COMPANION
from fspo.training.config import TrainingConfig
from fspo.training.precomputing import REFERENCE_FILE
from fspo.training.processes import agreed, joined
from fspo.training.trainer import CHECKPOINTS_FOLDER, LOGS_FOLDER, METRICS_FILE

__all__ = ["TRAINING_FILE", "alone_in", "check_record", "has_record", "left_out_of", "move_policy", "save_record"]

TRAINING_FILE = "training.json"
"""What was trained on what, and whether it is finished."""

_LOCK = ".lock"

_WRITES = (
    *(POLICY_FILE, "adapter_*", ADAPTERS, *MODEL.needs, "model*.safetensors.index.json", "generation_config.json"),
    *(pattern for pattern in TOKENIZER_FILES if "/" not in pattern),
    f"{COMPANION}.*",
    *("additional_chat_templates", CHECKPOINTS_FOLDER, LOGS_FOLDER, METRICS_FILE, REFERENCE_FILE),
)
"""What a training writes into its folder, after `training.json`."""


@contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Lock the folder against other trainings; of several processes that train together, the first does.

    Raises:
        StorageError: another training is at work there.
    """
    with ExitStack() as held:
        why = ""
        if joined().is_main_process:
            busy = f"Another training is at work in {out}; wait for it, or name another folder."
            try:
                held.enter_context(locked(out / _LOCK, busy=busy))
            except StorageError as error:
                why = str(error)
        if why := agreed(why):
            raise StorageError(why)
        yield


def has_record(out: Path) -> bool:
    """Whether a training is on record in `out`; without one, refuse files that a training would overwrite.

    Raises:
        ConfigError: there is none, and something that a training would overwrite.
        StorageError: the folder can't be read.
    """
    if (out / TRAINING_FILE).exists():
        return True
    check_unclaimed(out, (), _WRITES)
    return False


def save_record(out: Path, identity: Mapping[str, Any], *, finished: bool, **more: Any) -> None:
    """Write the record of a training; `more` is what came of it.

    Raises:
        StorageError: the folder can't be written.
    """
    write_json(out / TRAINING_FILE, {"identity": identity, "finished": finished, **more})


def check_record(out: Path, identity: Mapping[str, Any], config: TrainingConfig) -> bool:
    """Whether the training on record in the policy's folder `out` is finished.

    Raises:
        ConfigError: it is another training.
        StorageError: the record is damaged.
    """
    path = out / TRAINING_FILE
    found = read_json(path)
    if not isinstance(found, dict) or "identity" not in found:
        raise StorageError(f"{path} is not the record of a training; delete {out} and run the command again.")
    then, now = (
        {
            **{name: value for name, value in each.get("config", {}).items() if name not in config.idle},
            **{name: value for name, value in each.items() if name != "config"},
        }
        for each in (found["identity"], identity)
    )
    compared = same(then, now, known=["weights", "tokenizer_files"], usual=type(config).usual())
    if not compared:
        raise ConfigError(
            f"{out} holds a training with {compared.then}, and now {compared.now}; choose another output folder, or "
            "delete this one to train again."
        )
    return bool(found["finished"])


def left_out_of(policy: Path) -> int:
    """How many preferences a training left out because its model can't read them whole, as its record says."""
    path = policy / TRAINING_FILE
    record = read_json(path) if path.is_file() else {}
    return int(record.get("left_out", 0)) if isinstance(record, dict) else 0


def move_policy(staged: Path, out: Path) -> None:
    """Move a policy into `out`, beside what is there; `policy.json` comes last.

    Raises:
        StorageError: the folder can't be written.
    """
    try:
        for part in sorted(staged.iterdir(), key=lambda path: path.name == POLICY_FILE):
            if (out / part.name).is_dir():
                shutil.rmtree(out / part.name)
            part.rename(out / part.name)
        staged.rmdir()
    except OSError as error:
        raise storage_error(out, error) from error
