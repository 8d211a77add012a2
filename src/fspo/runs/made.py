"""What fspo writes into the folder of a run, by name: all of that it may replace or remove, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from fspo.errors import ConfigError, StorageError
from fspo.files import FolderKind, check_no_part, check_writable, is_special
from fspo.modeling.folders import MODEL, POLICY
from fspo.preferences.dataset import DATASET

__all__ = ["RUN", "check_file_target", "is_page", "with_keys"]

_TEMPORARY = ".*.tmp"
"""What a killed writer leaves beside its file."""
_DATA = (
    *DATASET.needs,
    *DATASET.may,
    "README.md",
    "begun.json",
    "checks.json",
    "judge.json",
    "people.json",
    "synthesis.json",
    "unfinished.json",
    "questions.jsonl",
    "responses.jsonl",
    "views.jsonl",
    "labels/*.json",
    "labels/*.jsonl",
    f"labels/{_TEMPORARY}",
    "undecided/*.jsonl",
    f"undecided/{_TEMPORARY}",
    _TEMPORARY,
)
_CHECKPOINT = ("*.json", "*.safetensors", _TEMPORARY)
_METHOD = (
    *POLICY.needs,
    *POLICY.may,
    "reader.json",
    "reader.safetensors",
    "training.json",
    "metrics.jsonl",
    "reference.jsonl",
    ".lock",
    *(f"checkpoints/{place}/{name}" for place in ("checkpoint-*", ".checkpoint-*") for name in _CHECKPOINT),
    *(f"checkpoints/best/{place}/{name}" for place in ("checkpoint-*", ".checkpoint-*") for name in _CHECKPOINT),
    _TEMPORARY,
    *(f"{place}/{depth}" for place in (".policy", _TEMPORARY) for depth in ("*", "*/*")),
    *(f"logs/{'/'.join('*' * depth)}" for depth in range(1, 8)),
)
_ROUND = (*_METHOD, "*.jsonl")
_EVALUATION = (
    "calibration.json",
    "comparisons.json",
    "details.json",
    "judges.json",
    "metrics.json",
    "observer.json",
    "per_user.json",
    "fluency.jsonl",
    "games.jsonl",
    "items.jsonl",
    "samples.jsonl",
    "*/answers.jsonl",
    "*/conversations.jsonl",
    "*/candidates-*.jsonl",
    "*/descriptions.jsonl",
    "*/judgements*.jsonl",
    "*/margins.jsonl",
    "*/tax.jsonl",
    "*/tax-judgements-*.jsonl",
    "*/variations.jsonl",
    _TEMPORARY,
)
_BENCHMARK = (*_EVALUATION, "comparison.json", "README.md", "report.html", *(f"data/{name}" for name in _DATA))

RUN = FolderKind(
    "a run",
    needs=("settings.json", "versions.json"),
    may=(
        "command.json",
        "config.yaml",
        "descriptions.json",
        "endpoints.json",
        "metrics.json",
        "report.html",
        "resolved.yaml",
        "samples.jsonl",
        "spending.json",
        "summary.json",
        "answers*.sqlite*",
        "answers*-parts/*.sqlite*",
        "comparison/metrics.json",
        "comparison/README.md",
        f"comparison/{_TEMPORARY}",
        "embeddings/*.safetensors",
        f"embeddings/{_TEMPORARY}",
        *(f"data/{name}" for name in _DATA),
        *(f"methods/*/{name}" for name in _METHOD),
        "methods/*/rounds.jsonl",
        *(f"methods/*/rounds/{place}/{name}" for place in ("*", "*/*") for name in _ROUND),
        *(f"evaluation/{name}" for name in _EVALUATION),
        *(f"benchmarks/*/{name}" for name in _BENCHMARK),
    ),
)
"""The folder of a run."""


def check_file_target(path: Path, is_ours: Callable[[bytes], bool] | None = None) -> None:
    """Check that a file that a user names may be written.

    `is_ours` says of the content of a file that is there whether fspo wrote it for the same purpose; without it any
    file is replaced that is no part of something. A device or a pipe is not replaced: it gets the content.

    Raises:
        ConfigError: it is a folder, below a file, somebody else's file, or a part of a run, dataset, policy or model.
        StorageError: it can't be written, or the file that is there can't be read.
    """
    check_no_part(path, (RUN, DATASET, POLICY, MODEL))
    check_writable(path)
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; name a file.")
    if is_ours is None or not path.exists() or is_special(path):  # reading a pipe would wait for its writer
        return
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StorageError(f"{path} could not be read ({error.strerror or error}). Check its permissions.") from error
    if content and not is_ours(content):
        raise ConfigError(f"{path} was not written by the same command, so it is not replaced; name another file.")


def is_page(content: bytes) -> bool:
    """Whether it is a page of fspo."""
    return " · fspo</title>".encode() in content


def with_keys(*keys: str) -> Callable[[bytes], bool]:
    """Says of the content of a file whether it is a JSON object with these keys."""

    def is_ours(content: bytes) -> bool:
        try:
            found = json.loads(content)
        except ValueError:
            return False
        return isinstance(found, dict) and found.keys() >= set(keys)

    return is_ours
