from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import busy_machine
from tests.preloaded import forking


def test_every_way_is_measured_alone_and_beside_a_busy_program(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(busy_machine, "WAYS", ("sleeping", "chosen"))
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


def test_a_measurement_finds_its_program_and_chooses_its_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    environment = busy_machine._environment()
    assert "OMP_NUM_THREADS" not in environment
    found = "import importlib.util, sys; sys.exit(importlib.util.find_spec('benchmarks.busy_machine') is None)"
    subprocess.run([sys.executable, "-c", found], env=environment, cwd=tmp_path, check=True)


def test_threads_that_sleep_wait_passively(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], env: dict[str, str], **_: object) -> SimpleNamespace:
        return SimpleNamespace(returncode=0, stdout=json.dumps({"passive": env.get("OMP_WAIT_POLICY") == "PASSIVE"}))

    monkeypatch.setattr(busy_machine, "subprocess", SimpleNamespace(run=run, PIPE=subprocess.PIPE))
    jobs = [busy_machine.Job(way) for way in ("sleeping", "chosen")]
    assert [busy_machine._measure(job)["passive"] for job in jobs] == [True, False]
