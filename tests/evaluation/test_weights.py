"""What tells weights apart."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fspo.evaluation.weights import Weights


def fingerprint(model: str) -> str:
    return Weights(model, {}, dtype="float32", max_length=None).fingerprint(None)


@pytest.mark.parametrize("name", ["chat_template.jinja", "tokenizer.model", "config.json"])
def test_whatever_bears_on_what_a_model_says_makes_it_another(tiny_model_path: Path, tmp_path: Path, name: str) -> None:
    copy = Path(shutil.copytree(tiny_model_path, tmp_path / "model"))
    before = fingerprint(str(copy))
    with (copy / name).open("a") as handle:
        handle.write("\n")
    assert fingerprint(str(copy)) != before


def test_a_home_is_found(tiny_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    copy = Path(shutil.copytree(tiny_model_path, tmp_path / "model"))
    before = fingerprint("~/model")
    (copy / "config.json").write_text("{}")
    assert fingerprint("~/model") != before
