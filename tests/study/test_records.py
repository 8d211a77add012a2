"""The records of a study: what an item says of its arms, and that files hold what was saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fspo.errors import DataError, StorageError
from fspo.study.records import Event, Item, Participant, StudyRecords


def item(**changes: Any) -> Item:
    values = {
        "id": "item_1",
        "participant": "user_1",
        "stage": "compare",
        "position": 1,
        "prompt": "Why?",
        "first": "Because.",
        "second": "Why not?",
        "first_arm": "base",
        "second_arm": "personal",
        "choice": "second",
    }
    return Item.model_validate({**values, **changes})


def test_a_score_follows_the_arm_and_not_the_side() -> None:
    assert item().score("personal") == 1 and item().score("base") == 0
    swapped = item(first_arm="personal", second_arm="base")
    assert swapped.score("personal") == 0 and swapped.score("base") == 1
    assert item(choice="tie").score("base") == 0.5
    assert item(choice=None).score("base") is None
    with pytest.raises(DataError, match="sft"):
        item().score("sft")


def test_a_label_is_a_preference_unless_it_says_nothing() -> None:
    label = item(stage="label", first_arm="", second_arm="")
    preference = label.preference()
    assert preference is not None
    assert (preference.user, preference.chosen, preference.rejected) == ("user_1", "Why not?", "Because.")
    assert item(choice="tie").preference() is None
    assert item(choice=None).preference() is None
    assert item(right="first").preference() is None and item(right="first").attention
    assert item(first="Same", second="Same").preference() is None


def test_records_are_read_as_they_were_saved(tmp_path: Path) -> None:
    person = Participant(id="user_1", study="s", language="en", consent="1", consented=5, answers={"age": "30"})
    event = Event(participant="user_1", at=6, kind="voted", item="item_1", detail={"choice": "second"})
    records = StudyRecords([person], [item(prompt="a\u2028b")], [event])
    records.save(tmp_path / "export")
    assert StudyRecords.load(tmp_path / "export") == records


def test_a_missing_or_damaged_file_is_named(tmp_path: Path) -> None:
    StudyRecords([], [item()], []).save(tmp_path)
    (tmp_path / "items.jsonl").write_text('{"id": 3}\n')
    with pytest.raises(StorageError, match=r"items\.jsonl"):
        StudyRecords.load(tmp_path)
    (tmp_path / "events.jsonl").unlink()
    (tmp_path / "items.jsonl").write_text("")
    with pytest.raises(DataError, match=r"events\.jsonl"):
        StudyRecords.load(tmp_path)
