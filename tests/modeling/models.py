"""Tiny random models of every supported kind, and random episodes for them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MiniCPM3Config,
    MiniCPM3ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from fspo.modeling.rendering import Branch, TokenizedEpisode

VOCABULARY = 61
WINDOW = 6
_COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "intermediate_size": 40,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,  # random weights as large as trained ones: attention is not uniform
    "pad_token_id": 0,
}


def llama() -> Any:
    return LlamaForCausalLM(
        LlamaConfig(**_COMMON, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
    )


def smollm2() -> Any:
    """Nine heads over three key-value heads, tied embeddings, as in SmolLM2-135M."""
    return LlamaForCausalLM(
        LlamaConfig(
            **_COMMON,
            hidden_size=36,
            num_hidden_layers=3,
            num_attention_heads=9,
            num_key_value_heads=3,
            tie_word_embeddings=True,
            rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
        )
    )


def qwen3() -> Any:
    return Qwen3ForCausalLM(
        Qwen3Config(
            **_COMMON, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=1, head_dim=16
        )
    )


def gemma3() -> Any:
    """Sliding layers whose window is far shorter than most trunks."""
    return Gemma3ForCausalLM(
        Gemma3TextConfig(
            **_COMMON,
            hidden_size=32,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            query_pre_attn_scalar=8,
            sliding_window=WINDOW,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        )
    )


def minicpm3() -> Any:
    """Latent attention: keys of 12 numbers, values of 6."""
    return MiniCPM3ForCausalLM(
        MiniCPM3Config(
            **_COMMON,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            q_lora_rank=12,
            kv_lora_rank=10,
            qk_nope_head_dim=8,
            qk_rope_head_dim=4,
            v_head_dim=6,
        )
    )


KINDS: dict[str, Callable[[], Any]] = {
    "llama": llama,
    "qwen3": qwen3,
    "gemma3": gemma3,
    "smollm2": smollm2,
    "minicpm3": minicpm3,
}


def build(kind: str, *, lora: bool = False, checkpointing: bool = False) -> Any:
    """One of `KINDS`, the same at every call, ready to be trained."""
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(7)
        model = KINDS[kind]()
        if lora:
            model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
            for name, weight in model.named_parameters():
                if "lora_B" in name:
                    torch.nn.init.normal_(weight, std=0.1)
        if checkpointing:
            model.gradient_checkpointing_enable()
            model.enable_input_require_grads()
    return model.train(checkpointing)


def token_ids(low: int, high: int) -> st.SearchStrategy[tuple[int, ...]]:
    return st.lists(st.integers(0, VOCABULARY - 1), min_size=low, max_size=high).map(tuple)


@st.composite
def episodes(draw: Any, longest_trunk: int = 40) -> TokenizedEpisode:
    trunk = draw(token_ids(1, longest_trunk))
    branches = []
    for query in range(draw(st.integers(1, 4))):
        boundary = draw(st.integers(1, len(trunk)))
        responses = (draw(token_ids(1, 9)), draw(token_ids(1, 9)))
        branches.append(Branch(draw(token_ids(0, 6)), responses, boundary, 0, query))
    return TokenizedEpisode(trunk, (0, len(trunk)), tuple(branches))
