from __future__ import annotations

from fspo.progress import Progress, Silent


def test_silent_progress_can_stand_wherever_progress_is_asked_for(capsys: object) -> None:
    progress: Progress = Silent()
    progress.say("hello")
    with progress.task("count", total=3, done=1) as task:
        task.advance()
        task.advance(1, note="loss 0.3")
    assert capsys.readouterr().out == ""  # type: ignore[attr-defined]
