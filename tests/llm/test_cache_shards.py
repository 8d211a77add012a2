from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fspo.errors import StorageError
from fspo.llm.cache import RequestCache, Spent
from fspo.llm.cache_shards import CacheShard, ReadOnlyCache, absorb_shards, shard_path
from fspo.llm.types import Completion

ONE, TWO, THREE = (Completion(text, 1, "stop") for text in ("one", "two", "three"))


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    """A run's file with one answer, still open elsewhere in this process."""
    path = tmp_path / "a % b" / "answers.sqlite"
    cache = RequestCache(path)
    cache.put("a", ONE, 5)
    cache.fail("c", "lost")
    cache.settle()
    return path


def test_a_part_knows_what_was_answered_before_and_counts_only_its_own(answers: Path) -> None:
    part = CacheShard(shard_path(answers, 3), ReadOnlyCache(answers))
    assert part.get("a") == ONE
    part.put("b", TWO, 7)
    assert part.get_all(["a", "b", "c"]) == {"a": ONE, "b": TWO}
    assert part.spent() == Spent(1, 7, 1)
    # No log beside it: another machine needs nothing but the file.
    assert not answers.with_name("answers.sqlite-wal").exists() or Path(f"{answers}-wal").stat().st_size == 0
    part.close()


def test_a_part_is_held_by_one_process_alone(answers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fspo.llm.cache._BUSY", 0.1)
    first = CacheShard(shard_path(answers, 0), ReadOnlyCache(answers))
    with pytest.raises(StorageError, match="locked"):
        CacheShard(shard_path(answers, 0), ReadOnlyCache(answers))
    with pytest.raises(StorageError, match=r"locked.*taken over into .* when the same command is run again"):
        absorb_shards(answers)
    first.put("b", TWO)
    first.close()
    assert CacheShard(shard_path(answers, 0), ReadOnlyCache(answers)).get("b") == TWO


def test_parts_are_taken_over_into_the_one_file(answers: Path) -> None:
    for number, (key, completion) in enumerate([("b", TWO), ("c", THREE), ("a", TWO)]):
        part = CacheShard(shard_path(answers, number), ReadOnlyCache(answers))
        part.put(key, completion, 3)
        part.fail("d", "lost")
        part.lose(10, 20)
        part.close()
    (answers.with_name("answers-parts") / "00001.tries").write_text("..")
    absorb_shards(answers)
    absorb_shards(answers)
    assert [path.name for path in answers.parent.iterdir() if "part" in path.name] == []
    cache = RequestCache(answers)
    assert cache.get_all(["a", "b", "c"]) == {"a": ONE, "b": TWO, "c": THREE}
    assert cache.spent() == Spent(3, 5 + 3 + 3 + 3 * 10, 3 + 3 * 20)
    assert cache.failures() == {"lost": 1}  # d; c was answered
    assert sqlite3.connect(answers).execute("SELECT times FROM failures").fetchall() == [(3,)]


def test_what_a_killed_process_put_into_a_part_is_there_for_the_next_one(answers: Path) -> None:
    path = shard_path(answers, 0)
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom fspo.llm.cache_shards import CacheShard, ReadOnlyCache\n"
        "from fspo.llm.types import Completion\n"
        "part = CacheShard(Path(sys.argv[1]), ReadOnlyCache(Path(sys.argv[2])))\n"
        "part.put('b', Completion('two', 1, 'stop'), 7)\nprint('put', flush=True)\ntime.sleep(60)\n"
    )
    command = [sys.executable, "-c", program, str(path), str(answers)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "put\n"
        process.send_signal(signal.SIGKILL)
    began = time.monotonic()
    part = CacheShard(path, ReadOnlyCache(answers))
    assert part.get("b") == TWO
    assert time.monotonic() - began < 30  # a part that is held is waited for a minute
    part.close()
    absorb_shards(answers)
    assert RequestCache(answers).get("b") == TWO


def test_a_file_that_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"no\.sqlite can't be read"):
        ReadOnlyCache(tmp_path / "no.sqlite")
    absorb_shards(tmp_path / "no.sqlite")
    assert not (tmp_path / "no.sqlite").exists()
