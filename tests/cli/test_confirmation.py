"""The question before a command removes what depends on a part of a run."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from fspo.cli.confirmation import confirmation
from fspo.errors import ConfigError
from fspo.runs.config import RunConfig
from fspo.runs.folder import RunFolder

PARTS, OTHERS = ["methods/fspo"], ["evaluation", "report.html"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(RunConfig.model_validate({"output": tmp_path / "run"}))


@pytest.mark.parametrize(("answer", "agreed"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_a_person_is_asked_and_no_is_the_default(
    folder: RunFolder,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: str,
    agreed: bool,
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    try:
        confirmation(folder, yes=False)(PARTS, OTHERS)
        went_on = True
    except ConfigError:
        went_on = False
    assert went_on == agreed
    said = capsys.readouterr()
    assert all(name in said.err for name in [*PARTS, *OTHERS, str(folder.path)])


def test_several_processes_do_not_ask(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    with pytest.raises(ConfigError, match="--yes"):
        confirmation(folder, yes=False)(PARTS, OTHERS)


def test_yes_asks_nothing(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    confirmation(folder, yes=True)(PARTS, OTHERS)
    assert not capsys.readouterr().err
