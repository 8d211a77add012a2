from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fspo.modeling.merging import join_adapters


def adapter(folder: Path, layer: str, rank: int, *, more: str = "", **settings: object) -> Path:
    folder.mkdir()
    plain = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "target_modules": ["q_proj"], "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps({**plain, **settings}))
    name = f"base_model.model.{layer}"
    tensors = {f"{name}.lora_A.weight": torch.randn(rank, 5), f"{name}.lora_B.weight": torch.randn(4, rank)}
    tensors |= {f"base_model.model.embed_tokens.{more}": torch.randn(2, 2)} if more else {}
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def product(folder: Path, layer: str, scale: float) -> torch.Tensor:
    tensors = load_file(folder / "adapter_model.safetensors")
    name = f"base_model.model.{layer}"
    return scale * tensors[f"{name}.lora_B.weight"] @ tensors[f"{name}.lora_A.weight"]


def test_the_products_add_up(tmp_path: Path) -> None:
    layer, other = "model.layers.0.q_proj", "model.layers.1.q_proj"
    one, two = adapter(tmp_path / "a", layer, 2), adapter(tmp_path / "b", layer, 3)
    three = adapter(tmp_path / "c", other, 1)
    (tmp_path / "out").mkdir()
    assert join_adapters([one, two, three], tmp_path / "out", base="a-base")
    settings = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (settings["r"], settings["lora_alpha"], settings["target_modules"]) == (6, 6, [layer, other])
    assert settings["base_model_name_or_path"] == "a-base"
    assert torch.allclose(
        product(tmp_path / "out", layer, 1), product(one, layer, 2) + product(two, layer, 2), atol=1e-5
    )
    assert torch.allclose(product(tmp_path / "out", other, 1), product(three, other, 2), atol=1e-5)


@pytest.mark.parametrize(
    ("more", "settings"), [("lora_embedding_A", {}), ("", {"use_rslora": True}), ("", {"target_parameters": ["x"]})]
)
def test_what_does_not_add_up_is_left_alone(tmp_path: Path, more: str, settings: dict[str, object]) -> None:
    one = adapter(tmp_path / "a", "model.layers.0.q_proj", 2)
    odd = adapter(tmp_path / "b", "model.layers.0.q_proj", 2, more=more, **settings)
    (tmp_path / "out").mkdir()
    assert not join_adapters([one, odd], tmp_path / "out", base="a-base")
    assert list((tmp_path / "out").iterdir()) == []
    assert join_adapters([odd], tmp_path / "out", base="a-base")
