"""Files of a dataset on a hub, fetched once into the hub's own cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath

from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError

from fspo.errors import ConfigError, DataError, StorageError

__all__ = ["HUB", "SUFFIXES", "fetch", "of_part"]

HUB = "hub:"
"""Begins the name of a dataset on a hub."""

SUFFIXES = (".parquet", ".jsonl")
"""Of files that rows are read from."""


def fetch(name: str, part: str = "") -> list[Path]:
    """The data files of `hub:owner/name`, in order of their names; or the one file of `hub:owner/name/path/to/file`.

    Of several files only those of this `part` are fetched, see `of_part`.

    Raises:
        ConfigError: the name is no dataset's.
        DataError: there is no such dataset, or it has no JSONL or Parquet files.
        StorageError: the hub can't be reached.
    """
    owner, _, rest = name.removeprefix(HUB).partition("/")
    dataset, _, inside = rest.partition("/")
    repo = f"{owner}/{dataset}"
    if not owner or not dataset:
        raise ConfigError(f"'{name}' names no dataset of a hub; write it as {HUB}owner/name.")
    try:
        files = [inside] if inside else sorted(HfApi().list_repo_files(repo, repo_type="dataset"))
        wanted = [file for file in files if file.endswith(SUFFIXES)]
        if not wanted:
            there = ", ".join(files[:5]) or "nothing"
            raise DataError(f"{name} has no .jsonl or .parquet file (it holds {there}); convert it, and name the file.")
        return [Path(hf_hub_download(repo, file, repo_type="dataset")) for file in of_part(wanted, part)]
    except HFValidationError as error:
        raise ConfigError(f"'{name}' names no dataset of a hub; write it as {HUB}owner/name.") from error
    except RepositoryNotFoundError as error:
        raise DataError(f"There is no dataset {repo} on the hub, or it is not for everybody; set HF_TOKEN.") from error
    except HfHubHTTPError as error:
        raise DataError(f"The hub did not give {name} ({_reason(error)}).") from error
    except DataError:
        raise
    except Exception as error:  # whichever HTTP library the hub's client is built on
        raise StorageError(
            f"The hub can't be reached ({_reason(error)}); fetch {repo} where it can, and import its files from here."
        ) from error


def of_part(files: Sequence[str], part: str) -> list[str]:
    """Those whose names (without folders) hold `part`, such as `test`; all of them where it is empty or none does."""
    return [file for file in files if part and part in PurePath(file).name] or list(files)


def _reason(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
