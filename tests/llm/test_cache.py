from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fspo.errors import StorageError
from fspo.llm.cache import RequestCache, Spent, key_of
from fspo.llm.cache_shards import ReadOnlyCache
from fspo.llm.types import Completion, CompletionRequest, Message

REQUEST = CompletionRequest((Message("user", "Hello?"),), prefix="Well", seed=3)
MODEL = {"model": "m", "base_url": "http://here"}


def test_what_was_put_comes_back_in_another_process_too(tmp_path: Path) -> None:
    cache = RequestCache(tmp_path / "new" / "answers.sqlite")
    answer = Completion("Yes, \u00e9\u4e2d\n\x00", 4, "length", anew=True)
    cache.put("a", answer, 9)
    cache.put("a", Completion("another", 1, "stop"), 1)  # the first answer stays
    assert RequestCache(cache.path).get("a") == answer
    assert cache.get("b") is None
    assert cache.spent() == Spent(1, 9, 4)


def test_half_a_character_does_not_break_it(tmp_path: Path) -> None:
    cache = RequestCache(tmp_path / "a.sqlite")
    cache.put("a", Completion("x\ud800y", 1, "stop"))
    found = cache.get("a")
    assert found is not None and found.text == "x?y"
    assert key_of(MODEL, CompletionRequest((Message("user", "\ud800"),))) != key_of(MODEL, REQUEST)


@given(
    st.sampled_from(
        [
            {"prefix": "well"},
            {"max_tokens": 65},
            {"temperature": 0.9},
            {"top_p": 0.5},
            {"seed": 4},
            {"messages": (Message("user", "Hello!"),)},
            {"messages": (Message("system", ""), *REQUEST.messages)},
        ]
    )
)
def test_only_the_exact_request_is_the_same(change: dict[str, object]) -> None:
    assert key_of(MODEL, replace(REQUEST)) == key_of(dict(reversed(MODEL.items())), REQUEST)
    assert key_of(MODEL, replace(REQUEST, **change)) != key_of(MODEL, REQUEST)  # type: ignore[arg-type]
    assert key_of({**MODEL, "model": "n"}, REQUEST) != key_of(MODEL, REQUEST)


def test_failures_are_counted_until_they_are_answered(tmp_path: Path) -> None:
    cache = RequestCache(tmp_path / "a.sqlite")
    for key, why in (("a", "slow"), ("b", "slow"), ("c", "lost"), ("a", "lost")):
        cache.fail(key, why)
    assert cache.failures() == {"lost": 2, "slow": 1}
    cache.put("a", Completion("", 0, "stop"))
    assert cache.failures() == {"lost": 1, "slow": 1}


def test_threads_share_it(tmp_path: Path) -> None:
    cache = RequestCache(tmp_path / "a.sqlite")

    def work(own: int) -> None:
        for number in range(40):
            cache.put(f"{own}/{number}", Completion("x", 1, "stop"), 2)
            assert cache.get(f"{own}/{number}") is not None

    threads = [threading.Thread(target=work, args=(own,)) for own in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.spent() == Spent(320, 640, 320)


def test_killed_it_has_every_answer_that_was_handed_out(tmp_path: Path) -> None:
    path, told = tmp_path / "a.sqlite", tmp_path / "told"
    writing = (
        "import sys; from fspo.llm.cache import RequestCache; from fspo.llm.types import Completion\n"
        "cache, told = RequestCache(sys.argv[1]), open(sys.argv[2], 'a', buffering=1)\n"
        "for number in range(10**9):\n"
        "    key = f'{sys.argv[3]}/{number}'\n"
        "    cache.put(key, Completion('x' * 500, 1, 'stop')); told.write(key + '\\n')\n"
    )
    for turn in range(3):
        before = told.stat().st_size if told.exists() else 0
        command = [sys.executable, "-c", writing, str(path), str(told), str(turn)]
        process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": os.pathsep.join(["src", *sys.path])})
        while not told.exists() or told.stat().st_size < before + 400:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    cache = RequestCache(path)
    keys = [line for line in told.read_text().splitlines(keepends=True) if line.endswith("\n")]
    assert len(keys) > 100
    assert all(cache.get(key.strip()) is not None for key in keys)


def test_what_is_no_cache_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.sqlite").write_text("something else, long enough to be taken for a database " * 40)
    with pytest.raises(StorageError, match=r"a\.sqlite can't be read or written"):
        RequestCache(tmp_path / "a.sqlite")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="can't be read or written"):
        RequestCache(tmp_path / "file" / "a.sqlite")


def test_a_full_disk_is_one_sentence_and_earlier_answers_stay(tmp_path: Path) -> None:
    with closing(RequestCache(tmp_path / "a.sqlite")) as cache:
        cache.put("a", Completion("first", 1, "stop"))
        cache._do("PRAGMA max_page_count = 1")  # SQLite then uses no more pages than it has
        with pytest.raises(StorageError, match=r"^The disk is full: .*a\.sqlite could not be written\."):
            cache.put("b", Completion("x" * 100_000, 1, "stop"))
        first = cache.get("a")
        assert first is not None and first.text == "first"


@pytest.mark.parametrize("version", [0, 1, 99])
def test_a_file_of_another_version_is_one_sentence_and_stays(tmp_path: Path, version: int) -> None:
    path = tmp_path / "a.sqlite"
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE answers (key TEXT PRIMARY KEY, text TEXT)")
        other.execute(f"PRAGMA user_version = {version}")
    before = path.read_bytes()
    for kind in (RequestCache, ReadOnlyCache):
        with pytest.raises(StorageError, match=r"a\.sqlite holds answers of another version of fspo; move it away"):
            kind(path)
    assert path.read_bytes() == before


def test_processes_may_make_one_file_at_once(tmp_path: Path) -> None:
    code = (
        "import sys; from fspo.llm.cache import RequestCache; from fspo.llm.types import Completion\n"
        "RequestCache(sys.argv[1]).put(sys.argv[2], Completion('x', 1, 'stop'))\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(["src", *sys.path])}
    command = [sys.executable, "-c", code, str(tmp_path / "a.sqlite")]
    children = [subprocess.Popen([*command, str(number)], env=environment) for number in range(6)]
    assert [child.wait() for child in children] == [0] * 6
    assert RequestCache(tmp_path / "a.sqlite").spent().requests == 6


def test_several_answers_are_kept_all_or_none(tmp_path: Path) -> None:
    cache = RequestCache(tmp_path / "answers.sqlite")
    cache.put_all({"a": Completion("one", 1, "stop"), "b": Completion("two \ud800", 2, "length")})
    assert cache.get("a") == Completion("one", 1, "stop")
    assert cache.get("b") == Completion("two ?", 2, "length")
    with pytest.raises(StorageError):
        cache.put_all({"c": Completion("three", 1, "stop"), "d": Completion("four", object(), "stop")})  # type: ignore[arg-type]
    assert cache.get("c") is None


def test_an_answer_that_could_not_be_used_is_forgotten_on_request_and_its_cost_is_not(tmp_path: Path) -> None:
    cache = RequestCache(tmp_path / "a.sqlite")
    for key in "abc":
        cache.put(key, Completion(key, 4, "stop", first=(("A", -0.1),)), 9)
    cache.mark_unusable(["a", "b", "b", "never given"])
    assert cache.get("a") is not None
    cache.forget_unusable()
    assert [key for key in "abc" if cache.get(key)] == ["c"]
    assert cache.spent() == Spent(1, 27, 12)
    cache.put("a", Completion("now", 1, "stop"), 1)
    cache.forget_unusable()  # the new answer is not marked
    found = cache.get("a")
    assert found is not None and (found.text, found.first) == ("now", ())
    assert cache.spent() == Spent(2, 28, 13)


def test_marks_are_taken_over_from_another_file(tmp_path: Path) -> None:
    cache, part = RequestCache(tmp_path / "a.sqlite"), RequestCache(tmp_path / "b.sqlite")
    cache.put("a", Completion("x", 1, "stop"))
    part.mark_unusable(["a"])
    part.close()
    cache.absorb(tmp_path / "b.sqlite")
    cache.forget_unusable()
    assert cache.get("a") is None


def test_a_file_that_is_absorbed_twice_counts_once(tmp_path: Path) -> None:
    cache, part = RequestCache(tmp_path / "a.sqlite"), RequestCache(tmp_path / "b.sqlite")
    cache.count("no text")
    part.put("a", Completion("x", 1, "stop"), 2, ["reasoning cut off"])
    part.count("no text")
    part.fail("b", "slow")
    part.lose(3, 4)
    part.close()
    for _ in range(2):  # the first process ended before it removed the file
        cache.absorb(tmp_path / "b.sqlite")
    assert cache.replies() == {"no text": 2, "reasoning cut off": 1}
    assert cache.failures() == {"slow": 1}
    assert cache.spent() == Spent(1, 2 + 3, 1 + 4)
