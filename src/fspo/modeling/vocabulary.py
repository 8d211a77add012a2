"""Whether a tokenizer and a model go together: every token that can be read must have a row of the embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fspo.errors import ModelError
from fspo.modeling.chat import control_ids, template_ids
from fspo.modeling.loading import load_configuration

__all__ = ["check_vocabulary", "rows_of"]


def rows_of(model: Any) -> int | None:
    """How many tokens a model has embeddings for; `model` is one in memory, or the name of one.

    None where the configuration of that name does not say.

    Raises:
        ModelError: its configuration can't be obtained.
    """
    if isinstance(model, str | Path):
        rows: int | None = getattr(load_configuration(model).get_text_config(), "vocab_size", None)
        return rows
    return int(model.get_input_embeddings().weight.shape[0])


def check_vocabulary(tokenizer: Any, rows: int | None, name: str) -> None:
    """Check that a model with so many rows can read all that the tokenizer makes of texts and chats.

    Control tokens that the chat template does not write may lack a row: they are never read. Many tokenizers have one
    for padding or for images that the model does not know.

    Raises:
        ModelError: it can't, naming both numbers.
    """
    vocabulary = tokenizer.get_vocab()
    beyond = sorted((index, token) for token, index in vocabulary.items() if rows is not None and index >= rows)
    if not beyond:
        return
    read = template_ids(tokenizer) | {tokenizer.eos_token_id, tokenizer.unk_token_id}
    never = control_ids(tokenizer) - read
    lacking = [token for index, token in beyond if index not in never]
    if not lacking:
        return
    count = beyond[-1][0] + 1
    more = f" and {len(lacking) - 1} more have" if len(lacking) > 1 else " has"
    raise ModelError(
        f"The tokenizer of {name} has {count} tokens, but the model has embeddings for {rows}: {lacking[0]!r}{more} "
        f"none. Use the tokenizer that the model was trained with, or enlarge the model with "
        f"resize_token_embeddings({count}) and save it again."
    )
