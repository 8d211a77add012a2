"""Keys on the command line and in settings: refused before anything is written, and in no file and no message."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fspo.cli.main import app
from fspo.runs.config import RunConfig
from fspo.runs.existing import Existing
from fspo.runs.folder import DATA, RunFolder

KEY = "hf_0123456789abcdefghij"
AT = "base_url: 'http://127.0.0.1:9/v1', model: m"


@pytest.mark.parametrize(
    "override",
    [
        f"endpoint={{{AT}, key_variable: {KEY}}}",
        f"endpoint={{{AT}, extra_body: {{api_key: {KEY}}}}}",
        f"ensemble=[{{endpoint: {{{AT}, key_variable: {KEY}}}}}]",
        f"evaluation.judges=[{{name: j, endpoint: {{{AT}, key_variable: {KEY}}}}}]",
        f"evaluation.judges=[{{name: j, endpoint: {{{AT}, key_variable: {KEY}]",
        f"benchmarks.prism.data={{{KEY}: 1}}",
        f"endpoint.{KEY}=1",
    ],
)
@pytest.mark.parametrize("dry", [["--dry-run"], []])
def test_a_key_is_refused_before_anything_is_written(override: str, dry: list[str], tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = ["synth", "--domain", "elix-easy", "--output", str(out), *dry, "--set", override]
    done = CliRunner().invoke(app, command)
    assert done.exit_code != 0
    assert KEY not in done.output and KEY not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not out.exists()


def test_a_key_in_a_file_is_refused_and_not_shown(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(f"endpoint: {{{AT}, key_variable: {KEY}}}\noutput: {tmp_path / 'run'}\n")
    done = CliRunner().invoke(app, ["synth", str(tmp_path / "own.yaml")])
    assert "own.yaml, line 1: 'endpoint.key_variable': name the environment variable" in done.stderr
    assert KEY not in done.stderr and not (tmp_path / "run").exists()


@pytest.mark.parametrize("dry", [["--dry-run"], []])
def test_a_key_in_typographic_quotes_is_told_by_its_variable(
    dry: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", f"\u201c{KEY}\u201d")
    command = ["synth", "--domain", "elix-easy", "--output", str(tmp_path / "run"), *dry]
    done = CliRunner().invoke(app, [*command, "--set", f"endpoint={{{AT}, key_variable: MY_KEY}}"])
    assert done.exit_code == 2
    assert "Error: MY_KEY holds no key that can be sent: there are quotation marks in it" in done.stderr
    assert KEY not in done.output and KEY not in done.stderr


def test_the_kept_command_holds_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(RunConfig.model_validate({"output": tmp_path / "run"}))
    monkeypatch.setattr(sys, "argv", ["fspo", "synth", "-s", f"data=hub:{KEY}", "-s", "x.password=abc", "-o", "a"])
    with run.opened([DATA], Existing.RESUME):
        pass
    kept = json.loads((run.path / "command.json").read_text())["command"]
    assert kept == ["fspo", "synth", "-s", "data=hub:...", "-s", "x.password=...", "-o", "a"]
