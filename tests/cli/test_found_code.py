"""Code that the configuration in a run's folder names is not run because somebody names the folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from fspo.cli.main import app

SCORER = "evaluation: {reward_models: [{name: mine, scorer: 'found_module:score'}]}\n"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run's folder from somebody else, with a module that leaves a trace when it is imported."""
    (tmp_path / "found_module.py").write_text(
        f"open({str(tmp_path / 'imported')!r}, 'w').close()\ndef score(shots, prompt, response): return 0.0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "shared"
    folder.mkdir()
    (folder / "config.yaml").write_text(SCORER)
    return folder


@pytest.mark.parametrize("verb", [["eval"], ["run"], ["eval", "--benchmark", "prism"]])
@pytest.mark.parametrize("dry", [["--dry-run"], []])
@pytest.mark.parametrize("by_output", [True, False])
def test_a_scorer_that_a_folder_names_is_not_imported(
    run: Path, verb: list[str], dry: list[str], by_output: bool
) -> None:
    named = ["--output", str(run)] if by_output else [str(run)]
    done = CliRunner().invoke(app, [*verb, *named, *dry])
    assert done.exit_code == 2
    assert f"{run / 'config.yaml'} names code to run, 'found_module:score' (reward model 'mine')" in done.stderr
    assert f"--config {run / 'config.yaml'} --output {run}" in done.stderr
    assert not (run.parent / "imported").exists()
    assert [path.name for path in run.iterdir()] == ["config.yaml"]


@pytest.mark.parametrize("by_file", [True, False])
def test_who_names_the_file_or_the_scorer_runs_it(run: Path, by_file: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.delitem(sys.modules, "found_module", raising=False)
    override = ["--set", "evaluation.reward_models=[{name: mine, scorer: 'found_module:score'}]"]
    named = ["--config", str(run / "config.yaml"), "--output", str(run)] if by_file else [str(run), *override]
    done = CliRunner().invoke(app, ["eval", *named, "--dry-run"])
    assert "names code to run" not in done.stderr


def test_other_verbs_read_the_folder(run: Path) -> None:
    assert "names code" not in CliRunner().invoke(app, ["report", str(run)]).stderr
