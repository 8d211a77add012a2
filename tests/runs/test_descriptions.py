from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fspo.errors import StorageError
from fspo.runs.descriptions import DescriptionBook

ORIGIN = "weights and shots"


def never() -> str:
    raise AssertionError("nothing is to be written")


def test_it_is_written_once_and_again_for_other_shots(tmp_path: Path) -> None:
    book = DescriptionBook(tmp_path / "descriptions.json")
    assert book.of("fspo-rat", "ann", ORIGIN, lambda: "Likes it.") == "Likes it."
    assert DescriptionBook(book.path).of("fspo-rat", "ann", ORIGIN, never) == "Likes it."
    assert book.of("fspo-rat", "bob", ORIGIN, lambda: "Another.") == "Another."
    assert book.of("fspo-rat", "ann", "other weights", lambda: "Hates it.") == "Hates it."


def test_what_a_person_wrote_stays_until_it_is_forgotten(tmp_path: Path) -> None:
    book = DescriptionBook(tmp_path / "descriptions.json")
    book.edit("fspo-rat", "ann", "Likes tea.")
    assert book.of("fspo-rat", "ann", ORIGIN, never) == "Likes tea."
    assert book.of("fspo-rat", "ann", "anything", never) == "Likes tea."
    book.edit("fspo-rat", "ann", "")
    assert book.of("fspo-rat", "ann", ORIGIN, lambda: "Once more.") == "Once more."


def test_what_a_person_writes_meanwhile_stays(tmp_path: Path) -> None:
    book, other = (DescriptionBook(tmp_path / "descriptions.json") for _ in range(2))

    def write() -> str:
        other.edit("fspo-rat", "ann", "Likes tea.")
        return "Likes it."

    assert book.of("fspo-rat", "ann", ORIGIN, write) == "Likes tea."


def test_two_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    path, rounds = tmp_path / "descriptions.json", 20

    def edit_many(name: str) -> None:
        for number in range(rounds):
            DescriptionBook(path).edit("fspo-rat", f"{name}{number}", "Likes tea.")

    with ThreadPoolExecutor() as pool:
        list(pool.map(edit_many, "ab"))
    assert len(json.loads(path.read_text())["fspo-rat"]) == 2 * rounds


@pytest.mark.parametrize("content", ["[]", json.dumps({"fspo-rat": {"ann": "text"}}), json.dumps({"a": {"b": {}}})])
def test_a_damaged_file(tmp_path: Path, content: str) -> None:
    (tmp_path / "descriptions.json").write_text(content)
    with pytest.raises(StorageError, match="is damaged; repair it, or delete it"):
        DescriptionBook(tmp_path / "descriptions.json").of("fspo-rat", "ann", ORIGIN, never)
