"""Which layers get adapters, and that what is saved is what was trained."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from benchmarks.naive import naive_logprobs
from fspo.errors import ConfigError
from fspo.modeling.logprobs import branch_logprobs
from fspo.modeling.policies import load_policy, save_policy
from fspo.modeling.rendering import Branch, TokenizedEpisode
from fspo.modeling.sharing import PolicyWeights
from fspo.training.adapters import prepare_weights
from fspo.training.config import LoraSettings
from fspo.training.references import trainable_weights

EPISODE = TokenizedEpisode((1, 2, 3), (3,), (Branch((4,), ((5, 6, 7), (8, 9)), 3, 0, 0),))


def llama(*, tied: bool) -> Any:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=31,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            initializer_range=0.2,
            tie_word_embeddings=tied,
        )
    )


def gpt2() -> Any:
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=31, n_embd=16, n_layer=3, n_head=2, initializer_range=0.2))


def trained(model: Any, lora: LoraSettings | LoraConfig) -> Any:
    policy = prepare_weights(model, lora, seed=0)
    with torch.no_grad():
        for weight in trainable_weights(policy).values():
            weight.add_(torch.randn_like(weight) * 0.1)
    return policy.eval()


def scores(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return branch_logprobs(model.eval(), [EPISODE])[0].sums


def saved(model: Any, folder: Path) -> str:
    model.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        ({"target_modules": ["q_proj", "lm_head"]}, "leave lm_head out of target_modules"),
        ({"target_modules": ["embed_tokens"]}, "leave embed_tokens out of target_modules"),
        (
            {"target_modules": ["embed_tokens", "q_proj"], "ensure_weight_tying": True},
            "leave embed_tokens out of target_modules",
        ),
        ({"modules_to_save": ["lm_head"]}, "leave lm_head out of modules_to_save, or set ensure_weight_tying=True"),
        (
            {"modules_to_save": ["embed_tokens"]},
            "leave embed_tokens out of modules_to_save, or set ensure_weight_tying",
        ),
        ({"target_modules": r".*(q_proj|lm_head)"}, "leave lm_head out of target_modules"),
    ],
)
def test_training_one_of_two_tied_parts_is_refused(settings: dict[str, Any], remedy: str) -> None:
    with pytest.raises(ConfigError, match=r"lm_head and model\.embed_tokens \(tied embeddings\)") as caught:
        prepare_weights(llama(tied=True), LoraConfig(**{"r": 2, "target_modules": ["q_proj"], **settings}), seed=0)
    assert remedy in str(caught.value)


def test_settings_that_name_the_head_of_tied_embeddings_are_refused() -> None:
    with pytest.raises(ConfigError, match="leave lm_head out"):
        prepare_weights(llama(tied=True), LoraSettings(target_modules=["q_proj", "lm_head"]), seed=0)


@pytest.mark.parametrize(
    ("tied", "settings"),
    [
        (True, {"target_modules": "all-linear"}),
        (True, {"target_modules": ["q_proj", "down_proj"]}),
        (True, {"target_modules": ["q_proj"], "trainable_token_indices": [1, 2, 5]}),
        (True, {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}),
        (True, {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"], "ensure_weight_tying": True}),
        (False, {"target_modules": ["q_proj", "lm_head"]}),
        (False, {"target_modules": ["embed_tokens", "v_proj"]}),
        (False, {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}),
        (False, {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]}),
        (False, {"target_modules": ["q_proj"], "trainable_token_indices": [1, 2, 5]}),
    ],
)
def test_what_is_saved_and_exported_is_what_was_trained(tied: bool, settings: dict[str, Any], tmp_path: Path) -> None:
    base = saved(llama(tied=tied), tmp_path / "base")
    policy = trained(AutoModelForCausalLM.from_pretrained(base), LoraConfig(r=2, **settings))
    expected = scores(policy)
    assert not torch.allclose(expected, scores(AutoModelForCausalLM.from_pretrained(base)), atol=1e-3)
    save_policy(policy, tmp_path / "policy", base=base, tokenizer=_Tokenizer())
    for loaded in (
        load_policy(tmp_path / "policy"),
        load_policy(tmp_path / "policy", adapters="switchable"),
    ):
        torch.testing.assert_close(scores(loaded), expected, atol=1e-4, rtol=1e-4)
    weights = PolicyWeights(tmp_path / "policy", device="cpu")
    with weights.policy() as shared:
        torch.testing.assert_close(scores(shared), expected, atol=1e-4, rtol=1e-4)
    with weights.start() as start:
        untrained = scores(AutoModelForCausalLM.from_pretrained(base))
        torch.testing.assert_close(scores(start), untrained, atol=1e-4, rtol=1e-4)
    exported = saved(load_policy(tmp_path / "policy"), tmp_path / "exported")
    torch.testing.assert_close(scores(AutoModelForCausalLM.from_pretrained(exported)), expected, atol=1e-4, rtol=1e-4)


def test_all_linear_layers_of_gpt2_get_adapters_and_are_saved(tmp_path: Path) -> None:
    base = saved(gpt2(), tmp_path / "base")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", FutureWarning)
        policy = trained(AutoModelForCausalLM.from_pretrained(base), LoraSettings(r=2, last_layers=2))
        names = {name.split(".lora_")[0].split("transformer.")[-1] for name in trainable_weights(policy)}
        assert names == {
            f"h.{layer}.{part}" for layer in (1, 2) for part in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
        }
        expected = scores(policy)
        save_policy(policy, tmp_path / "first", base=base, tokenizer=_Tokenizer())
        torch.testing.assert_close(scores(load_policy(tmp_path / "first")), expected, atol=1e-4, rtol=1e-4)
        second = trained(load_policy(tmp_path / "first"), LoraSettings(r=3))
        save_policy(second, tmp_path / "second", base=base, start=tmp_path / "first", tokenizer=_Tokenizer())
        with PolicyWeights(tmp_path / "second", device="cpu").policy() as joined:
            torch.testing.assert_close(scores(joined), scores(second), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(naive_logprobs(second, [EPISODE])[0].sums.detach(), scores(second), atol=1e-4, rtol=1e-4)


def test_names_of_no_layer_are_answered_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match="c_attn, c_fc, c_proj"):
        prepare_weights(gpt2(), LoraSettings(target_modules=["q_proj"]), seed=0)


class _Tokenizer:
    """Nothing is read by it here."""

    def save_pretrained(self, folder: Path) -> None:
        """Nothing to write."""


def test_the_names_of_layers_are_saved_in_one_order(tmp_path: Path) -> None:
    base = saved(llama(tied=False), tmp_path / "base")
    policy = prepare_weights(AutoModelForCausalLM.from_pretrained(base), LoraSettings(r=2, alpha=4), seed=0)
    save_policy(policy, tmp_path / "policy", base=base, tokenizer=_Tokenizer())
    names = json.loads((tmp_path / "policy" / "adapter_config.json").read_text())["target_modules"]
    assert len(names) > 2 and names == sorted(names)
