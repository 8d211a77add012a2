"""The identity of a training: what changes the weights changes it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig

from fspo.errors import ConfigError
from fspo.files import write_json
from fspo.training.resumable_training import Training
from fspo.training.start import Start
from fspo.training.train import train_policy
from fspo.training.training_folder import save_record
from tests.training.helpers import small_dataset
from tests.training.test_train import same, weights
from tests.training.train_tiny import tiny_settings


@pytest.mark.parametrize("start", ["model", "policy"])
def test_a_training_with_another_chat_template_in_the_models_folder_is_another_one(
    start: str, tiny_model_path: Path, tmp_path: Path
) -> None:
    model = shutil.copytree(tiny_model_path, tmp_path / "model")
    (tmp_path / "policy").mkdir()
    card = {"format": 1, "base": str(model), "adapters": [], "starts_from": None}
    write_json(tmp_path / "policy" / "policy.json", card)

    def training() -> Training:
        return Training(tiny_settings(), small_dataset(), Start(tmp_path / start, tmp_path / "out"), tmp_path / "out")

    begun = training().identity
    save_record(tmp_path / "out", begun, finished=False)
    assert training().is_finished() is False
    with (model / "chat_template.jinja").open("a") as template:
        template.write("{# another #}")
    with pytest.raises(ConfigError, match="with tokenizer_files = "):
        training().is_finished()
    earlier = {name: value for name, value in begun.items() if name != "tokenizer_files"}  # as earlier versions did
    save_record(tmp_path / "out", earlier, finished=False)
    assert training().is_finished() is False


def test_with_dropout_the_passes_are_part_of_what_is_learned() -> None:
    assert "row_tokens" in tiny_settings().identity()
    assert "row_tokens" not in tiny_settings(lora={"r": 4}).identity()


def test_dropout_of_adapters_in_memory_makes_the_passes_decide_too(tiny_model_path: Path, tmp_path: Path) -> None:
    def identity(dropout: float, row_tokens: int) -> dict[str, Any]:
        adapters = LoraConfig(r=2, lora_dropout=dropout, target_modules=["q_proj"])
        start = Start(tiny_model_path, tmp_path, adapters=adapters)
        return Training(tiny_settings(lora=None, row_tokens=row_tokens), small_dataset(), start, tmp_path).identity

    assert identity(0.0, 100) == identity(0.0, 9000)
    assert identity(0.1, 100) != identity(0.1, 9000)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_auto_is_the_dtype_that_the_device_is_fast_in(
    dtype: str, tiny_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fspo.training.resumable_training.fast_dtype", lambda: dtype)
    settings, train = tiny_settings(steps=2), small_dataset(users=4)
    auto, named = (
        train_policy(settings.model_copy(update={"dtype": given}), train, model=tiny_model_path, out=tmp_path / given)
        for given in ("auto", dtype)
    )
    assert same(weights(auto), weights(named))
    # A machine that is fast in another one does not continue it.
    monkeypatch.setattr(
        "fspo.training.resumable_training.fast_dtype", lambda: {"bfloat16": "float32"}.get(dtype, "bfloat16")
    )
    with pytest.raises(ConfigError, match=dtype):
        train_policy(settings.model_copy(update={"dtype": "auto"}), train, model=tiny_model_path, out=tmp_path / "auto")
