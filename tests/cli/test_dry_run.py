from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fspo.cli.main import app


def preview(tmp_path: Path, model: Path, *settings: str, verb: str = "run") -> Any:
    options = [option for setting in (f"model={model}", *settings) for option in ("--set", setting)]
    (tmp_path / "run.yaml").write_text("seed: 0\n")
    where = ["--config", str(tmp_path / "run.yaml"), "--output", str(tmp_path / "run")]
    result = CliRunner().invoke(app, [verb, *where, *options, "--dry-run"])
    assert not (tmp_path / "run").exists()
    return result


def test_a_dry_run_counts_works_and_questions(tmp_path: Path, tiny_model_path: Path) -> None:
    assert preview(tmp_path, tiny_model_path).exit_code == 0
    for verb in ("run", "synth"):
        result = preview(tmp_path, tiny_model_path, "synthesis.titles=9999", verb=verb)
        assert result.exit_code == 2
        assert result.stderr.startswith("Error: synthesis.titles is 9999, and the domain 'reviews' has ")
    result = preview(tmp_path, tiny_model_path, "synthesis.questions=50")
    assert result.stderr.startswith("Error: synthesis.questions is 50, and the domain 'reviews' has ")


def test_a_dry_run_looks_for_the_package_that_asks_an_endpoint(
    tmp_path: Path, tiny_model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = "endpoint={base_url: 'http://127.0.0.1:1/v1', model: m}"
    assert preview(tmp_path, tiny_model_path, endpoint).exit_code == 0
    monkeypatch.setattr("fspo.cli.checks.find_spec", lambda name: None)
    result = preview(tmp_path, tiny_model_path, endpoint)
    assert result.exit_code == 2
    assert result.stderr == "Error: Asking an endpoint needs the package openai; install fspo[endpoint].\n"
    assert preview(tmp_path, tiny_model_path).exit_code == 0


PAPER = ("synthesis={recipe: paper, domain: elix-easy, questions: 12}",)


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
