"""What tells weights apart."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fspo.evaluation.scoring.weights import Weights


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


def test_weights_that_differ_in_the_middle_of_a_file_differ(tmp_path: Path) -> None:
    found = []
    for middle in (b"a", b"b"):
        model = tmp_path / middle.decode()
        model.mkdir()
        (model / "config.json").write_text("{}")
        (model / "model.safetensors").write_bytes(b"0" * (3 << 20) + middle + b"0" * (3 << 20))
        found.append(fingerprint(str(model)))

    assert len(set(found)) == 2
