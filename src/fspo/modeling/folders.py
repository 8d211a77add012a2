"""What the folders of models and policies hold, so that nothing else is removed when one is replaced."""

from __future__ import annotations

from pathlib import Path

from fspo.files import FolderKind

__all__ = ["ADAPTERS", "MODEL", "POLICY", "TOKENIZER_FILES", "has_tokenizer"]

TOKENIZER_FILES = (
    "tokenizer*",
    "special_tokens*",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "*.model",
    "chat_template.*",
    "additional_chat_templates/*.jinja",
)
"""What transformers writes of a tokenizer, as patterns."""
_BESIDE = ("generation_config.json", "model*.safetensors.index.json", "README.md", "LICENSE*", *TOKENIZER_FILES)

MODEL = FolderKind("an exported model", needs=("config.json", "model*.safetensors"), may=_BESIDE)
"""A plain folder of transformers."""

ADAPTERS = "adapter-[0-9]*"
"""The folders of a policy's adapters, as a pattern."""

POLICY = FolderKind(
    "a saved policy",
    needs=("policy.json",),
    may=("adapter_*", f"{ADAPTERS}/adapter_*", f"{ADAPTERS}/README.md", "companion.*", *MODEL.needs, *_BESIDE),
)
"""What `save_policy` writes; a folder where a policy was trained holds records of the training too."""


def has_tokenizer(folder: Path) -> bool:
    """Whether the folder of a model or policy has a tokenizer; a policy without one uses that of the model below it."""
    return (folder / "tokenizer_config.json").is_file()
