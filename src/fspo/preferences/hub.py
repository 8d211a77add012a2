"""Files of a dataset on a hub, fetched once into the hub's own cache."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError

from fspo.errors import ConfigError, DataError, StorageError
from fspo.printing import reason_of

__all__ = ["HUB", "SUFFIXES", "fetch", "of_part"]

HUB = "hub:"
"""Begins the name of a dataset on a hub."""

SUFFIXES = (".parquet", ".jsonl", ".jsonl.gz", ".csv", ".csv.gz", ".tsv")
"""Endings of the files that rows are read from; of several kinds the first one is read."""


def fetch(name: str, part: str = "") -> list[Path]:
    """The data files of `hub:owner/name`, in order of their names; or the one file of `hub:owner/name/path/to/file`.

    Of a whole dataset only the files of this `part` are fetched, see `of_part`.

    Raises:
        ConfigError: the name is no dataset's.
        DataError: there is no such dataset, or it has no JSONL or Parquet files, or none of this part.
        StorageError: the hub can't be reached.
    """
    owner, _, rest = name.removeprefix(HUB).partition("/")
    dataset, _, inside = rest.partition("/")
    repo = f"{owner}/{dataset}"
    if not owner or not dataset:
        raise ConfigError(f"'{name}' names no dataset of a hub; write it as {HUB}owner/name.")
    try:
        files = [inside] if inside else _files_of(repo)
        wanted = _tables(files)
        if not wanted:
            there = ", ".join(files[:5]) or "nothing"
            raise DataError(
                f"{name} has no file that ends in {', '.join(SUFFIXES)} (it holds {there}); convert it, and name the "
                "file."
            )
        if not inside:
            wanted = of_part(wanted, part, name)
        return [Path(hf_hub_download(repo, file, repo_type="dataset")) for file in wanted]
    except HFValidationError as error:
        raise ConfigError(f"'{name}' names no dataset of a hub; write it as {HUB}owner/name.") from error
    except RepositoryNotFoundError as error:
        raise DataError(f"There is no dataset {repo} on the hub, or it is not for everybody; set HF_TOKEN.") from error
    except HfHubHTTPError as error:
        raise DataError(f"The hub did not give {name} ({reason_of(error)}).") from error
    except DataError:
        raise
    except Exception as error:  # whichever HTTP library the hub's client is built on
        raise StorageError(
            f"The hub can't be reached ({reason_of(error)}); fetch {repo} where it can, and import its files from here."
        ) from error


def _files_of(repo: str) -> list[str]:
    """The files of a dataset. The hub is first asked once and briefly; a listing would try for half a minute."""
    api = HfApi()
    api.dataset_info(repo, timeout=10)
    return sorted(api.list_repo_files(repo, repo_type="dataset"))


def _tables(files: Sequence[str]) -> list[str]:
    kinds = ([file for file in files if file.endswith(suffix)] for suffix in SUFFIXES)
    return next(filter(None, kinds), [])


_PARTS: Mapping[str, Sequence[str]] = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""Part -> what the hub takes for its name in files and folders."""

_BETWEEN = re.compile(r"[-._ 0-9]+")
"""What the hub takes for the end of a word there: `latest-train` is no `test`."""


def of_part(files: Sequence[str], part: str, name: str) -> list[str]:
    """Those files that belong to `part`, such as `test`, by the hub's convention; all of them where it is empty.

    A part is named by a word of the file's name, or else of its innermost folder that names one, as in
    `data/test-00000.parquet` and `test/rows.jsonl`. A name with words of several parts names none.

    `name` is what errors call the dataset.

    Raises:
        DataError: no file belongs to the part.
    """
    if not part:
        return list(files)
    found = [file for file in files if _part_of(file, part) == part]
    if not found:
        there = ", ".join(files[:5]) + (", ..." if len(files) > 5 else "")
        raise DataError(
            f"No file of {name} has a name that says that it is of the part '{part}' (there are {there}); name the "
            "file that has these rows."
        )
    return found


def _part_of(file: str, wanted: str) -> str:
    words = {**_PARTS, wanted: _PARTS.get(wanted, (wanted,))}
    for name in reversed(PurePosixPath(file).parts):
        inside = set(_BETWEEN.split(name.lower()))
        parts = [part for part, own in words.items() if not inside.isdisjoint(own)]
        if len(parts) == 1:
            return parts[0]
    return ""
