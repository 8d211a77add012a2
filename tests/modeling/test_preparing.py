"""Which models are taken for trunk and branches, and which are refused by one sentence."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from transformers import (
    BertConfig,
    BertLMHeadModel,
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    DogeConfig,
    DogeForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Qwen3NextConfig,
    Qwen3NextForCausalLM,
)

from fspo.errors import ModelError
from fspo.modeling import preparing
from fspo.modeling.attention import IMPLEMENTATION
from fspo.modeling.logprobs import branch_logprobs
from fspo.modeling.preparing import prepare_model
from fspo.modeling.rendering import Branch, TokenizedEpisode
from tests.modeling.models import KINDS, build

SMALL: dict[str, Any] = {
    "vocab_size": 31,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
EPISODE = TokenizedEpisode((1, 2, 3), (3,), (Branch((4,), ((5, 6, 7), (8, 9)), 3, 0, 0),))


def doge(bias: float) -> Any:
    model = DogeForCausalLM(DogeConfig(**SMALL, num_key_value_heads=1))
    for layer in model.model.layers:
        layer.self_attn.A.data = torch.tensor([-1.5, 0.7])[:1] * bias
    return model


def test_wrappers_are_taken_off() -> None:
    wrapped = build("llama", lora=True)
    assert prepare_model(wrapped) is wrapped.get_base_model()
    assert prepare_model(torch.nn.DataParallel(wrapped)) is wrapped.get_base_model()
    with pytest.raises(ModelError, match="not a transformers model"):
        prepare_model(torch.nn.Linear(1, 1))


def test_soft_capping_is_refused() -> None:
    model = Gemma2ForCausalLM(Gemma2Config(**SMALL, num_key_value_heads=1, head_dim=8))
    with pytest.raises(ModelError, match="soft-caps"):
        prepare_model(model)


def test_linear_attention_is_refused() -> None:
    config = Qwen3NextConfig(
        **SMALL,
        num_key_value_heads=1,
        head_dim=8,
        layer_types=["linear_attention", "full_attention"],
        linear_num_value_heads=2,
        linear_num_key_heads=2,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        num_experts=2,
        num_experts_per_tok=1,
        moe_intermediate_size=8,
        shared_expert_intermediate_size=8,
    )
    with pytest.raises(ModelError, match="linear_attention"):
        prepare_model(Qwen3NextForCausalLM(config))


def test_positions_that_depend_on_the_length_are_refused_where_they_would_differ() -> None:
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    model = LlamaForCausalLM(LlamaConfig(**SMALL, max_position_embeddings=64, rope_parameters=rope))
    prepare_model(model, 64)
    with pytest.raises(ModelError, match="rotary positions"):
        prepare_model(model, 65)


@pytest.mark.parametrize("bias", [1.0, 0.0])
def test_a_learned_attention_mask_is_refused_also_where_it_is_zero_still(bias: float) -> None:
    model = doge(bias)
    own = model.config._attn_implementation
    with pytest.raises(ModelError, match="mask of its own"):
        branch_logprobs(model, [EPISODE])
    assert model.config._attn_implementation == own


def test_an_encoder_is_refused() -> None:
    with pytest.raises(ModelError, match="encoders"):
        prepare_model(BertLMHeadModel(BertConfig(**SMALL)))


@pytest.mark.parametrize("longest", [5000, 1000])
def test_a_window_that_only_the_mask_knows_is_refused_unless_no_sequence_is_longer(longest: int) -> None:
    shape = {**SMALL, "num_key_value_heads": 1, "max_position_embeddings": longest}
    model = MistralForCausalLM(MistralConfig(**shape, sliding_window=1000))
    secretive = copy.deepcopy(model)
    assert prepare_model(model) is model
    for layer in secretive.model.layers:
        layer.self_attn.config = copy.deepcopy(secretive.config)
        layer.self_attn.config.sliding_window = None
        layer.self_attn.config._attn_implementation = IMPLEMENTATION
    if longest == 1000:
        assert prepare_model(secretive) is secretive
        return
    with pytest.raises(ModelError, match="sliding window"):
        prepare_model(secretive)


def test_what_only_numbers_show_is_refused() -> None:
    class Counting(LlamaForCausalLM):  # type: ignore[no-untyped-call]
        """Adds to each token what depends on its place in the row, not on its position."""

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.model.register_forward_pre_hook(self._count, with_kwargs=True)

        def _count(self, module: Any, args: Any, kwargs: Any) -> Any:
            ids = kwargs.pop("input_ids")
            row = torch.arange(ids.shape[1])[:, None] / 20
            return args, {**kwargs, "inputs_embeds": module.embed_tokens(ids) + row}

    model = Counting(LlamaConfig(**SMALL, initializer_range=0.2))
    with pytest.raises(ModelError, match="other log-probabilities"):
        prepare_model(model)


def test_what_can_not_run_at_all_is_refused_by_a_sentence() -> None:
    model = build("llama")
    model.model.layers[1].mlp.up_proj = torch.nn.Linear(3, 3)
    with pytest.raises(ModelError, match="can't run a small tree"):
        prepare_model(model)


def test_layers_that_run_twice_are_refused() -> None:
    model = build("llama")
    model.model.layers.append(model.model.layers[0])
    model.config.num_hidden_layers += 1
    with pytest.raises(ModelError, match="in order"):
        prepare_model(model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", KINDS)
def test_exact_models_pass_in_every_precision(kind: str, dtype: torch.dtype) -> None:
    model = build(kind).to(dtype)
    assert prepare_model(model).config._attn_implementation == IMPLEMENTATION


@pytest.mark.parametrize(
    "model",
    [
        lambda: GPT2LMHeadModel(GPT2Config(vocab_size=31, n_embd=16, n_layer=2, n_head=2)),
        lambda: DeepseekV3ForCausalLM(
            DeepseekV3Config(
                **SMALL,
                num_key_value_heads=2,
                moe_intermediate_size=8,
                n_routed_experts=4,
                num_experts_per_tok=2,
                n_group=1,
                topk_group=1,
                q_lora_rank=8,
                kv_lora_rank=8,
                qk_nope_head_dim=8,
                qk_rope_head_dim=4,
                v_head_dim=6,
            )
        ),
    ],
)
def test_other_architectures_pass(model: Any) -> None:
    prepare_model(model())


def test_a_model_is_tried_once_and_a_copy_of_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Any] = []
    by_tree = preparing._by_tree

    def counted(base: Any, episode: TokenizedEpisode) -> torch.Tensor:
        tried.append(base)
        return by_tree(base, episode)

    monkeypatch.setattr(preparing, "_by_tree", counted)
    model = build("llama")
    for _ in range(3):
        prepare_model(model)
    prepare_model(copy.deepcopy(model))
    assert len(tried) == 1
    prepare_model(build("llama"))
    assert len(tried) == 2


def test_modes_and_random_numbers_stay_as_they_were() -> None:
    model = build("llama").train()
    model.model.layers[0].eval()
    before = torch.get_rng_state()
    prepare_model(model)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training and model.model.layers[1].training and not model.model.layers[0].mlp.training


def test_a_model_without_its_weights_can_not_be_tried_and_is_taken() -> None:
    with torch.device("meta"):
        model = build("llama")
    assert prepare_model(model).config._attn_implementation == IMPLEMENTATION


def test_positions_by_the_attention_mask_are_seen() -> None:
    model = OPTForCausalLM(
        OPTConfig(vocab_size=31, hidden_size=16, ffn_dim=16, num_hidden_layers=2, num_attention_heads=2)
    )
    prepare_model(model)


def test_weights_that_are_not_numbers_are_left_to_training_to_tell() -> None:
    model = build("llama")
    model.model.embed_tokens.weight.data.fill_(torch.nan)
    assert prepare_model(model) is model
