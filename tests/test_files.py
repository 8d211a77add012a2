from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fspo import files
from fspo.errors import ConfigError, StorageError
from fspo.files import (
    FolderKind,
    append_jsonl,
    check_replaceable,
    check_writable,
    full_disk_explained,
    locked,
    read_json,
    read_jsonl,
    replace_folder,
    to_json,
    write_json,
    write_text,
    writing,
)

THING = FolderKind("a thing", needs=("inside",))
FOLDER = FolderKind("a folder of a test", needs=(), may=("old", "new", "other", "deep/*"))

keys = st.text(max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | keys,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def full(*_: object, **__: object) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# What may be written


def test_a_place_that_can_not_be_written_is_named_and_nothing_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "other" / "place")
    for free in (tmp_path / "file", tmp_path / "folder", tmp_path / "new" / "folder", link, Path(os.devnull)):
        check_writable(free)
    with pytest.raises(ConfigError, match="file is a file, so inside can't"):
        check_writable(tmp_path / "file" / "inside")
    with pytest.raises(ConfigError, match="file is a file; name a folder"):
        check_writable(tmp_path / "file", inside=True)

    allowed = os.access  # a superuser may write everywhere
    monkeypatch.setattr(
        os, "access", lambda place, mode: not (mode & os.W_OK and place == tmp_path) and allowed(place, mode)
    )
    for refused in (tmp_path / "file", tmp_path / "folder", tmp_path / "new" / "folder", link):
        with pytest.raises(StorageError, match=f"because {tmp_path} is not writable"):
            check_writable(refused)
    check_writable(tmp_path / "folder", inside=True)
    monkeypatch.chdir(tmp_path / "folder")  # the working folder gets new files and is not exchanged
    check_writable(tmp_path / "folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder", "link"]


# Whole files


def test_a_file_is_written_with_the_folders_it_needs(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "text.txt"
    write_text(path, "héllo\n")
    assert path.read_text(encoding="utf-8") == "héllo\n"
    assert names(path.parent) == ["text.txt"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    write_text(path, "old")
    with pytest.raises(KeyError), writing(path) as temporary:
        temporary.write_text("half of the n")
        raise KeyError
    assert path.read_text() == "old"
    assert names(tmp_path) == ["text.txt"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_is_one_clear_sentence_and_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "text.txt"
    write_text(path, "old")
    with monkeypatch.context() as patch:
        patch.setattr(*((os, "fsync") if call == "fsync" else (Path, "replace")), full)
        with pytest.raises(StorageError, match=r"The disk is full: .*text\.txt could not be written\. Free some space"):
            write_text(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["text.txt"]


def test_a_pipe_gets_the_content_and_stays(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "link").symlink_to(pipe)
    for path in (pipe, tmp_path / "link"):
        with ThreadPoolExecutor(1) as readers:
            read = readers.submit(pipe.read_text)
            write_text(path, "new")
            assert read.result(10) == "new"
        assert pipe.is_fifo()
    assert names(tmp_path) == ["link", "pipe"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_really_full_device_is_told_as_such() -> None:
    with pytest.raises(StorageError, match="The disk is full"):
        append_jsonl(Path("/dev/full"), {"a": 1})
    with pytest.raises(StorageError, match="The disk is full"):
        write_text(Path("/dev/full"), "new")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
        OSError(errno.EDQUOT, "Plattenkontingent überschritten"),
        RuntimeError(f"I/O error: {os.strerror(errno.EDQUOT)} (os error {errno.EDQUOT})"),
        sqlite3.OperationalError("database or disk is full"),
    ],
    ids=repr,
)
def test_a_full_quota_or_database_is_a_full_disk(error: Exception) -> None:
    with pytest.raises(StorageError, match=r"^The disk is full\. Free some space"), full_disk_explained():
        raise error


@pytest.mark.parametrize(
    "error", [OSError(errno.EACCES, "Permission denied"), sqlite3.OperationalError("disk I/O error")]
)
def test_another_fault_of_storage_is_no_full_disk(error: Exception) -> None:
    with pytest.raises(type(error)), full_disk_explained():
        raise error


def test_a_folder_that_can_not_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for write in (
        lambda path: write_text(path, ""),
        lambda path: append_jsonl(path, {}),
        lambda path: replace_folder(path, FOLDER).__enter__(),
    ):
        with pytest.raises(StorageError, match=r"file/inside/x could not be written \(Not a directory\)"):
            write(tmp_path / "file" / "inside" / "x")


def test_writers_of_one_file_at_one_time_do_not_meet(tmp_path: Path) -> None:
    path, texts = tmp_path / "text.txt", [str(i) * 50_000 for i in range(8)]
    threads = [threading.Thread(target=write_text, args=(path, text)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in texts
    assert names(tmp_path) == ["text.txt"]


@pytest.mark.parametrize("maker", ["writing", "replace_folder"])
def test_what_a_killed_writer_left_goes_after_a_day_and_the_old_state_stands(tmp_path: Path, maker: str) -> None:
    path = tmp_path / "thing"
    make = {"writing": write_old_file, "replace_folder": write_old_folder}[maker]
    make(path)
    call = {
        "writing": "writing(pathlib.Path(sys.argv[1]))",
        "replace_folder": "replace_folder(pathlib.Path(sys.argv[1]), FolderKind('a thing', ('inside',)))",
    }[maker]
    code = (
        "import sys, time, pathlib; from fspo.files import FolderKind, replace_folder, writing\n"
        f"with {call} as new:\n"
        "    new = new / 'inside' if new.is_dir() else new\n"
        "    new.write_text('half'); print('ready', flush=True); time.sleep(60)"
    )
    source = str(Path(files.__file__).parents[1])
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": source}
    ) as child:
        assert child.stdout is not None and child.stdout.readline() == b"ready\n"
        (tmp_path / ".thing.hidden").write_text("not ours to sweep")
        (tmp_path / ".thing.old").write_text("nor this")
        child.send_signal(signal.SIGKILL)
        child.wait()
    (left,) = set(names(tmp_path)) - {"thing", ".thing.hidden", ".thing.old"}
    assert (path / "inside" if path.is_dir() else path).read_text() == "old"
    make(path)
    assert left in names(tmp_path), "whether its writer lives can't be known"
    long_ago = time.time() - 3 * 24 * 3600
    for inside in (tmp_path / left, *(tmp_path / left).rglob("*")):
        os.utime(inside, (long_ago, long_ago))
    make(path)
    assert names(tmp_path) == [".thing.hidden", ".thing.old", "thing"]


def write_old_file(path: Path) -> None:
    write_text(path, "old")


def write_old_folder(path: Path) -> None:
    with replace_folder(path, THING) as staging:
        (staging / "inside").write_text("old")


def test_what_a_living_writer_is_at_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    with writing(path) as outer:
        outer.write_text("outer")
        write_text(path, "inner")
        assert outer.exists()
    assert path.read_text() == "outer"


# JSON


@given(values)
def test_json_comes_back_as_it_was(value: Any) -> None:
    assert json.loads(to_json(value)) == value
    assert json.loads(to_json(value, indent=2)) == value


def test_json_holds_nothing_that_other_readers_refuse(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    write_json(path, {"loss": float("nan"), "all": [1.5, float("inf"), (float("-inf"),)], "text": "half \ud83d"})
    assert read_json(path) == {"loss": None, "all": [1.5, None, [None]], "text": "half \ud83d"}
    assert b"NaN" not in path.read_bytes() and path.read_bytes().decode("utf-8").endswith("}\n")
    assert to_json({"é": 1}) == '{"é": 1}'


def test_json_that_can_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "value.json"
    with pytest.raises(StorageError, match=r"value\.json does not exist\."):
        read_json(path)
    path.write_text('{"a":')
    with pytest.raises(StorageError, match=r"value\.json is not valid JSON \(.*\); delete it"):
        read_json(path)
    path.write_text("[" * 100_000)
    with pytest.raises(StorageError, match="not valid JSON"):
        read_json(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(StorageError, match="not valid JSON"):
        read_json(path)
    with pytest.raises(StorageError, match="could not be read"):
        read_json(tmp_path)
    with pytest.raises(StorageError, match="could not be read"):
        read_jsonl(tmp_path)


# Logs


@given(st.lists(st.dictionaries(keys, values, max_size=3), max_size=4))
def test_records_come_back_whatever_text_they_hold(records: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.jsonl"
        for record in records:
            append_jsonl(path, record)
        assert read_jsonl(path) == records


def test_text_with_unusual_line_ends_stays_one_record(tmp_path: Path) -> None:
    path, record = tmp_path / "log.jsonl", {"text": "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\r\nh\ud800"}
    append_jsonl(path, record)
    append_jsonl(path, record)
    assert read_jsonl(path) == [record, record]


def test_a_torn_line_costs_itself_alone(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "log.jsonl"
    assert read_jsonl(path) == []
    records = [{"n": n, "text": "é" * n} for n in range(4)]
    for record in records:
        append_jsonl(path, record)
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        kept = read_jsonl(path)
        assert kept == records[: len(kept)] and len(kept) >= whole[:cut].count(b"\n")
        append_jsonl(path, {"n": "next"})
        assert read_jsonl(path) == [*kept, {"n": "next"}]


def test_lines_that_are_no_records_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'[1]\n\n7\n{"a": 1}\n\xff\xff\n' + b"[" * 100_000 + b'\n{"b": 2}')
    assert read_jsonl(path) == [{"a": 1}, {"b": 2}]


def test_a_full_disk_while_appending_is_told_and_earlier_records_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log.jsonl"
    append_jsonl(path, {"a": 1})
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match="The disk is full"):
            append_jsonl(path, {"a": 2})
    assert read_jsonl(path)[0] == {"a": 1}


def test_processes_append_to_one_log_without_tearing_each_other(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    code = (
        "import sys, pathlib; from fspo.files import append_jsonl\n"
        "for n in range(40): append_jsonl(pathlib.Path(sys.argv[1]), {'who': sys.argv[2], 'n': n, 'text': 'x' * 5000})"
    )
    source = str(Path(files.__file__).parents[1])
    children = [
        subprocess.Popen([sys.executable, "-c", code, str(path), who], env={**os.environ, "PYTHONPATH": source})
        for who in "abc"
    ]
    assert [child.wait() for child in children] == [0, 0, 0]
    records = read_jsonl(path)
    assert {who: [r["n"] for r in records if r["who"] == who] for who in "abc"} == {w: list(range(40)) for w in "abc"}


# Folders


def replaced(path: Path) -> None:
    with replace_folder(path, FOLDER) as staging:
        assert list(staging.iterdir()) == []
        (staging / "deep").mkdir()
        (staging / "deep" / "new").write_text("new")


def old_folder(path: Path) -> Path:
    path.mkdir()
    (path / "old").write_text("old")
    return path


def test_a_folder_is_made_and_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "a" / "folder"
    replaced(path)
    assert (path / "deep" / "new").read_text() == "new"
    with replace_folder(path, FOLDER) as staging:
        (staging / "other").write_text("")
    assert names(path) == ["other"]
    assert names(path.parent) == ["folder"]


def test_a_replaced_folder_is_readable_by_those_the_umask_allows(tmp_path: Path) -> None:
    replaced(tmp_path / "folder")
    (tmp_path / "plain").mkdir()
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


@pytest.mark.parametrize("there", [True, False])
def test_what_a_link_points_at_is_written_and_the_link_stays(tmp_path: Path, there: bool) -> None:
    file, folder = tmp_path / "disk" / "file", tmp_path / "disk" / "folder"
    if there:
        write_text(file, "old")
        old_folder(folder)
    (tmp_path / "file").symlink_to(file)
    (tmp_path / "folder").symlink_to(Path("disk/folder"))
    write_text(tmp_path / "file", "new")
    replaced(tmp_path / "folder")
    assert (tmp_path / "file").is_symlink() and (tmp_path / "folder").is_symlink()
    assert file.read_text() == "new" and names(folder) == ["deep"]
    assert names(tmp_path) == ["disk", "file", "folder"] and names(tmp_path / "disk") == ["file", "folder"]


def test_a_failure_leaves_the_old_folder_and_nothing_else(tmp_path: Path) -> None:
    path = old_folder(tmp_path / "folder")
    with pytest.raises(KeyError), replace_folder(path, FOLDER) as staging:
        (staging / "new").write_text("half")
        raise KeyError
    assert names(path) == ["old"] and names(tmp_path) == ["folder"]


@pytest.mark.parametrize(
    "break_it",
    [
        lambda patch: patch.setattr(os, "fsync", full),
        lambda patch: patch.setattr(files, "_put_in_place", full),
        lambda patch: patch.setattr(Path, "mkdir", full),
    ],
    ids=["fsync", "rename", "mkdir"],
)
def test_a_full_disk_keeps_the_old_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, break_it: Callable[[pytest.MonkeyPatch], None]
) -> None:
    path = old_folder(tmp_path / "folder")
    with monkeypatch.context() as patch:
        break_it(patch)
        with pytest.raises(StorageError, match="The disk is full"), replace_folder(path, FOLDER) as staging:
            (staging / "new").write_text("new")
    assert names(path) == ["old"] and names(tmp_path) == ["folder"]


def test_a_file_is_not_replaced_by_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("mine")
    with pytest.raises(ConfigError, match="is a file"), replace_folder(path, FOLDER):
        pass
    assert path.read_text() == "mine"


@pytest.mark.skipif(sys.platform != "linux", reason="swaps two names in one step on Linux alone")
def test_readers_never_find_the_folder_missing(tmp_path: Path) -> None:
    path = old_folder(tmp_path / "folder")
    if not files._exchange(path, old_folder(tmp_path / "probe")):
        pytest.skip("this file system can't swap names")
    missing, done = [], threading.Event()

    def watch() -> None:
        while not done.is_set():
            if not path.is_dir():
                missing.append(True)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(50):
        replaced(path)
    done.set()
    watcher.join()
    assert not missing


def test_a_replacement_that_was_cut_short_is_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_exchange", lambda *_: False)
    path = old_folder(tmp_path / "folder")
    path.rename(tmp_path / f".folder.{'0' * 32}.old")  # as a process leaves it that was killed between the two renames
    with pytest.raises(KeyError), replace_folder(path, FOLDER):
        raise KeyError
    assert names(path) == ["old"] and names(tmp_path) == ["folder"]
    old_folder(tmp_path / f".folder.{'1' * 32}.old")  # killed after both, before the old one was removed
    replaced(path)
    assert names(path) == ["deep"] and names(tmp_path) == ["folder"]


MODEL = FolderKind("a model", needs=("config.json", "*.safetensors"), may=("adapter-[0-9]*/*.json", "README.md"))


def a_model(folder: Path) -> Path:
    for name in ("config.json", "model.safetensors", "adapter-0/settings.json"):
        write_text(folder / name, name)
    return folder


@pytest.mark.parametrize(
    "other",
    [
        "notes.txt",
        "methods/fspo/policy.json",
        ".git/HEAD",
        "adapter-0/notes.txt",
        "adapter-0/deep/settings.json",
        "adapter-x/settings.json",
        "deep/model.safetensors",
        "config.json.bak",
    ],
)
def test_a_folder_with_content_of_others_is_not_replaced(tmp_path: Path, other: str) -> None:
    folder = a_model(tmp_path / "model")
    check_replaceable(folder, MODEL)
    write_text(folder / other, "somebody's own")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match="is not replaced, because it holds"), replace_folder(folder, MODEL):
        raise AssertionError
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_content_that_arrives_during_a_replacement_is_not_lost(tmp_path: Path) -> None:
    folder = a_model(tmp_path / "model")
    with pytest.raises(ConfigError, match=r"holds notes\.txt"), replace_folder(folder, MODEL) as staging:
        a_model(staging)
        write_text(folder / "notes.txt", "mine")
    assert (folder / "notes.txt").read_text() == "mine" and names(tmp_path) == ["model"]


def test_a_folder_of_another_kind_is_not_replaced(tmp_path: Path) -> None:
    write_text(tmp_path / "docs" / "README.md", "of a project")
    with pytest.raises(ConfigError, match=r"is not a model \(it has no config\.json\)"):
        check_replaceable(tmp_path / "docs", MODEL)
    check_replaceable(tmp_path / "missing", MODEL)
    (tmp_path / "empty").mkdir()
    check_replaceable(tmp_path / "empty", MODEL)


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("needed", ["model", "model/adapter-0", "model/config.json"])
def test_what_is_still_needed_is_not_replaced(tmp_path: Path, linked: bool, needed: str) -> None:
    folder = a_model(tmp_path / "model")
    if linked:
        (tmp_path / "link").symlink_to(folder)
        folder = tmp_path / "link"
    with pytest.raises(ConfigError, match="is not replaced"):
        check_replaceable(folder, MODEL, spare=[tmp_path / needed])
    check_replaceable(folder, MODEL, spare=[tmp_path])


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "README.md"])
@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("keeps_others", [False, True])
def test_a_folder_with_the_name_of_a_file_is_not_replaced(
    tmp_path: Path, name: str, linked: bool, keeps_others: bool
) -> None:
    folder = a_model(tmp_path / "model")
    (folder / name).unlink(missing_ok=True)
    write_text((tmp_path / "elsewhere" if linked else folder / name) / "part-0000.parquet", "rows of somebody")
    if linked:
        (folder / name).symlink_to(tmp_path / "elsewhere")
    kind = replace(MODEL, keeps_others=keeps_others)
    with pytest.raises(ConfigError, match=f"holds {name}, which is"), replace_folder(folder, kind):
        raise AssertionError
    assert (folder / name / "part-0000.parquet").read_text() == "rows of somebody"


def test_a_kind_may_look_into_its_files(tmp_path: Path) -> None:
    folder = a_model(tmp_path / "model")
    kind = replace(
        MODEL, objection=lambda place: "" if (place / "config.json").read_text() == "config.json" else "foreign"
    )
    check_replaceable(folder, kind)
    write_text(folder / "config.json", "of somebody else")
    with pytest.raises(ConfigError, match=r"is not a model \(foreign\), so it is not replaced"):
        check_replaceable(folder, kind)


def test_among_others_only_what_is_replaced_can_not_be_needed(tmp_path: Path) -> None:
    folder, kind = a_model(tmp_path / "model"), replace(MODEL, keeps_others=True)
    write_text(folder / "raw/rows.jsonl", "mine")
    check_replaceable(folder, kind, spare=[folder / "raw", folder / "raw/rows.jsonl", tmp_path])
    (tmp_path / "link").symlink_to(folder / "config.json")
    for needed in (folder, folder / "config.json", folder / "adapter-0", tmp_path / "link"):
        with pytest.raises(ConfigError, match="is not replaced, because"):
            check_replaceable(folder, kind, spare=[needed])


@pytest.mark.parametrize("below", ["", "adapter-0"])
def test_the_working_and_the_home_folder_are_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: str
) -> None:
    folder = a_model(tmp_path / "model")
    with monkeypatch.context() as patch:
        patch.setenv("HOME", str(folder / below))
        said = "the home folder is in it" if below else "it is the home folder"
        with pytest.raises(ConfigError, match=f"is not replaced, because {said}; name another folder"):
            check_replaceable(folder, MODEL)
    check_replaceable(folder, MODEL)
    monkeypatch.chdir(folder / below)
    with pytest.raises(ConfigError, match="is not replaced"):
        check_replaceable(folder, MODEL)
    with pytest.raises(ConfigError, match=f"^{folder} is not replaced"):
        check_replaceable(Path("." if not below else ".."), MODEL)


@pytest.mark.parametrize("held", ["working", "home", "mount"])
@pytest.mark.parametrize("below", ["", "deep"])
def test_a_folder_that_can_not_be_exchanged_gets_new_files_among_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: str, below: str
) -> None:
    folder = a_model(tmp_path / "model")
    for name in ("notes.txt", "deep/notes.txt"):
        write_text(folder / name, name)
    write_text(folder / "README.md", "of the old one")
    if held == "working":
        monkeypatch.chdir(folder / below)
    elif held == "home":
        monkeypatch.setenv("HOME", str(folder / below))
    else:
        monkeypatch.setattr(os.path, "ismount", lambda place: Path(place) == folder)
    number = folder.stat().st_ino
    with replace_folder(folder, replace(MODEL, keeps_others=True)) as staging:
        for name in ("config.json", "model.safetensors", "adapter-1/settings.json"):
            write_text(staging / name, "new")
        assert (folder / "config.json").read_text() == "config.json"
    found = {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}
    assert found == {
        "adapter-1/settings.json": "new",
        "config.json": "new",
        "deep/notes.txt": "deep/notes.txt",
        "model.safetensors": "new",
        "notes.txt": "notes.txt",
    }
    assert folder.stat().st_ino == number and names(tmp_path) == ["model"]


def test_others_are_taken_over_where_the_kind_says_so(tmp_path: Path) -> None:
    folder = a_model(tmp_path / "model")
    for name in ("notes.txt", "deep/notes.txt", "adapter-0/notes.txt"):
        write_text(folder / name, name)
    (folder / "link").symlink_to("nowhere")
    with replace_folder(folder, replace(MODEL, keeps_others=True)) as staging:
        write_text(staging / "config.json", "new")
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()) == [
        "adapter-0/notes.txt",
        "config.json",
        "deep/notes.txt",
        "link",
        "notes.txt",
    ]
    assert (folder / "config.json").read_text() == "new" and (folder / "deep/notes.txt").read_text() == "deep/notes.txt"


def test_an_empty_working_folder_is_filled_and_stays_the_same_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    number = folder.stat().st_ino
    replaced(Path())
    assert names(folder) == ["deep"] and folder.stat().st_ino == number and names(tmp_path) == ["empty"]
    assert (Path() / "deep/new").read_text() == "new"


def test_what_arrives_in_an_empty_working_folder_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for kind in (MODEL, replace(MODEL, keeps_others=True)):
        with pytest.raises(ConfigError, match="not replaced"), replace_folder(Path(), kind) as staging:
            a_model(staging)
            write_text(tmp_path / "config.json", "mine")
        assert (tmp_path / "config.json").read_text() == "mine" and names(tmp_path) == ["config.json"]
        (tmp_path / "config.json").unlink()


def test_a_command_that_was_killed_in_the_working_folder_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    left = tmp_path / f".{tmp_path.name}.{'0' * 32}.tmp"  # as a killed writer leaves it
    a_model(left)
    assert files.is_empty(tmp_path)
    for kind in (MODEL, replace(MODEL, keeps_others=True)):
        with replace_folder(Path(), kind) as staging:
            a_model(staging)
        assert set(names(tmp_path)) == {left.name, *names(left)}, "whether its writer lives can't be known"
        assert (left / "config.json").exists()
        for name in names(left):
            (tmp_path / name).rename(tmp_path / "gone") if name == "adapter-0" else (tmp_path / name).unlink()
        shutil.rmtree(tmp_path / "gone")
    long_ago = time.time() - 3 * 24 * 3600
    for inside in (left, *left.rglob("*")):
        os.utime(inside, (long_ago, long_ago))
    replaced(Path())
    assert names(tmp_path) == ["deep"]


def test_a_move_into_the_working_folder_that_was_cut_short_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, move = replace(MODEL, needs=("config.json",), may=("a.json", "z.json"), keeps_others=True), Path.replace
    new = ("a.json", "config.json", "z.json")
    for old in ((), ("config.json", "z.json")):
        for stop in range(len(new)):
            folder = tmp_path / f"{len(old)} {stop}"
            folder.mkdir()
            monkeypatch.chdir(folder)
            for name in old:
                write_text(folder / name, "old")
            with monkeypatch.context() as patch:
                moves = iter(range(stop))

                def cut(path: Path, target: Path, moves: Any = moves) -> Path:
                    if path.parent.suffix == ".tmp" and next(moves, None) is None:
                        raise KeyError
                    return move(path, target)

                with pytest.raises(KeyError), replace_folder(folder, kind) as staging:
                    for name in new:
                        (staging / name).write_text("new")
                    patch.setattr(Path, "replace", cut)
            with replace_folder(folder, kind) as staging:
                for name in new:
                    (staging / name).write_text("again")
            assert {name: (folder / name).read_text() for name in names(folder)} == dict.fromkeys(new, "again")


def test_an_error_about_another_file_is_not_put_on_the_one_that_is_written(tmp_path: Path) -> None:
    for make in (writing, lambda path: replace_folder(path, FOLDER)):
        with pytest.raises(FileNotFoundError, match="missing"), make(tmp_path / "thing"):
            (tmp_path / "missing").read_text()
        with pytest.raises(ConnectionResetError), make(tmp_path / "thing"):
            raise ConnectionResetError(errno.ECONNRESET, "reset")
        with pytest.raises(StorageError, match="thing could not be written"), make(tmp_path / "thing") as new:
            (new / "deep/file").write_text("")
    assert names(tmp_path) == []


def test_who_holds_a_lock_sweeps_at_once(tmp_path: Path) -> None:
    left = tmp_path / f".folder.{'0' * 32}.tmp"
    old_folder(left)
    with replace_folder(tmp_path / "folder", FOLDER, alone=True) as staging:
        assert names(tmp_path) == [staging.name]


# Locks


def test_what_fails_while_the_lock_is_held_is_not_blamed_on_the_lock(tmp_path: Path) -> None:
    with pytest.raises(PermissionError, match="elsewhere"), locked(tmp_path / "new" / "lock"):
        raise PermissionError("elsewhere")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match=r"lock could not be written"), locked(tmp_path / "file" / "lock"):
        pass


def test_a_lock_is_free_at_once_when_its_process_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    code = (
        "import sys, time, pathlib; from fspo.files import locked\n"
        "with locked(pathlib.Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(60)"
    )
    source = str(Path(files.__file__).parents[1])
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": source}) as child:
        assert child.stdout is not None and child.stdout.readline() == b"held\n"
        with pytest.raises(StorageError, match="Someone is at work"), locked(path, busy="Someone is at work."):
            pass
        waiting = threading.Thread(target=lambda: locked(path).__enter__())
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive(), "without a sentence the other process is waited for"
        child.kill()
        child.wait()
        waiting.join(10)
        assert not waiting.is_alive()


# The cache


def test_a_cache_below_a_home_folder_that_is_not_known_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSPO_CACHE", "~nobody-of-that-name/cache")
    with pytest.raises(ConfigError, match="FSPO_CACHE: The path ~nobody-of-that-name/cache"):
        files.cache_folder()
    monkeypatch.setenv("FSPO_CACHE", "~/cache")
    assert files.cache_folder() == Path.home() / "cache"


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_full_disk_is_the_promised_error_whichever_library_writes(wrapped: bool) -> None:
    @full_disk_explained()
    def write() -> None:
        try:
            full()
        except OSError as error:
            if not wrapped:
                raise
            raise RuntimeError("serialising failed") from error

    with pytest.raises(StorageError, match="The disk is full"):
        write()
    with pytest.raises(ValueError, match="a bug"), full_disk_explained():
        raise ValueError("a bug")
