from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fspo.cli.main import app
from fspo.llm.local import LocalModel
from fspo.modeling.loading import load_tokenizer
from fspo.modeling.model_names import local_identity
from tests.synthesis.helpers import ScriptedModel, write_domain
from tests.tiny_model import CHAT_TEMPLATE, build_tiny_model


def preview(tmp_path: Path, model: Path, *settings: str, verb: str = "run") -> Any:
    options = [option for setting in (f"model={model}", *settings) for option in ("--set", setting)]
    (tmp_path / "run.yaml").write_text("seed: 0\n")
    where = ["--config", str(tmp_path / "run.yaml"), "--output", str(tmp_path / "run")]
    result = CliRunner().invoke(app, [verb, *where, *options, "--dry-run"])
    assert not (tmp_path / "run").exists()
    return result


def test_a_dry_run_counts_works(tmp_path: Path, tiny_model_path: Path) -> None:
    assert preview(tmp_path, tiny_model_path).exit_code == 0
    for verb in ("run", "synth"):
        result = preview(tmp_path, tiny_model_path, "synthesis.works=9999", verb=verb)
        assert result.exit_code == 2
        assert result.stderr.startswith("Error: synthesis.works is 9999, and the domain 'reviews-restyled' has ")


def with_tokens(folder: Path, template: str, *tokens: str) -> Path:
    tokenizer = load_tokenizer(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": list(tokens)})
    tokenizer.chat_template = template
    tokenizer.save_pretrained(str(folder))
    return folder


def test_tokens_that_the_model_does_not_know_are_told_before_anything(tmp_path: Path) -> None:
    model = build_tiny_model(tmp_path / "model")
    with_tokens(model, CHAT_TEMPLATE.replace("<|im_start|>", "<|turn|>"), "<|turn|>", "<|pad|>")
    for verb in ("run", "synth", "train", "eval"):
        result = preview(tmp_path, model, verb=verb)
        assert result.exit_code == 1
        assert "has 386 tokens, but the model has embeddings for 384: '<|turn|>' has none" in result.stderr
    assert "embeddings for 384" in CliRunner().invoke(app, ["model", "pull", str(model)]).stderr
    shown = CliRunner().invoke(app, ["model", "show", str(model)])
    assert shown.exit_code == 1
    assert "tokens of the tokenizer: 386" in shown.output
    assert "embeddings for 384" in shown.stderr


def test_an_output_below_a_file_is_refused_at_once(tmp_path: Path, tiny_model_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "run.yaml").write_text(f"model: {tiny_model_path}\noutput: {tmp_path / 'file' / 'run'}\n")
    for dry in ([], ["--dry-run"]):
        found = CliRunner().invoke(app, ["run", str(tmp_path / "run.yaml"), *dry])
        assert (found.exit_code, found.stdout) == (2, "") and f"{tmp_path / 'file'} is a file" in found.stderr


def test_a_dry_run_says_where_the_text_of_a_system_role_goes(tmp_path: Path) -> None:
    said = "takes no system role: what the system says goes in front of the first user's text."
    model = build_tiny_model(tmp_path / "model")
    assert said not in preview(tmp_path, model).output
    assert "system role: yes" in CliRunner().invoke(app, ["model", "show", str(model)]).output
    refuses = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    with_tokens(model, refuses + CHAT_TEMPLATE)
    assert preview(tmp_path, model).output.count(said) == 1
    assert "system role: no" in CliRunner().invoke(app, ["model", "show", str(model)]).output


def test_a_dry_run_looks_for_the_package_that_asks_an_endpoint(
    tmp_path: Path, tiny_model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = "endpoint={base_url: 'http://127.0.0.1:1/v1', model: m}"
    assert preview(tmp_path, tiny_model_path, endpoint).exit_code == 0
    monkeypatch.setattr("fspo.llm.endpoint_config.find_spec", lambda name: None)
    result = preview(tmp_path, tiny_model_path, endpoint)
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: Asking an endpoint needs the package aiohttp; install fspo with the extra")
    assert preview(tmp_path, tiny_model_path).exit_code == 0


def test_a_dry_run_of_synth_shows_the_settings_of_data_alone(tmp_path: Path, tiny_model_path: Path) -> None:
    for settings in ((), ("synthesis.domain=elix-easy",)):
        text = preview(tmp_path, tiny_model_path, *settings, verb="synth").stdout
        assert ("synthesis:" in text) == bool(settings)
        assert not any(f"{name}:" in text for name in ("methods", "training", "evaluation", "benchmarks"))
        assert len(text.splitlines()) < 80
    assert "evaluation:" in preview(tmp_path, tiny_model_path, "evaluation.shots=3").stdout


def test_a_dry_run_of_synth_on_finished_data_looks_at_nothing_of_training(
    tmp_path: Path, tiny_model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ScriptedModel()
    model.name = str(tiny_model_path)
    monkeypatch.setattr(model, "identity", local_identity(model.name), raising=False)
    monkeypatch.setattr(LocalModel, "load", classmethod(lambda cls, name: model))
    few = {"questions": 6, "augment": "false", "responses": 5, "pairs": 4, "shared_pairs": 2, "meaning": "false"}
    line = ["synth", "--domain", str(write_domain(tmp_path / "mine")), "--output", str(tmp_path / "run")]
    line += ["--set", f"model={tiny_model_path}", *(f"--set=synthesis.{name}={value}" for name, value in few.items())]
    done = CliRunner().invoke(app, line)
    assert done.exit_code == 0, done.output
    again = CliRunner().invoke(app, [*line, "--dry-run"])
    assert again.exit_code == 0, again.output
    assert "data: finished, so it is kept" in again.stdout
    whole = CliRunner().invoke(app, ["run", str(tmp_path / "run"), "--dry-run"])
    assert whole.exit_code == 1, whole.output
    assert "In the training part" in whole.stderr


PAPER = ("synthesis={domain: elix-easy, questions: 12}",)


def at_endpoint(more: str) -> str:
    return f"endpoint={{base_url: 'http://127.0.0.1:1/v1', model: m, {more}}}"


def test_a_dry_run_warns_of_a_budget_that_is_not_enough(tmp_path: Path, tiny_model_path: Path) -> None:
    small = preview(tmp_path, tiny_model_path, *PAPER, at_endpoint("budget: {tokens: 5000}"), verb="synth")
    assert small.exit_code == 0
    assert "Warning: endpoint.budget.tokens is 5,000, which is not enough for that" in small.stdout
    large = preview(tmp_path, tiny_model_path, *PAPER, at_endpoint("budget: {tokens: 1000000000}"), verb="synth")
    assert "Warning" not in large.stdout


def test_a_budget_of_a_member_is_held_against_its_share(tmp_path: Path, tiny_model_path: Path) -> None:
    member = "endpoint: {base_url: 'http://127.0.0.1:2/v1', model: n, budget: {tokens: 5000}}"
    ensemble = f"ensemble=[{{{member}, weight: 3}}, {{model: smollm2-135m}}]"
    result = preview(tmp_path, tiny_model_path, *PAPER, at_endpoint("budget: {tokens: 1000000000}"), ensemble)
    assert "Warning: ensemble[0].endpoint.budget.tokens is 5,000, which is not enough" in " ".join(
        result.stdout.split()
    )
    assert "Warning: endpoint.budget" not in result.stdout


def test_a_dry_run_warns_of_a_key_that_is_not_set(
    tmp_path: Path, tiny_model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SOME_KEY", raising=False)
    result = preview(tmp_path, tiny_model_path, *PAPER, at_endpoint("key_variable: SOME_KEY"), verb="synth")
    assert "Warning: SOME_KEY, which key_variable names" in result.stdout
    monkeypatch.setenv("SOME_KEY", "set")
    result = preview(tmp_path, tiny_model_path, *PAPER, at_endpoint("key_variable: SOME_KEY"), verb="synth")
    assert "Warning" not in result.stdout
