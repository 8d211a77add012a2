"""Where a model is, by its name: a folder, the embedded one, or a hub. Quick to import, so that any verb can check."""

from __future__ import annotations

from pathlib import Path

from fspo.errors import ModelError
from fspo.modeling import embedded
from fspo.paths import expanded

__all__ = ["INSTEAD", "POLICY_FILE", "is_hub_id", "locate"]

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
