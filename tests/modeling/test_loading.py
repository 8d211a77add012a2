from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.utils import logging

from fspo.errors import ConfigError, ModelError
from fspo.modeling import builtin_model, hub
from fspo.modeling.loading import (
    context_length,
    default_device,
    load_configuration,
    load_model,
    load_tokenizer,
)
from fspo.modeling.model_names import locate, place_here, weights_of
from fspo.modeling.quiet import quietly
from fspo.training.start import Start


def test_a_local_folder(tiny_model_path: Path) -> None:
    model = load_model(str(tiny_model_path))
    assert not model.training
    assert model.dtype == torch.float32
    assert model.device.type == default_device().type
    assert context_length(model) == 4096
    assert load_model(tiny_model_path, dtype="bfloat16", device="cpu").dtype == torch.bfloat16
    assert load_tokenizer(tiny_model_path).chat_template


def test_the_builtin_model_is_obtained_by_its_name(tiny_model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtin_model, "obtain", lambda: tiny_model_path)
    assert locate("smollm2-135m") == str(tiny_model_path)
    assert load_model("smollm2-135m").config.hidden_size == 32


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/no-such-model", Path("nowhere")])
def test_a_missing_folder_is_not_looked_for_on_the_hub(name: str | Path) -> None:
    with pytest.raises(ModelError, match=r"does not exist.*smollm2-135m"):
        load_model(name)


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config.json.*smollm2-135m"):
        load_tokenizer(tmp_path)


def test_a_broken_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="could not be loaded"):
        load_model(tmp_path)


def test_weights_that_lack_a_tensor_are_not_drawn_at_random(tiny_model_path: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model_path, tmp_path / "model"))
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"incomplete: they lack model\.layers\.1\.mlp\.up_proj"):
        load_model(folder)


@pytest.mark.parametrize("cut", [b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", None])
def test_damaged_weights_are_one_sentence(cut: bytes | None, tiny_model_path: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model_path, tmp_path / "model"))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-500] if cut is None else cut)
    with pytest.raises(ModelError, match=r"damaged .*cut off, or is a pointer of git LFS"):
        load_model(folder)


def test_pickled_weights_are_never_read(tiny_model_path: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((tiny_model_path / "config.json").read_text())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="none in safetensors; save the model again"):
        load_model(tmp_path)


@pytest.mark.parametrize("load", [load_model, load_tokenizer, load_configuration])
def test_an_unreachable_hub_is_one_sentence_that_names_the_builtin_model(
    load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoNetwork:
        def model_info(self, name: str, timeout: float) -> None:
            raise ConnectionError("no route")

    monkeypatch.setattr(hub, "HfApi", NoNetwork)
    for name, says in (
        ("nobody/no-such-model", r"^The model nobody/no-such-model could not.*hub can't be reached.*smollm2-135m"),
        ("runs/nope", r"^There is no model folder runs/nope, and .*hub can't be reached"),
        ("smollm2-135", r"Did you mean smollm2-135m\?$"),
    ):
        with pytest.raises(ModelError, match=says) as caught:
            load(name)
        assert "\n" not in str(caught.value)
        assert caught.value.__suppress_context__


@pytest.mark.parametrize("load", [load_tokenizer, load_configuration, weights_of])
def test_a_policy_that_is_built_on_itself(load: Any, tmp_path: Path) -> None:
    for name, base in (("one", "two"), ("two", "one")):
        (tmp_path / name).mkdir()
        record = {"format": 1, "base": str(tmp_path / base), "adapters": [], "starts_from": None}
        (tmp_path / name / "policy.json").write_text(json.dumps(record))
    with pytest.raises(ModelError, match=r"is built on itself: base in .*one/policy\.json leads back"):
        load(tmp_path / "one")


@pytest.mark.parametrize(
    "use", [load_model, load_tokenizer, weights_of, place_here, lambda name: Start(name, Path("out")).identity()]
)
def test_an_unknown_home_folder(use: Any) -> None:
    with pytest.raises(ConfigError, match=r"~no-such-user/model starts with a home folder that is not known"):
        use("~no-such-user/model")


def test_an_unknown_dtype() -> None:
    with pytest.raises(ConfigError, match="float64"):
        load_model("smollm2-135m", dtype="float64")


def test_quiet_only_while_loading() -> None:
    log: Any = logging
    before = log.is_progress_bar_enabled(), log.get_verbosity()
    with pytest.raises(RuntimeError), quietly():
        assert not log.is_progress_bar_enabled()
        raise RuntimeError
    assert (log.is_progress_bar_enabled(), log.get_verbosity()) == before
