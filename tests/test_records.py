"""Typed records on disk: what comes back, what a kill costs, and what is damage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from fspo.errors import StorageError
from fspo.progress import Task
from fspo.records import KeyedLog, Record, read_headed, read_record, read_records, write_record, write_records


@dataclass(frozen=True)
class Square:
    number: int
    square: float
    parts: tuple[str, ...] = ()


class Person(Record):
    name: str
    squares: tuple[Square, ...] = ()
    share: float | None = None


class Shown:
    """Progress that notes what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, float, float]] = []
        self.steps: list[float] = []

    @contextmanager
    def task(self, name: str, total: float, done: float = 0.0) -> Iterator[Task]:
        self.told.append((name, total, done))
        yield self

    def advance(self, steps: float = 1.0, note: str = "") -> None:
        self.steps.append(steps)

    def skip(self, steps: float) -> None:
        raise NotImplementedError

    def say(self, text: str) -> None:
        raise NotImplementedError


def test_a_record_comes_back(tmp_path: Path) -> None:
    path, ann = tmp_path / "ann.json", Person(name="Ann", squares=(Square(2, 4.0, ("a", "b")),), share=float("nan"))
    assert read_record(path, Person, "Copy it.") is None
    write_record(path, ann)
    assert read_record(path, Person, "Copy it.") == ann.model_copy(update={"share": None})
    write_record(path, {"ann": {"two": Square(2, 4.0)}})
    assert read_record(path, dict[str, dict[str, Square]], "Copy it.") == {"ann": {"two": Square(2, 4.0)}}
    with pytest.raises(StorageError, match=r"ann\.json is damaged, .* \(.*'name' is missing\); Copy it"):
        read_record(path, Person, "Copy it.")


def test_a_damaged_line_of_a_whole_file_is_named(tmp_path: Path) -> None:
    path, people = tmp_path / "people.jsonl", [Person(name="a\u2028b"), Person(name="Ben", later=1)]  # type: ignore[call-arg]
    assert read_records(path, Person, "Copy it.") == []
    write_records(path, people)
    assert read_records(path, Person, "Copy it.") == people
    whole = path.read_bytes()
    for broken, line in (
        (whole[:-4], 2),
        (whole + b"\n", 3),
        (b"[1]\n" + whole, 1),
        (b'{"name": "\xff"}\n' + whole, 1),
        (whole.replace(b'"Ben"', b"3"), 2),
        (whole + b"\0\0\0\0\n", 3),
    ):
        path.write_bytes(broken)
        with pytest.raises(StorageError, match=rf"people\.jsonl, line {line}, is damaged.*Copy it\."):
            read_records(path, Person, "Copy it.")
        path.write_bytes(b"[2]\n" + broken)
        with pytest.raises(StorageError, match=rf"people\.jsonl, line {line + 1}, is damaged.*Copy it\."):
            read_headed(path, list[int], Person, "Copy it.")


def test_a_header_is_of_its_own_type(tmp_path: Path) -> None:
    path = tmp_path / "people.jsonl"
    for content in (None, b"", b'{"name": "Ann"}\n'):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(StorageError, match=r"people\.jsonl, line 1, is damaged.*Copy it\."):
            read_headed(path, list[int], Person, "Copy it.")
    path.write_text('[2]\n{"name": "Ann"}\n')
    assert read_headed(path, list[int], Person, "Copy it.") == ([2], [Person(name="Ann")])


def test_a_log_gives_back_its_results_and_a_kill_costs_the_torn_one_alone(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "log.jsonl"
    results = {f"{n}": Square(n, float(n * n), ("é",) * n) for n in range(4)}
    log = KeyedLog(path, Square)
    for key, result in results.items():
        log.put(key, result)
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        log = KeyedLog(path, Square)
        known = [key for key in results if key in log]
        assert known == list(results)[: len(known)] and len(known) >= whole[:cut].count(b"\n")
        log.put("next", Square(9, 81.0))
        again = KeyedLog(path, Square)  # the torn line is in the middle now
        assert {key: again[key] for key in known} == {key: results[key] for key in known}
        assert again["next"] == Square(9, 81.0)
        assert [key for key in results if key in again] == known


@pytest.mark.parametrize("damage", [b'{"key": "1", "number"', b'{"key": "1", "number": "x"}', b"{}", b"\0\0\0\0"])
def test_damage_in_the_middle_of_a_log_is_named(damage: bytes, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = KeyedLog(path, Square)
    for number in range(3):
        log.put(f"{number}", Square(number, number**2))
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([lines[0], damage, lines[2], b""]))
    with pytest.raises(StorageError, match=r"log\.jsonl, line 2, is damaged.*delete it"):
        KeyedLog(path, Square)


def test_a_result_that_does_not_last_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = KeyedLog(path, Square, lasting=lambda found: found.square > 0)
    log.put("0", Square(0, 0.0))
    log.put("1", Square(1, 1.0))
    assert "0" in log and log["0"] == Square(0, 0.0)
    assert "0" not in KeyedLog(path, Square) and "1" in KeyedLog(path, Square)


def test_a_batch_is_computed_whole_unless_all_of_it_is_known(tmp_path: Path) -> None:
    path, wanted = tmp_path / "log.jsonl", {f"{n}": n for n in range(7)}
    asked: list[list[int]] = []

    def compute(numbers: Sequence[int]) -> list[Square]:
        asked.append(list(numbers))
        return [Square(number, number**2) for number in numbers]

    log = KeyedLog(path, Square)
    for number in (0, 1, 2, 4):
        log.put(f"{number}", Square(number, number**2))
    shown = Shown()
    log.complete(wanted, compute, batch=3, title="Squaring", progress=shown)
    assert asked == [[3, 4, 5], [6]]
    assert (shown.told, shown.steps) == ([("Squaring", 7, 3)], [3, 1])
    assert [KeyedLog(path, Square)[key].number for key in wanted] == list(range(7))
    assert len(path.read_text().splitlines()) == 7
    log.complete(wanted, compute, batch=3)
    assert len(asked) == 2


def test_what_was_computed_before_a_failure_stays(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"

    def compute(numbers: Sequence[int]) -> Iterator[Square]:
        for number in numbers:
            if number == 2:
                raise RuntimeError
            yield Square(number, number**2)

    with pytest.raises(RuntimeError):
        KeyedLog(path, Square).complete({f"{n}": n for n in range(4)}, compute, batch=4)
    assert "1" in KeyedLog(path, Square) and "2" not in KeyedLog(path, Square)
