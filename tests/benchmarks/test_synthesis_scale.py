"""The large synthesis, small: the kills, and what is counted."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import synthesis_scale
from benchmarks.instant import InstantTransport
from fspo.files import read_json
from fspo.judging.pairwise import prompt_of, read_verdict
from fspo.judging.verdicts import Comparison
from fspo.judging.weighted import letter_prompt
from fspo.llm.types import CompletionRequest, Message
from fspo.preferences.types import User
from tests import preloaded


@pytest.mark.slow
def test_a_killed_run_makes_the_same_and_asks_nothing_twice(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    # In processes that have the libraries already: importing them would be most of the time.
    begun = SimpleNamespace(Popen=lambda command: preloaded.start(*command[2:], env=os.environ))
    monkeypatch.setattr(synthesis_scale, "subprocess", begun)
    synthesis_scale.main(["--preferences", "400", "--compare", "320", "--kills", "2", "--out", str(out)])
    figures = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert figures == read_json(out / "synthesis_scale.json")
    assert figures["identical"] is True
    assert figures["kills"] == figures["identical_kills"] == 2
    assert figures["requests_repeated"] == 0
    assert figures["answers_lost"] <= 4 * 64
    assert figures["preferences"] > 355
    assert 0.1 < figures["peak_memory_gb"] < 1.5
    assert 0 < figures["outside_endpoint"] < 1


def test_work_that_another_program_kills_is_not_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []

    def start(command: object) -> SimpleNamespace:
        started.append(command)
        return SimpleNamespace(pid=os.getpid(), poll=lambda: -signal.SIGKILL)

    monkeypatch.setattr(synthesis_scale, "subprocess", SimpleNamespace(Popen=start))
    with pytest.raises(SystemExit, match="failed with code -9"):
        synthesis_scale.make(tmp_path / "made", synthesis_scale.config_of(400), 2, random.Random(0), [])
    assert len(started) == 1


def test_requests_that_are_sent_again_are_told_apart(tmp_path: Path) -> None:
    made = synthesis_scale.Made(tmp_path)
    connection = synthesis_scale.sqlite3.connect(tmp_path / "answers.sqlite")
    connection.execute("CREATE TABLE answers (key TEXT)")
    keys = [bytes([number]) * 32 for number in range(3)]
    connection.execute("INSERT INTO answers VALUES (?)", (keys[0].hex(),))
    connection.commit()
    (tmp_path / "sent").write_bytes(keys[0] + keys[1])  # the second answer was not kept
    synthesis_scale._count(made)
    assert (made.sent, made.repeated, made.lost) == (2, 0, 1)
    with (tmp_path / "sent").open("ab") as log:
        log.write(keys[1] + keys[0] + keys[2])  # the first was kept, and came again
    for key in keys[1:]:
        connection.execute("INSERT INTO answers VALUES (?)", (key.hex(),))
    connection.commit()
    connection.close()
    synthesis_scale._count(made)
    assert (made.sent, made.repeated, made.lost) == (5, 1, 1)


def test_the_instant_judge_reads_the_description_and_mostly_not_the_order(tmp_path: Path) -> None:
    transport = InstantTransport({"model": "m"}, tmp_path / "sent")

    def judged(user: User, first: str, second: str) -> str:
        said = prompt_of(letter_prompt, Comparison(user, "Why?", first, second))
        request = CompletionRequest((Message("user", said),))
        return str(read_verdict(asyncio.run(transport.send(request, {})).completion))

    users = [User(str(number), f"A person of {number} opinions.", {}, "") for number in range(60)]
    both = [(judged(user, "one text", "another"), judged(user, "another", "one text")) for user in users]
    consistent = [pair for pair in both if set(pair) == {"first", "second"}]
    assert 50 <= len(consistent) <= 60
    assert 15 < sum(pair[0] == "first" for pair in consistent) < 45
    assert (tmp_path / "sent").stat().st_size == 120 * 32
