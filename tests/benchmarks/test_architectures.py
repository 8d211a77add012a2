"""The program that goes through the architectures of transformers, on a few of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import architectures, tiny_architectures
from fspo.modeling import generation, lm_head, logprobs


def test_each_architecture_is_exact_or_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["gpt2", "minicpm3", "gemma3_text", "doge", "bert"]
    assert architectures.main(["--only", *names, "--out", str(tmp_path)]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    outcomes = {(row["architecture"], row["variant"]): row["outcome"] for row in figures["rows"]}
    assert outcomes == {
        ("gpt2", ""): "exact",
        ("minicpm3", ""): "exact",
        ("gemma3_text", ""): "exact",
        ("doge", ""): "refused",
        ("bert", ""): "refused",
        ("bert", "decoder"): "refused",
    }
    assert figures == json.loads((tmp_path / "figures.json").read_text())
    assert figures["counts"] == {
        "exact": 3,
        "refused": 3,
        "late": 0,
        "unbuildable": 0,
        "wrong": 0,
        "traceback": 0,
    }
    page = (tmp_path / "README.md").read_text()
    assert "| minicpm3 | MiniCPM3ForCausalLM | exact |" in page and "--only gpt2 minicpm3" in page


def test_it_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def apart(name: str, variant: str, *_: Any) -> architectures.Result:
        tried.append(name)
        if name == "gpt2" and tried.count(name) == 1:
            raise KeyboardInterrupt
        return architectures.Result(name, variant, "Model", "exact")

    monkeypatch.setattr(architectures, "_apart", apart)
    with pytest.raises(KeyboardInterrupt):
        architectures.measure(["llama", "gpt2"], out=tmp_path)
    assert architectures.measure(["llama", "gpt2"], out=tmp_path)["counts"]["exact"] == 2
    assert tried == ["llama", "gpt2", "gpt2"]


def test_an_unfinished_measurement_of_other_code_or_options_is_not_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begun(command: str) -> list[dict[str, Any]]:
        return list(architectures._begun(tmp_path, command)["rows"])

    def apart(name: str, variant: str, *_: Any) -> architectures.Result:
        if name == "gpt2":
            raise KeyboardInterrupt
        return architectures.Result(name, variant, "Model", "exact")

    monkeypatch.setattr(architectures, "_apart", apart)
    with pytest.raises(KeyboardInterrupt):
        architectures.measure(["llama", "gpt2"], out=tmp_path, command="some")
    assert [row["architecture"] for row in begun("some")] == ["llama"]
    assert begun("others") == []
    monkeypatch.setattr(architectures, "code_digest", lambda: "changed")
    assert begun("some") == []


def test_what_is_wrong_or_crashes_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logprobs, "logits", lambda base, hidden: lm_head.logits(base, hidden) * 1.01)
    result = architectures.check("llama", "", {})
    assert (result.outcome, result.detail) == ("wrong", "scoring")
    monkeypatch.setattr(logprobs, "logits", lm_head.logits)
    monkeypatch.setattr(generation, "draw", lambda scores, *_: scores.argmin(dim=-1))
    assert architectures.check("llama", "", {}).detail == "answers [0, 1, 2]"
    monkeypatch.setattr(generation, "draw", lambda *_: 1 // 0)
    result = architectures.check("llama", "", {})
    assert result.outcome == "traceback" and "ZeroDivisionError" in result.detail


def test_one_that_does_not_end_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(architectures, "check", lambda *_: __import__("time").sleep(60))
    assert "no result after" in architectures._apart("llama", "", {}, 0.2).detail
    monkeypatch.setattr(architectures, "check", lambda *_: __import__("os")._exit(3))
    assert "ended with code 3" in architectures._apart("llama", "", {}, 20).detail


def test_nothing_in_a_tiny_model_is_hidden_by_its_first_weights() -> None:
    model = tiny_architectures.build("gpt_oss", {})
    for name, weight in model.named_parameters():
        assert weight.numel() == 1 or float(weight.detach().float().std()) > 0.01, name
    assert model.config.sliding_window == tiny_architectures.WINDOW
    assert torch.equal(model.lm_head.weight, tiny_architectures.build("gpt_oss", {}).lm_head.weight)


def test_an_unknown_type_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert architectures.main(["--only", "llamma"]) == 2
    assert "llamma" in capsys.readouterr().err
