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
