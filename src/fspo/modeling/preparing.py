"""Models made ready for trunk and branches, and refused where these would not be exact.

Beside what an architecture says of itself, the model itself is tried once: which masks and windows its layers get in a
plain pass, and whether a small tree gives the same log-probabilities as whole sequences in the model's own attention.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from fspo.errors import ModelError
from fspo.modeling.attention import IMPLEMENTATION, RecordingPlan, planned_attention, probed_masks
from fspo.modeling.lm_head import hidden_states, logits
from fspo.modeling.packing import pack
from fspo.modeling.rendering import Branch, TokenizedEpisode
from fspo.printing import reason_of

__all__ = ["own_attention_afterwards", "prepare_model"]

_SUPPORTED_LAYERS = frozenset({"full_attention", "sliding_attention"})
_LENGTH_DEPENDENT_ROPES = frozenset({"dynamic", "longrope"})
_PREPARED = "_fspo_prepared"
"""Attribute of a model that was tried."""
_LENGTH = 20
"""Tokens of each whole sequence of the trial, which go on at random after its response."""
_LARGE = 4096
"""A vocabulary from this size on has its control tokens at its ends."""
_TOLERANCE, _ROUGH_TOLERANCE, _HALF_TOLERANCE = 1e-3, 1e-2, 0.1
"""Largest difference of a position's log-probabilities, relative to their spread: in float32; in float32 whose matrix
products are rounded; and in the mean over positions in half precision, where a router may choose another expert."""


def prepare_model(model: torch.nn.Module, longest: int = 0) -> PreTrainedModel:
    """Switch `model` to the attention `fspo`, which is SDPA wherever no plan is given, and return it unwrapped.

    The first call for a model tries it, which takes two small passes. Parts of a sharded model can't be tried alone, so
    call this before it is sharded. `longest` is the greatest number of tokens one response will be read with (trunk,
    prompt and response).

    Raises:
        ModelError: the model can't compute trunk and branches exactly; the sentence says why.
    """
    base = _unwrapped(model)
    config = base.config.get_text_config()
    if _PREPARED not in vars(base):
        _check_architecture(base, config)
        _switch(base)
        vars(base)[_PREPARED] = True
    elif config._attn_implementation != IMPLEMENTATION:
        base.set_attn_implementation(IMPLEMENTATION)
    _check_length(base, config, longest)
    return base


@contextmanager
def own_attention_afterwards(model: PreTrainedModel) -> Iterator[None]:
    """Whatever is prepared inside, the model has the attention implementation again that it came with."""
    own = model.config.get_text_config()._attn_implementation
    try:
        yield
    finally:
        if model.config.get_text_config()._attn_implementation != own:
            model.set_attn_implementation(own)


def _switch(base: PreTrainedModel) -> None:
    """Put the model on the attention `fspo`, unless a trial shows that it would not be exact."""
    own = base.config._attn_implementation
    if not _is_whole(base):
        base.set_attn_implementation(IMPLEMENTATION)
        return
    episode = _trial(base)
    try:
        with _undisturbed(base, base.device):
            expected = _plain(base, episode)
            base.set_attn_implementation(IMPLEMENTATION)
            with probed_masks(getattr(base.config.get_text_config(), "max_position_embeddings", None)):
                hidden_states(base, input_ids=_sequences(episode, base.device)[:1])
            found = _by_tree(base, episode)
    except (ModelError, torch.OutOfMemoryError):
        base.set_attn_implementation(own)
        raise
    except Exception as error:  # any code of any architecture
        base.set_attn_implementation(own)
        raise ModelError(
            f"{type(base).__name__} can't run a small tree of responses ({reason_of(error)}); use another model."
        ) from error
    difference, tolerance = _difference(base, expected, found)
    if not difference <= tolerance:
        base.set_attn_implementation(own)
        raise ModelError(
            f"{type(base).__name__} gives other log-probabilities by trunk and branches than for whole sequences (they "
            f"differ by {difference:.2g} of their spread, and {tolerance:.2g} is rounding); use another model."
        )


def _is_whole(base: PreTrainedModel) -> bool:
    """Whether this process holds all weights, so that the model can be tried."""
    return all(
        weight.device.type != "meta" and not isinstance(weight, DTensor) and weight.numel()
        for weight in base.parameters()
    )


def _trial(base: PreTrainedModel) -> TokenizedEpisode:
    """Two branches on two boundaries with uneven responses, of tokens that mean nothing special to the model."""
    embeddings: Any = base.get_input_embeddings()
    size = int(embeddings.weight.shape[0])
    special = set(_special_ids(base.config.to_dict()))
    drawn_from = range(size) if size < _LARGE else range(size // 4, size // 2)
    usual = [index for index in drawn_from if index not in special] or list(drawn_from)
    rng = random.Random(0)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(rng.choices(usual, k=count))

    return TokenizedEpisode(
        ids(12),
        (0, 5, 12),
        (Branch(ids(4), (ids(6), ids(3)), 5, 1, 0), Branch(ids(2), (ids(3), ids(6)), 12, 2, 1)),
    )


def _special_ids(config: dict[Any, Any]) -> Iterator[int]:
    for name, value in config.items():
        if isinstance(value, dict):
            yield from _special_ids(value)
        elif str(name).endswith(("_id", "_index", "_ids")):
            yield from (index for index in (value if isinstance(value, list) else [value]) if isinstance(index, int))


def _sequences(episode: TokenizedEpisode, device: torch.device) -> Tensor:
    """[4, L]: every response with what is before it, and then tokens that it must not see."""
    rows = []
    for branch in episode.branches:
        for response in branch.responses:
            ids = [*episode.trunk_ids[: branch.boundary], *branch.prompt_ids, *response]
            rows.append([*ids, *(episode.trunk_ids * 2)[: _LENGTH - len(ids)]])
    return torch.tensor(rows, device=device)


def _plain(base: PreTrainedModel, episode: TokenizedEpisode) -> Tensor:
    """[T, V]: log-probabilities at all positions that predict a response, from whole sequences in one plain call."""
    # The class's own forward: accelerate may have put another precision around the model's.
    forward: Any = type(base).forward
    scores = forward(base, input_ids=_sequences(episode, base.device), use_cache=False).logits
    parts = []
    ways = [(branch, response) for branch in episode.branches for response in branch.responses]
    for row, (branch, response) in zip(scores, ways, strict=True):
        start = branch.boundary + len(branch.prompt_ids) - 1
        parts.append(row[start : start + len(response)])
    return torch.cat(parts).float().log_softmax(-1)


def _by_tree(base: PreTrainedModel, episode: TokenizedEpisode) -> Tensor:
    """The same [T, V] by trunk and branches."""
    row = pack([episode], device=base.device)
    plan = RecordingPlan(row.forest)
    with planned_attention():
        hidden = hidden_states(base, input_ids=row.input_ids, position_ids=row.position_ids, fspo_plan=plan)
    return logits(base, hidden[0, row.predictors]).log_softmax(-1)


def _difference(base: PreTrainedModel, expected: Tensor, found: Tensor) -> tuple[float, float]:
    """How far the two are apart, relative to the spread over the vocabulary, and how far they may be."""
    rough = torch.get_float32_matmul_precision() != "highest"
    tolerance = _ROUGH_TOLERANCE if rough else _TOLERANCE
    known = ~expected.isnan().any(-1)
    if not bool(known.any()):
        return 0.0, tolerance  # the weights give no numbers at all, and training says so with step and episodes
    finite = expected[known].isfinite()  # a token may be ruled out by minus infinity
    one, other = (torch.where(finite, scores[known], 0.0) for scores in (found, expected))
    apart = (one - other).square().mean(-1).sqrt() / other.std(-1).clamp(min=torch.finfo(torch.float32).tiny)
    apart = apart.nan_to_num(nan=torch.inf)
    if any(weight.dtype not in (torch.float32, torch.float64) for weight in base.parameters()):
        return float(apart.mean()), _HALF_TOLERANCE
    return float(apart.max()), tolerance


@contextmanager
def _undisturbed(base: torch.nn.Module, device: torch.device) -> Iterator[None]:
    """Without dropout, gradients and autocast; every part goes back to the mode that it was in."""
    training = [part for part in base.modules() if part.training]
    try:
        base.eval()
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        for part in training:
            part.training = True


def _check_length(base: PreTrainedModel, config: Any, longest: int) -> None:
    rope: dict[str, Any] = getattr(config, "rope_parameters", None) or {}
    trained: int | None = rope.get("original_max_position_embeddings")
    limit: int = getattr(config, "max_position_embeddings", longest) if trained is None else trained
    if rope.get("rope_type") in _LENGTH_DEPENDENT_ROPES and longest > limit:
        raise ModelError(
            f"The rotary positions of {type(base).__name__} change with the length of the sequence beyond {limit} "
            f"tokens, and this one has {longest}; show fewer shots, or set the maximal length to {limit}."
        )


def _check_architecture(base: PreTrainedModel, config: Any) -> None:
    name = type(base).__name__
    alien = sorted(set(getattr(config, "layer_types", None) or ()) - _SUPPORTED_LAYERS)
    if alien or getattr(base, "_is_stateful", False):
        raise ModelError(
            f"{name} has layers ({', '.join(alien) or 'recurrent'}) that can't attend along a tree; use a model with "
            "attention layers only."
        )
    if not getattr(config, "is_causal", True) or getattr(config, "use_bidirectional_attention", False) not in (
        False,
        None,
        "vision",
    ):
        raise ModelError(
            f"{name} attends in both directions, which a tree of responses rules out; use a causal language model."
        )
    if getattr(config, "attn_logit_softcapping", None) is not None:
        raise ModelError(
            f"{name} soft-caps its attention scores, which SDPA can't do exactly; use another model, such as Gemma 3 "
            "in place of Gemma 2."
        )
    if not base._can_set_attn_implementation():
        raise ModelError(
            f"{name} does not use transformers' attention interface, so trunk and branches can't run on it; use "
            "another model."
        )


def _unwrapped(model: torch.nn.Module) -> PreTrainedModel:
    inner: Any = model
    while not isinstance(inner, PreTrainedModel):
        if hasattr(inner, "get_base_model"):
            inner = inner.get_base_model()
        elif hasattr(inner, "module"):
            inner = inner.module
        else:
            raise ModelError(f"{type(inner).__name__} is not a transformers model.")
    return inner
