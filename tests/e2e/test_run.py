"""The whole loop by the real commands: what comes out, and that interruptions change none of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.e2e.conftest import command, environment, run, start, tiny

pytestmark = pytest.mark.timeout(900)

METHODS = ["base", "few-shot", "pref-ft", "ipo", "fspo", "oracle"]


def figures(folder: Path) -> bytes:
    return (folder / "metrics.json").read_bytes()


def test_a_run_leaves_everything_it_promises(finished: Path) -> None:
    metrics = json.loads(figures(finished))
    assert list(metrics) == METHODS
    for measures in metrics.values():
        for estimate in measures.values():
            assert set(estimate) == {"value", "low", "high", "users", "items"}
    assert {"reward_accuracy", "reward_accuracy@0", "reward_accuracy@2", "label_flip_rate", "win_rate"} <= set(
        metrics["fspo"]
    )
    for name in ("config.yaml", "command.json", "versions.json", "samples.jsonl", "summary.json", "report.html"):
        assert (finished / name).stat().st_size > 0
    for name in ("pref-ft", "ipo", "fspo"):
        assert "Reward accuracy" in (finished / "methods" / name / "README.md").read_text()
    command = json.loads((finished / "command.json").read_text())["command"]
    assert command[:3] == ["fspo", "run", "--config"]
    assert not any("http" in word for word in command)
    page = (finished / "report.html").read_text()
    assert page.count("<svg") >= 3
    assert max(map(len, re.findall("<svg.*?</svg>", page, re.DOTALL))) > 1000
    assert 'src="http' not in page


def test_the_methods_of_a_run_are_compared(finished: Path, tmp_path: Path) -> None:
    done = run("eval", "compare", finished, "--measure", "win_rate", "--json", tmp_path / "compared.json")
    assert all(column in done.stdout for column in ("first", "second", "difference", "detectable"))
    found = json.loads((tmp_path / "compared.json").read_text())
    metrics = json.loads(figures(finished))
    assert {m["name"]: m["value"] for m in found["methods"]} == {
        name: row["win_rate"]["value"] for name, row in metrics.items() if "win_rate" in row
    }
    assert len(found["pairs"]) == 10  # of every two of five


@pytest.mark.slow
def test_killed_in_every_stage_and_run_again_it_reaches_the_same_figures(
    finished: Path, speaking_model_path: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    arguments = tiny(speaking_model_path, output)
    for sign in (
        "answers-*.sqlite",
        "data/responses.jsonl",
        "data/preferences.parquet",
        "methods/fspo/metrics.jsonl",
        "evaluation/few-shot/margins.jsonl",
        "evaluation/pref-ft/answers.jsonl",
        "evaluation/fluency.jsonl",
        "evaluation/*/judgements.jsonl",
    ):
        _kill_at(output, sign, arguments)
    done = run("run", *arguments, undrawn=True)
    assert "Report:" in done.stdout
    assert figures(output) == figures(finished)


def _kill_at(output: Path, sign: str, arguments: Sequence[object]) -> None:
    """Run until a file like `sign` is there, and kill without warning."""
    assert not list(output.glob(sign))
    process = start("run", *arguments)
    while not list(output.glob(sign)):
        assert process.poll() is None, f"ended before there was a {sign}"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (output / "metrics.json").exists()


@pytest.mark.slow
def test_stages_one_by_one_give_what_the_run_gives_wherever_it_is(
    finished: Path, speaking_model_path: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    arguments = tiny(speaking_model_path, output)
    assert "holds no finished dataset" in run("train", *arguments, code=1).stderr
    assert "preferences of" in run("synth", *arguments).stdout
    assert "holds no trained policy yet" in run("eval", *arguments, code=1).stderr
    run("train", *arguments, "--method", "pref-ft")
    run("train", *arguments)
    assert "no metrics.json" in run("report", *arguments, code=1).stderr
    moved = output.rename(tmp_path / "elsewhere")
    run("eval", moved)
    assert "Report:" in run("report", moved, undrawn=True).stdout
    assert figures(moved) == figures(finished)


def test_ctrl_c_exits_with_130_and_keeps_what_was_finished(speaking_model_path: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    arguments = tiny(speaking_model_path, output, "--set", "synthesis.questions=60", "--set", "synthesis.batch=4")
    # A shell's background jobs ignore Ctrl-C, and so would what they start.
    heeding = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    with (tmp_path / "errors").open("w+") as errors:
        process = start("synth", *arguments, stderr=errors, first=heeding)
        while not list(output.glob("answers-*.sqlite")):
            assert process.poll() is None
            time.sleep(0.002)
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
        errors.seek(0)
        said = errors.read()
    assert said == "Error: Interrupted; what was finished is kept. Run the same command again to continue.\n"
    assert not (output / "data/splits.json").exists()


def test_a_full_disk_is_one_sentence_and_the_run_goes_on_after_it(speaking_model_path: Path, tmp_path: Path) -> None:
    # The system refuses every write after the first few, as on a full disk.
    full = (
        "import errno, os\nreal, calls = os.fsync, []\n"
        "def fsync(handle):\n"
        "    calls.append(handle)\n"
        "    if len(calls) > 20: raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))\n"
        "    real(handle)\n"
        "os.fsync = fsync\n"
    )
    arguments = tiny(speaking_model_path, tmp_path / "run")
    error = run("synth", *arguments, code=1, first=full).stderr
    assert error.startswith("Error: The disk is full")
    assert error.count("\n") == 1
    assert "preferences of" in run("synth", *arguments).stdout


def test_a_dry_run_checks_everything_and_writes_nothing(speaking_model_path: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    text = run("run", *tiny(speaking_model_path, output), "--dry-run").stdout
    assert "methods/fspo: to do" in text
    assert "held_out: 0.35" in text and "label_noise:" not in text  # no defaults
    assert not output.exists()


def test_a_finished_run_is_not_done_again(finished: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("adapter_model.safetensors")}
    text = run("run", copy, undrawn=True).stdout
    assert "Sampling texts" not in text
    assert "Training" not in text
    assert before == {path: path.stat().st_mtime_ns for path in copy.rglob("adapter_model.safetensors")}
    assert figures(copy) == figures(finished)


def test_chat_answers_beside_base(finished: Path) -> None:
    asked = ["--prompt", "Write a short review of the film Alien.", "--max-tokens", "8"]
    text = run("chat", finished, *asked).stdout
    assert "[fspo, for " in text
    assert "[base]" in text
    assert run("chat", finished, *asked).stdout == text
    assert (
        "no room for the oldest shots: 1" in run("chat", finished, *asked, "--set", "evaluation.max_length=120").stdout
    )
    said = run(
        "chat", finished, "--method", "few-shot", "--max-tokens", "4", stdin="/users\n/user nobody\n/shots\nHi\n/quit\n"
    )
    assert "The dataset has no user 'nobody'" in said.stdout
    assert "rejected:" in said.stdout
    assert "[few-shot, for " in said.stdout
    assert "has no user" in run("chat", finished, "--user", "nobody", *asked, code=1).stderr


@pytest.mark.parametrize("terminal", ["dumb", "xterm"])
def test_progress_without_a_terminal_is_plain_lines(terminal: str, finished: Path) -> None:
    text = run("report", finished, undrawn=True, TERM=terminal, COLUMNS="200").stdout
    assert "\x1b" not in text
    assert "fspo" in text


def test_output_can_be_piped_into_a_reader_that_leaves(finished: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        done = subprocess.run(
            command("data", "show", finished / "data"),
            stdout=pipe,
            stderr=subprocess.PIPE,
            env=environment(),
            check=False,
        )
    assert b"Traceback" not in done.stderr
