"""A command that was started as several processes."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from fspo.cli.main import app
from fspo.errors import ConfigError, TrainingError
from fspo.runs import processes
from fspo.training import processes as training


@pytest.fixture
def several(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """As torchrun sets it for the first of two processes."""
    for name, value in {"LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_alone_unless_a_launcher_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "8")  # set for other reasons
    assert (processes.count(), processes.number(), processes.is_first()) == (1, 0, True)
    processes.follow()
    with processes.together(), processes.leading():
        pass


@pytest.mark.parametrize("verb", ["run", "synth", "eval", "report", "chat", "env"])
def test_all_verbs_but_training_run_in_one_process(several: pytest.MonkeyPatch, tmp_path: Path, verb: str) -> None:
    result = CliRunner().invoke(app, [verb])
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert f"`fspo {verb}` runs in one process, and 2 were launched; only `fspo train`" in result.stderr
    several.setenv("RANK", "1")
    second = CliRunner().invoke(app, [verb])
    assert (second.exit_code, second.output) == (2, "")


def test_one_complaint_about_a_configuration_is_enough(several: pytest.MonkeyPatch, tmp_path: Path) -> None:
    arguments = ["train", "--config", str(tmp_path / "no.yaml")]
    assert "There is no configuration file" in CliRunner().invoke(app, arguments).stderr
    several.setenv("RANK", "1")
    assert CliRunner().invoke(app, arguments).output == ""


class Process:
    """Stands in for a process group."""

    def destroy_process_group(self) -> None: ...


@pytest.mark.parametrize(
    ("text", "lost"),
    [
        ("[../third_party/gloo/gloo/transport/tcp/pair.cc:538] Connection closed by peer [127.0.0.1]:2", True),
        ("NCCL communicator was aborted on rank 1.", True),
        ("mat1 and mat2 shapes cannot be multiplied", False),
    ],
)
def test_a_lost_process_is_told_in_a_sentence(several: pytest.MonkeyPatch, text: str, lost: bool) -> None:
    several.setattr(training, "joined", Process)
    with pytest.raises(TrainingError if lost else RuntimeError) as caught, processes.together():
        raise RuntimeError(text)
    assert str(caught.value).startswith("Another process" if lost else text)


def test_the_others_go_on_only_if_the_first_could(several: pytest.MonkeyPatch) -> None:
    told: list[bool] = []
    several.setattr(training, "joined", Process)
    several.setattr(training, "agreed", lambda value: told.append(value) or told[0])
    with processes.leading():
        assert not told
    processes.follow()
    told.clear()
    with pytest.raises(ConfigError, match="first refuses"), processes.leading():
        raise ConfigError("The first refuses.")
    with pytest.raises(ConfigError, match="given up"):
        processes.follow()
