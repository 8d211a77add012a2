"""Virtual tokens: ids beyond the vocabulary whose embeddings are given, such as those of soft prompts.

A virtual token is a token like any other for layouts, packing, scoring and generation. Only the embedding layer treats
it otherwise, inside `virtual_tokens`. No tokenizer makes such an id, and no model gives one a probability.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["first_virtual_id", "virtual_tokens"]


def first_virtual_id(model: Any) -> int:
    """The id of the first virtual token: the number of rows of the model's embeddings."""
    return int(model.get_input_embeddings().weight.shape[0])


@contextmanager
def virtual_tokens(model: Any, vectors: Tensor) -> Iterator[tuple[int, ...]]:
    """Give the embeddings [N, d] to N virtual tokens, and yield their ids; gradients flow into `vectors`."""
    import torch

    embedding = model.get_input_embeddings()
    first, usual = first_virtual_id(model), embedding.forward

    def embed(ids: Tensor) -> Tensor:
        virtual = ids >= first
        found: Tensor = usual(torch.where(virtual, 0, ids))
        given = vectors.to(found)[(ids - first).clamp(min=0)]
        return torch.where(virtual[..., None], given, found)

    own = vars(embedding).get("forward")
    embedding.forward = embed
    try:
        yield tuple(range(first, first + len(vectors)))
    finally:
        if own is None:
            del embedding.forward
        else:
            embedding.forward = own
