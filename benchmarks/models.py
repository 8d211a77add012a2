"""Models, references and episodes for benchmarks: by name, or of a shape with random weights, nothing to download."""

from __future__ import annotations

import copy
import math
import random
from dataclasses import replace
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from benchmarks.episode_step import make_episode
from fspo.modeling.loading import load_model, load_tokenizer
from fspo.modeling.rendering import Branch, EpisodeRenderer, TokenizedEpisode

__all__ = ["SHAPE", "SHAPES", "load_episode", "load_pair", "load_words"]

SHAPE = "shape:"
"""Begins the name of a model that is a shape with random weights."""

_QUESTION = 25
"""Tokens of a question in an episode of random tokens."""


def _tiny() -> Any:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=512,
            hidden_size=36,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=9,
            num_key_value_heads=3,
            max_position_embeddings=2**15,
        )
    )


def _half_billion() -> Any:
    """Qwen2.5-0.5B."""
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=151936,
            hidden_size=896,
            intermediate_size=4864,
            num_hidden_layers=24,
            num_attention_heads=14,
            num_key_value_heads=2,
            tie_word_embeddings=True,
        )
    )


def _three_billion() -> Any:
    """Llama-3.2-3B."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=128256,
            hidden_size=3072,
            intermediate_size=8192,
            num_hidden_layers=28,
            num_attention_heads=24,
            num_key_value_heads=8,
            head_dim=128,
            max_position_embeddings=2**15,
            tie_word_embeddings=True,
        )
    )


SHAPES = {"tiny": _tiny, "0.5b": _half_billion, "3b": _three_billion}


def load_pair(name: str, *, dtype: str, device: str, seed: int) -> tuple[Any, Any]:
    """The policy, in training mode, and a frozen reference whose weights differ a little, so that no margin is 0."""
    policy = _shaped(name, dtype, device, seed) if name.startswith(SHAPE) else load_model(name, dtype, device)
    reference = copy.deepcopy(policy).requires_grad_(False).eval()
    generator = torch.Generator(device).manual_seed(seed)
    with torch.no_grad():
        for weight in reference.parameters():
            noise = torch.randn(weight.shape, generator=generator, device=device, dtype=weight.dtype)
            weight.add_(noise * weight.std(correction=0), alpha=0.02)
    return policy.train(), reference


def load_episode(name: str, *, shots: int, queries: int, response_tokens: int, seed: int) -> TokenizedEpisode:
    """An episode of made-up reviews whose queries have responses of exactly so many tokens; a shot's have about these.

    A model with random weights gets random tokens.
    """
    if name.startswith(SHAPE):
        return _random_episode(shots, queries, response_tokens, seed)
    spare = math.ceil((response_tokens + 12) / 0.85)  # texts end at a word, and their lengths vary
    episode = make_episode(
        EpisodeRenderer(load_tokenizer(name)),
        shots=shots,
        queries=queries,
        shot_tokens=response_tokens,
        response_tokens=spare,
        seed=seed,
    )
    branches = tuple(
        replace(b, responses=tuple((*r[: response_tokens - 1], r[-1]) for r in b.responses)) for b in episode.branches
    )
    return replace(episode, branches=branches)


def load_words(name: str) -> Any:
    """The model's tokenizer; one of a few words for a shape."""
    if not name.startswith(SHAPE):
        return load_tokenizer(name)
    words = Tokenizer(WordLevel({"<unk>": 0, "</s>": 1, "a": 2, "b": 3}, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    fast: Any = PreTrainedTokenizerFast
    return fast(tokenizer_object=words, unk_token="<unk>", eos_token="</s>", pad_token="</s>")


def _shaped(name: str, dtype: str, device: str, seed: int) -> Any:
    before = torch.get_default_dtype()
    torch.manual_seed(seed)
    try:
        torch.set_default_dtype(getattr(torch, dtype))
        with torch.device(device):
            return SHAPES[name.removeprefix(SHAPE)]()
    finally:
        torch.set_default_dtype(before)


def _random_episode(shots: int, queries: int, response_tokens: int, seed: int) -> TokenizedEpisode:
    rng = random.Random(seed)

    def words(count: int) -> tuple[int, ...]:
        return tuple(rng.randrange(4, 512) for _ in range(count))

    boundaries = tuple(10 + shot * (_QUESTION + 2 * response_tokens) for shot in range(shots + 1))
    branches = tuple(
        Branch(words(_QUESTION), (words(response_tokens), words(response_tokens)), boundaries[-1], shots, query)
        for query in range(queries)
    )
    return TokenizedEpisode(words(boundaries[-1]), boundaries, branches)
