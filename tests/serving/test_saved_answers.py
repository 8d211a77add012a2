"""Saved conversations: only on request, limited, and deleted for good."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

from fspo.serving.store import Store
from tests.serving.conftest import PROMPT, bytes_of, new_user


def test_conversations_are_saved_only_if_the_user_wants_it(store: Store) -> None:
    ann = new_user(store)
    store.keep_conversation(ann, "fspo", PROMPT, "UNWANTED", [])
    store.change_account(ann, keep_conversations=True)
    store.keep_conversation(ann, "fspo", PROMPT, "WANTED", [])
    archive = zipfile.ZipFile(io.BytesIO(store.export(ann)))
    kept = archive.read("conversations.jsonl").decode()
    assert "UNWANTED" not in kept and "WANTED" in kept


def test_conversations_have_a_limit_and_can_be_deleted_for_good(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    ann, bob = new_user(store), new_user(store, "bob")
    for owner in (ann, bob):
        store.change_account(owner, keep_conversations=True)
    for owner, answer in ((ann, "mark-one"), (ann, "mark-two"), (ann, "over-the-limit"), (bob, "mark-of-bob")):
        store.keep_conversation(owner, "fspo", PROMPT, answer, [], most=2)
    saved = bytes_of(tmp_path / "store")
    assert b"mark-two" in saved and b"over-the-limit" not in saved
    mine, theirs = store.conversations(ann, limit=9), store.conversations(bob, limit=9)
    assert mine is not None and theirs is not None and [one.text for one in mine.entries] == ["mark-one", "mark-two"]
    one, other = (f"conv_{page.entries[0].id}" for page in (mine, theirs))
    assert not store.remove_conversation(ann, other) and store.conversations(ann, limit=9, after=other) is None
    assert store.remove_conversation(ann, one) and not store.remove_conversation(ann, one) and store.erased()
    saved = bytes_of(tmp_path / "store")
    assert b"mark-one" not in saved and b"mark-two" in saved and b"mark-of-bob" in saved
    assert store.remove_conversations(ann) == 1 and store.remove_conversations(ann) == 0
    saved = bytes_of(tmp_path / "store")
    assert b"mark-two" not in saved and b"mark-of-bob" in saved
    store.keep_conversation(ann, "fspo", PROMPT, "mark-three", [], most=2)
    assert store.remove_conversations(ann) == 1
    store.close()
