"""Tiny models of any causal architecture of transformers, with random weights that hide nothing.

Sizes are shrunk by the names of the configuration's fields, in nested configurations too. Windows and chunks become
shorter than the sequences that are read, every kind of layer occurs, and weights that begin as zeros or ones (biases,
norms, sinks, learned masks) become random.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

__all__ = ["POSITIONS", "VOCABULARY", "WINDOW", "build", "causal_architectures", "variants"]

VOCABULARY = 97
WINDOW = 6
POSITIONS = 512

_TABLE: tuple[tuple[Any, str], ...] = (
    # widths
    (32, "hidden_size d_model n_embd dim embedding_size emb_dim embed_dim word_embed_proj_dim embedding_dim dim_model"),
    (32, "d_embed lru_width intermediate_size_mlp moe_shared_expert_intermediate_size"),
    (48, "intermediate_size ffn_dim decoder_ffn_dim encoder_ffn_dim n_inner d_ff"),
    (24, "moe_intermediate_size shared_expert_intermediate_size shared_intermediate_size expert_ffn_hidden_size"),
    (24, "ffn_hidden_size dff dim_ff d_inner"),
    (8, "hidden_size_per_layer_input hrm_hidden_size laurel_rank"),
    # depths
    (2, "num_hidden_layers n_layer n_layers num_layers decoder_layers encoder_layers num_decoder_layers"),
    (2, "num_encoder_layers num_kv_shared_layers"),
    # heads
    (4, "num_attention_heads n_head n_heads num_heads decoder_attention_heads encoder_attention_heads"),
    (4, "num_decoder_attention_heads num_encoder_attention_heads swa_num_attention_heads"),
    (2, "num_key_value_heads num_kv_heads n_head_kv kv_n_heads num_global_key_value_heads swa_num_key_value_heads"),
    (8, "head_dim attention_head_dim kv_channels d_kv head_size dim_head global_head_dim swa_head_dim"),
    (8, "query_pre_attn_scalar attention_head_size"),
    # latent attention: keys of 12, values of 6
    (12, "q_lora_rank qk_head_dim"),
    (10, "kv_lora_rank"),
    (8, "qk_nope_head_dim index_head_dim index_topk"),
    (6, "v_head_dim swa_v_head_dim"),
    (4, "qk_rope_head_dim rotary_dim"),
    (2, "index_n_heads"),
    # experts
    (4, "num_experts n_routed_experts num_local_experts moe_num_experts num_routed_experts"),
    (2, "num_experts_per_tok moe_topk moe_k num_experts_per_token top_k_experts moe_router_topk num_selected_experts"),
    (2, "zero_expert_num"),
    (1, "n_group topk_group n_shared_experts num_shared_experts moe_num_shared_experts"),
    # state spaces and convolutions
    (4, "mamba_d_state ssm_state_size state_size mamba_d_conv conv_kernel mamba_n_heads mamba_num_heads n_mamba_heads"),
    (8, "mamba_d_head mamba_head_dim linear_key_head_dim linear_value_head_dim"),
    (2, "linear_num_value_heads linear_num_key_heads"),
    (1, "mamba_n_groups n_groups mamba_expand expand"),
    # sequences
    (WINDOW, "sliding_window sliding_window_size window_size attention_window local_attention attention_chunk_size"),
    (WINDOW, "attention_window_size"),
    (POSITIONS, "max_position_embeddings n_positions n_ctx max_seq_len max_target_positions max_source_positions"),
    (POSITIONS, "max_sequence_length"),
    (8, "floor_scale"),  # what depends on the position comes early
    (True, "use_sliding_window"),
    (1, "max_window_layers"),
    (VOCABULARY, "vocab_size vocab_size_per_layer_input"),
    (0.2, "initializer_range init_std"),
    (0.0, "attention_dropout hidden_dropout hidden_dropout_prob attention_probs_dropout_prob dropout resid_pdrop"),
    (0.0, "embd_pdrop attn_pdrop activation_dropout layerdrop"),
)
_SIZES = {field: size for size, fields in _TABLE for field in fields.split()}
_ATTEMPTS: tuple[tuple[dict[str, Any], bool], ...] = (
    ({}, False),
    ({"head_dim": None}, False),
    ({"num_key_value_heads": 4}, False),
    ({"head_dim": None, "qk_head_dim": None, "num_key_value_heads": 4}, False),
    ({"head_dim": None, "num_key_value_heads": None}, False),
    ({"head_dim": 4, "qk_head_dim": None, "num_key_value_heads": 4}, False),
    ({}, True),
    ({"num_key_value_heads": 4}, True),
    ({"head_dim": None, "qk_head_dim": None, "num_key_value_heads": 4}, True),
)
"""Attempts, in order: sizes that replace those above (None: the configuration's own default), and whether fields
without a default size get one."""
_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
_PECULIAR: dict[str, dict[str, Any]] = {
    "cohere_compass_text": {"rope_parameters": {"full_attention": _ROPE, "sliding_attention": _ROPE}},
    "dbrx": {"attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8}},
    "falcon_h1": {"mamba_d_ssm": 32},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "lfm2_moe": {"full_attn_idxs": [0, 1], "layer_types": ["full_attention", "full_attention"]},
    "mpt": {"attn_config": {"attn_pdrop": 0}},
    "qwen4_exp_text": {
        "indexer_budget": 8,
        "indexer_compress_ratio": 4,
        "indexer_n_heads": 2,
        "indexer_head_dim": 8,
        "indexer_kv_heads": 1,
    },
    "reformer": {"axial_pos_embds": False, "is_decoder": True},
    "xmod": {"default_language": "en_XX"},
    "zaya": {"num_experts_per_tok": 1},
}
"""What the sizes don't say."""
_NAMED: dict[str, dict[str, dict[str, Any]]] = {
    "minimax_m3_vl_text": {"sparse": {"layer_types": ["full_attention", "minimax_m3_sparse"], "num_hidden_layers": 2}},
    "lfm2": {"convolutions": {"layer_types": ["conv", "full_attention"], "num_hidden_layers": 2}},
    "ministral3": {
        "early scaling": {
            "rope_parameters": {**_ROPE, "llama_4_scaling_beta": 0.5, "original_max_position_embeddings": 8}
        }
    },
}
"""Variants that the defaults leave out."""
_DERIVED = frozenset(
    {"layer_types", "mlp_layer_types", "layers_block_type", "hybrid_override_pattern", "layer_type_list"}
)
"""Lists with one entry for each layer: taken from the shrunk configuration's own defaults."""


def causal_architectures() -> list[str]:
    """The model types that AutoModelForCausalLM takes."""
    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def variants(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """How a model of type `name` is built: by its own defaults, as a decoder and with full attention where it can be.

    Each with what it is called, and the changes to the configuration.
    """
    yield "", {}
    yield from _NAMED.get(name, {}).items()
    config_class = CONFIG_MAPPING[name]
    fields = getattr(config_class, "__dataclass_fields__", {})
    if "is_decoder" in fields and fields["is_decoder"].default is False:
        yield "decoder", {"is_decoder": True}
    with warnings.catch_warnings(), suppress(Exception):
        warnings.simplefilter("ignore")
        kinds = set(getattr(config_class(), "layer_types", None) or ())
        if "layer_types" in fields and kinds - {"full_attention", "sliding_attention"}:
            yield "full attention", {"layer_types": ["full_attention"] * 2, "num_hidden_layers": 2}


def build(name: str, changes: Mapping[str, Any], seed: int = 0) -> Any:
    """A tiny model of type `name` in evaluation mode, in float32; `changes` are to its configuration."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config_class = CONFIG_MAPPING[name]
        problems = []
        for other, fill in _ATTEMPTS:
            try:
                torch.manual_seed(seed)
                config = _shrunk(config_class, {**_PECULIAR.get(name, {}), **changes}, {**_SIZES, **other}, fill)
                auto: Any = AutoModelForCausalLM
                model = auto.from_config(config)
                _hide_nothing(model, seed)
                model = model.float().eval()
                with torch.no_grad():
                    model(input_ids=torch.arange(8, 20)[None], use_cache=False)
                return model
            except Exception as error:
                problems.append(error)
    raise problems[0]


def _shrunk(
    config_class: type[PreTrainedConfig], changes: dict[str, Any], sizes: dict[str, Any], fill: bool
) -> PreTrainedConfig:
    plain: Any = config_class()
    values = _small_values(plain, sizes, fill)
    return config_class(**{**values, **changes})


def _small_values(config: Any, sizes: Mapping[str, Any], fill: bool) -> dict[str, Any]:
    """What `config` is built with to be tiny; all else is left to its defaults."""
    values: dict[str, Any] = {}
    for field, value in _fields(config):
        if isinstance(value, PreTrainedConfig):
            values[field] = _small_values(value, sizes, fill)
        elif field in _DERIVED or (value is None and not fill and field != "sliding_window"):
            continue
        elif field in sizes:
            if sizes[field] is not None:
                values[field] = sizes[field]
        elif field.endswith(("_token_id", "_token_index", "_id")) and isinstance(value, int) and value >= VOCABULARY:
            values[field] = VOCABULARY - 1 - len(values) % 8
    renamed = getattr(config, "attribute_map", {}).get("layer_types", "layer_types")
    settable = not isinstance(getattr(type(config), renamed, None), property)
    kinds = list(dict.fromkeys(getattr(config, "layer_types", None) or ()))
    if len(kinds) > 1 and settable:
        # Two layers of each kind: where layers share keys and values, the second of a kind takes those of the first.
        values |= {"num_hidden_layers": 2 * len(kinds), "layer_types": kinds * 2}
    return values


def _fields(config: Any) -> Iterator[tuple[str, Any]]:
    aliases = {target: alias for alias, target in getattr(config, "attribute_map", {}).items()}
    for field, value in vars(config).items():
        if not field.startswith("_") and not callable(value):
            yield field, value
            if field in aliases and aliases[field] in _SIZES and field not in _SIZES:
                yield aliases[field], value


@torch.no_grad()
def _hide_nothing(model: Any, seed: int) -> None:
    """Make weights random that begin as constants, and weights that are all but zero larger."""
    generator = torch.Generator().manual_seed(seed)
    for _, tensor in [*model.named_parameters(), *_kept_buffers(model)]:
        if not tensor.is_floating_point() or not tensor.numel():
            continue
        noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float32).to(tensor.dtype)
        spread = float(tensor.float().std(correction=0))
        if spread < 1e-6:
            tensor.add_(noise * 0.3)
        elif spread < 0.15 and tensor.dim() >= 2:
            tensor.mul_(0.2 / spread)


def _kept_buffers(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    saved = model.state_dict(keep_vars=True)
    return ((name, buffer) for name, buffer in model.named_buffers() if name in saved)
