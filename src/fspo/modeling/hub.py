"""Models of a hub: fetched once, at one revision, and read from their folder on this machine."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

from fspo.errors import FspoError
from fspo.files import read_json

__all__ = ["exists", "fetched", "here"]

_SMALL = ("*.json", "*.jinja", "*.model", "*.txt")
"""Configuration, tokenizer and chat template, as patterns; the lists of weights too."""
_WEIGHTS = ("model*.safetensors", "adapter_model.safetensors")
_BELOW = ("*/*.json", "*/*.model", "*/*.txt", "*/*.safetensors")
"""The same names in folders of the repository, which hold other formats and records."""
_TOKENIZERS = ("tokenizer.json", "tekken.json", "vocab.*", "*.model")

_commits: dict[str, str] = {}
"""The commit of each model that this process reads, so that all that it reads of a model belongs together."""
_done: set[tuple[str, str, bool]] = set()
"""The models, by name and commit, that this process fetched whole: without and with the weights."""


def here(name: str, *, weights: bool = False) -> Path | None:
    """The folder of what was fetched of a hub's model, if it can be loaded from there; no hub is asked.

    `weights`: whether they are needed too, beside configuration and tokenizer.
    """
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        return None
    try:
        folder = _snapshot(name, weights, local_files_only=True)
    except (OSError, ValueError):  # not fetched, or not all of it; or no hub id
        return None
    if (name, folder.name, weights) not in _done and not _is_whole(folder, weights):
        return None
    if weights:
        _commits.setdefault(name, folder.name)
    return folder


def fetched(name: str, *, weights: bool = False, newest: bool = False) -> Path:
    """The folder of a hub's model; what is missing is fetched.

    A model whose weights were fetched before is used as it is. Of any other, the hub's current revision is fetched. A
    process stays with the revision that it read first.

    `weights` is as in `here`; `newest` asks the hub for its current revision in any case, where it can be reached.

    Raises:
        OSError: the hub can't be reached, or it does not give the model.
    """
    if newest:
        _commits.pop(name, None)
    folder = None if newest else here(name, weights=True) or (here(name, weights=weights) if name in _commits else None)
    if folder is None:
        folder = _download(name, weights)
    _commits[name] = folder.name
    return folder


def exists(name: str) -> bool | None:
    """Whether the hub has a model of this name that can be read with this HF_TOKEN; None if it can't be reached."""
    try:
        HfApi().model_info(name, timeout=10)
    except (RepositoryNotFoundError, HFValidationError):
        return False
    except Exception:  # of any HTTP library that the hub's client is built on
        return None
    return True


def _download(name: str, weights: bool) -> Path:
    """Fetch a model at the revision that this process reads, or else at the current one.

    The hub is first asked once and briefly; a download would try for minutes.
    """
    try:
        HfApi().model_info(name, timeout=10)
    except RepositoryNotFoundError as error:
        raise OSError("the hub has no such model that can be read with this HF_TOKEN") from error
    except Exception as error:  # of any HTTP library that the hub's client is built on
        found = here(name, weights=weights)
        if found is None:
            raise OSError("the hub can't be reached, and the model was not fetched before") from error
        return found
    try:
        folder = _snapshot(name, weights)
    except (OSError, ValueError):
        raise
    except Exception as error:
        raise OSError(f"the download broke off: {error}") from error
    if weights and not _has_weights(folder):
        raise OSError("its repository has no weights in safetensors")
    _done.update({(name, folder.name, False), (name, folder.name, weights)})
    return folder


def _snapshot(name: str, weights: bool, local_files_only: bool = False) -> Path:
    folder = snapshot_download(
        name,
        revision=_commits.get(name),
        allow_patterns=[*_SMALL, *(_WEIGHTS if weights else ())],
        ignore_patterns=list(_BELOW),
        local_files_only=local_files_only,
    )
    return Path(folder)


def _is_whole(folder: Path, weights: bool) -> bool:
    """Whether a configuration and a tokenizer are there, and the weights where they are needed.

    Other tools fetch file by file, so the folder may hold any part of the model.
    """
    configured = any((folder / name).is_file() for name in ("config.json", "adapter_config.json"))
    return configured and _any(folder, _TOKENIZERS) and (not weights or _has_weights(folder))


def _has_weights(folder: Path) -> bool:
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return _any(folder, _WEIGHTS)
    try:
        files = set(read_json(index)["weight_map"].values())
    except (FspoError, KeyError, TypeError, AttributeError):
        return False
    return all((folder / name).is_file() for name in files)


def _any(folder: Path, patterns: tuple[str, ...]) -> bool:
    return any(path.is_file() for pattern in patterns for path in folder.glob(pattern))
