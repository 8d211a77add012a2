from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from benchmarks import busy_machine
from tests.preloaded import forking


def test_every_way_is_measured_alone_and_beside_a_busy_program(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(busy_machine, "WAYS", ("sleeping", "chosen"))
    # One process of the four imports its libraries itself, in the environment that the benchmark gives it.
    new = iter([subprocess.run, *[forking.run] * 3])
    monkeypatch.setattr(forking, "run", lambda command, **more: next(new)(command, **more))
    monkeypatch.setattr(busy_machine, "subprocess", forking)
    assert busy_machine.main(["--model", "shape:tiny", "--out", str(tmp_path)]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert json.loads((tmp_path / "figures.json").read_text()) == figures
    for way in ("sleeping", "chosen"):
        for place in ("alone", "busy"):
            found = figures["ways"][way][place]
            assert found["threads"] >= 1
            assert min(found["trained_tokens_per_second"], found["generated_tokens_per_second"]) > 0
    page = (tmp_path / "README.md").read_text()
    assert page.count("\n| sleeping | ") == page.count("\n| chosen | ") == 1
