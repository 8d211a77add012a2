"""With how many threads the parts of a run are made, on a machine whose load is made up."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from fspo.modeling import loading, threads
from fspo.modeling.threads import Machine
from fspo.progress import Silent
from fspo.runs.config import RunConfig
from fspo.runs.existing import Existing
from fspo.runs.folder import DATA, EVALUATION, RunFolder
from fspo.runs.threads import use_threads


class Spoken(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


class Computer:
    """A machine of two cores with some load, and how many threads it was last told to compute with."""

    def __init__(self) -> None:
        self.busy, self.used, self.looks = 0.0, 0, 0

    def look(self) -> Machine:
        self.looks += 1
        return Machine(2, self.busy)

    def use(self, count: int) -> None:
        self.used = count


@pytest.fixture
def computer(monkeypatch: pytest.MonkeyPatch) -> Computer:
    made = Computer()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "usual", lambda: 2)
    monkeypatch.setattr(threads, "look", made.look)
    monkeypatch.setattr(threads, "use", made.use)
    monkeypatch.setattr(threads, "sleep_while_busy", lambda: None)
    return made


Call = Callable[..., list[str]]


@pytest.fixture
def call(tmp_path: Path) -> Call:
    """A command that makes parts; what it said."""

    def command(*parts: str, policy: Existing = Existing.RESUME, **settings: Any) -> list[str]:
        folder = RunFolder(RunConfig.model_validate({"output": tmp_path / "run", **settings}))
        spoken = Spoken()
        with folder.opened(parts, policy):
            for part in parts:
                use_threads(folder, part, spoken)
                (folder.path / part).mkdir(parents=True, exist_ok=True)
                (folder.path / part / "begun.json").touch()
        return spoken.lines

    return command


def noted(tmp_path: Path) -> dict[str, int]:
    made = json.loads((tmp_path / "run/settings.json").read_text())
    return {part: settings["threads"] for part, settings in made.items() if "threads" in settings}


def test_there_are_as_many_threads_as_free_cores_and_that_is_said_once(
    computer: Computer, call: Call, tmp_path: Path
) -> None:
    assert call(DATA, EVALUATION) == ["2 threads: 2 cores, 0.0 busy with other work"]
    assert noted(tmp_path) == {DATA: 2, EVALUATION: 2}


def test_each_part_goes_by_the_load_when_it_begins(computer: Computer, call: Call, tmp_path: Path) -> None:
    computer.busy = 1.0
    assert call(DATA) == ["1 thread: 2 cores, 1.0 busy with other work"]
    computer.busy = 0.0
    assert call(EVALUATION) == ["2 threads: 2 cores, 0.0 busy with other work"]
    assert noted(tmp_path) == {DATA: 1, EVALUATION: 2}


def test_a_part_that_was_begun_goes_on_with_its_threads_whatever_the_load(computer: Computer, call: Call) -> None:
    call(DATA)
    computer.busy = 1.0
    assert call(DATA) == ["2 threads: as when data was begun"]
    assert (computer.used, computer.looks) == (2, 1)
    assert call(DATA, policy=Existing.OVERWRITE) == ["1 thread: 2 cores, 1.0 busy with other work"]
    assert computer.used == 1


def test_a_part_without_a_number_on_record_goes_on_with_the_default_of_torch(
    computer: Computer, call: Call, tmp_path: Path
) -> None:
    call(DATA)
    path = tmp_path / "run/settings.json"
    made = json.loads(path.read_text())
    del made[DATA]["threads"]  # as an earlier version left it
    path.write_text(json.dumps(made))
    computer.busy = 1.0
    [said] = call(DATA)
    assert said.startswith("2 threads: torch's default")
    assert (computer.used, computer.looks, noted(tmp_path)) == (2, 1, {DATA: 2})


def test_what_people_say_decides(
    computer: Computer, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call(DATA, threads=3) == ["3 threads: as the setting `threads` says"]
    assert computer.used == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert call(EVALUATION)[-1].endswith("as OMP_NUM_THREADS says")
    assert computer.looks == 0
    monkeypatch.delenv("OMP_NUM_THREADS")
    first, second = call(DATA, threads=1)
    assert "begun with 3 threads and goes on with 1" in first
    assert second == "1 thread: as the setting `threads` says"
    assert noted(tmp_path)[DATA] == 3


def test_the_number_is_no_setting_that_results_depend_on(computer: Computer, call: Call) -> None:
    call(DATA, EVALUATION, threads=2)
    call(DATA, EVALUATION, threads=1)  # it would be refused otherwise
    call(DATA, EVALUATION)


def test_several_processes_keep_what_their_launcher_gave_them(
    computer: Computer, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fspo.runs.processes.count", lambda: 2)
    monkeypatch.setattr("fspo.runs.processes.leading", _alone)
    assert call(DATA) == []
    assert computer.used == 0


@contextmanager
def _alone() -> Any:
    yield


def test_env_tells_the_load_and_the_threads(computer: Computer) -> None:
    from fspo.cli.env import describe

    computer.busy = 1.04
    facts = describe()
    assert (facts["cores"], facts["cores busy with other work"], facts["threads"]) == (2, 1.0, 1)


SLOW = {"training": {"all": {"dtype": "bfloat16"}}, "evaluation": {"dtype": "bfloat16"}, "methods": ["base", "fspo"]}


def test_a_precision_that_is_slow_here_is_said_once(
    computer: Computer, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "default_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    parts = ("methods/pref-ft", "methods/fspo", EVALUATION)
    (said,) = [line for line in call(*parts, **SLOW) if "bfloat16" in line]
    assert "set training.all.dtype and evaluation.dtype to auto or float32" in said


@pytest.mark.parametrize(("device", "able"), [("cpu", {"avx512_bf16": True}), ("cuda", {})])
def test_nothing_is_said_where_it_is_fast(
    computer: Computer, call: Call, monkeypatch: pytest.MonkeyPatch, device: str, able: dict[str, bool]
) -> None:
    monkeypatch.setattr(loading, "default_device", lambda: torch.device(device))
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    assert not [line for line in call(EVALUATION, **SLOW) if "bfloat16" in line]
