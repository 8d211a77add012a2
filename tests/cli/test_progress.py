from __future__ import annotations

import io
import os
import pty
import re
import select
import termios
import time

import pytest
from rich.console import Console

from fspo.cli.progress import RichProgress, terminal_progress
from fspo.cli.terminal import PrintableConsole
from fspo.progress import PlainProgress, Scaled, duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (60, "1 min 00 s"), (200, "3 min 20 s"), (3900, "1 h 05 min"), (-3, "0 s")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_lines_tell_share_time_left_and_the_latest_figures() -> None:
    out, clock = io.StringIO(), Clock()
    progress = PlainProgress(out, every=10, clock=clock)
    with progress.task("Training fspo", total=100) as task:
        for step in range(100):
            clock.now += 1
            task.advance(1, f"loss {step}" if step % 2 else "")
    lines = out.getvalue().splitlines()
    assert lines[0] == "Training fspo ..."
    assert lines[1] == "Training fspo: 10%, 1 min 30 s left (loss 9)"
    assert lines[-1] == "Training fspo: done in 1 min 40 s (loss 99)"
    assert len(lines) == 11


def test_what_was_done_before_does_not_count_as_speed() -> None:
    out, clock = io.StringIO(), Clock()
    with PlainProgress(out, every=5, clock=clock).task("Scoring", total=100, done=90) as task:
        clock.now += 10
        task.advance(5)
    assert out.getvalue().splitlines()[:2] == ["Scoring: 90 of 100 done before", "Scoring: 95%, 10 s left"]


def test_what_turns_out_to_be_done_is_told_and_does_not_count_as_speed() -> None:
    out, clock = io.StringIO(), Clock()
    with PlainProgress(out, every=5, clock=clock).task("Scoring", total=100) as task:
        clock.now += 2
        task.skip(40)
        task.skip(40)
        clock.now += 10
        task.advance(5)
        task.skip(5)
        clock.now += 10
        task.advance(5)
    assert out.getvalue().splitlines() == [
        "Scoring ...",
        "Scoring: 80 of 100 done before",
        "Scoring: 85%, 30 s left",
        "Scoring: 95%, 10 s left",
        "Scoring: done in 22 s",
    ]


def test_where_all_is_done_before_that_is_told_too() -> None:
    out = io.StringIO()
    with PlainProgress(out).task("Scoring", total=100) as task:
        Scaled(task, 0.5).skip(200)
    assert out.getvalue().splitlines()[1] == "Scoring: 100 of 100 done before"


def test_bars_tell_what_was_done_before() -> None:
    out = io.StringIO()
    with RichProgress(Console(file=out, force_terminal=True, width=100)).task("Scoring", total=100) as task:
        task.skip(40)
        task.advance(10)
        task.skip(50)
    assert "(40 done before)" in out.getvalue()


@pytest.mark.parametrize("seconds", [(45, 45, 45), (5, 20, 65)])
def test_bars_tell_the_time_left_of_slow_steps_by_more_than_the_last(seconds: tuple[int, ...]) -> None:
    out, clock = io.StringIO(), Clock()
    with RichProgress(Console(file=out, force_terminal=True, width=100), clock=clock).task(
        "Training", total=100
    ) as task:
        task.advance(1)  # the first step also pays for what is made once
        for each in seconds:
            clock.now += each
            task.advance(1)
        time.sleep(0.12)  # longer than rich waits between two pictures
    left = 96 * sum(seconds) // len(seconds)
    assert f"{left // 60 % 60:02d}:{left % 60:02d}" in out.getvalue()


def test_what_turns_out_to_be_done_leaves_the_speed_of_bars_alone() -> None:
    out, clock = io.StringIO(), Clock()
    with RichProgress(Console(file=out, force_terminal=True, width=100), clock=clock).task(
        "Refining", total=1000
    ) as task:
        for step in range(12):
            clock.now += 10
            if step == 10:
                task.skip(600)
            task.advance(1)
        time.sleep(0.12)  # longer than rich waits between two pictures
    assert "1:04:40" in out.getvalue()  # 388 steps of 10 seconds


def test_a_task_that_fails_is_not_called_done() -> None:
    out = io.StringIO()
    with pytest.raises(ValueError, match="no"), PlainProgress(out).task("Scoring", total=2):
        raise ValueError("no")
    assert "done" not in out.getvalue()


def test_a_task_of_nothing_is_done_at_once() -> None:
    out = io.StringIO()
    with PlainProgress(out).task("Nothing", total=0) as task:
        task.advance(0)
    assert "done" in out.getvalue()


def test_bars_on_a_terminal_and_lines_elsewhere() -> None:
    assert isinstance(
        terminal_progress(Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "xterm"})), RichProgress
    )
    assert isinstance(terminal_progress(Console(file=io.StringIO())), PlainProgress)


def test_bars_leave_one_line_a_task_and_nest() -> None:
    out = io.StringIO()
    progress = RichProgress(Console(file=out, force_terminal=True, width=100))
    with progress.task("Outer", total=2) as outer:
        with progress.task("Inner [b]", total=3, done=1) as inner:
            inner.advance(2, "loss 1")
        outer.advance(2)
    text = out.getvalue()
    assert "Inner [b]: done in" in text
    assert "(loss 1)" in text
    assert "Outer: done in" in text


def frames(columns: int, *notes: str) -> list[str]:
    """What a real terminal of so many columns shows of a training, line by line, as the bar moves."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, columns))
    with open(slave, "w", encoding="utf-8", buffering=1) as terminal:  # noqa: PTH123 (no path)
        progress = RichProgress(PrintableConsole(file=terminal, highlight=False, soft_wrap=True))
        with progress.task("Training fspo", total=50) as task:
            for note in notes:
                task.advance(1, note)
                time.sleep(0.12)  # longer than rich waits between two pictures
        shown = b""
        while select.select([master], [], [], 0.1)[0]:
            shown += os.read(master, 65536)
    os.close(master)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode("utf-8"))
    return [line for line in re.split(r"[\r\n]+", plain) if line.strip()]


@pytest.mark.parametrize(
    ("columns", "metrics"),
    [
        (50, ""),
        (60, "loss 0.693"),
        (80, "loss 0.693, accuracy 0.50"),
        (90, "loss 0.693, accuracy 0.50, direction 0.75"),
        (140, "loss 0.693, accuracy 0.50, direction 0.75, 1234 tokens/s"),
    ],
)
def test_a_line_holds_bar_percentage_step_and_time_left_and_the_metrics_that_fit(
    columns: int, metrics: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))  # rich asks the terminal of the process, and not that of `frames`
    monkeypatch.setenv("TERM", "xterm")
    note = "loss 0.693, accuracy 0.50, direction 0.75, 1234 tokens/s"
    *moving, last = frames(columns, note, note, note)
    drawn = [line for line in moving if "3/50" in line]
    assert drawn, moving
    for line in drawn:
        assert len(line.rstrip()) <= columns
        assert re.fullmatch(rf"Training fspo +[━╸╺ ]+ +6% +3/50 +[\d:-]+ +{re.escape(metrics)} *", line), line
    assert last.startswith("Training fspo: done in")
