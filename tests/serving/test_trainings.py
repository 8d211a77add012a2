"""The store knows which policies hold preferences that were deleted since."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from sqlalchemy import select

from fspo.serving.ownership import pseudonym
from fspo.serving.schema import PreferenceRow
from fspo.serving.store import Store
from tests.serving.conftest import add, new_user


def test_a_policy_is_named_until_it_is_trained_without_what_was_deleted(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1_000]
    monkeypatch.setattr("fspo.serving.ownership.time", SimpleNamespace(time=lambda: now[0]))
    ann, bob = new_user(store), new_user(store, "bob")
    first, second, third = (add(store, ann, word) for word in ("calm", "loud", "warm"))

    def train_again_after(change: Callable[[], object]) -> bool:
        change()
        again = store.policies_to_train_again() == ["p"]
        store.record_training("p", [pseudonym(ann), pseudonym(bob)])
        assert store.policies_to_train_again() == []
        return again

    store.record_training("p", [pseudonym(ann), pseudonym(bob)])
    assert train_again_after(lambda: store.remove_preference(ann, first))
    assert train_again_after(lambda: store.change_preference(ann, second, chosen="Another."))
    now[0] += 1
    later = add(store, ann, "late")
    assert not train_again_after(lambda: store.remove_preferences(bob))
    now[0] -= 1
    store.record_training("p", [pseudonym(ann), pseudonym(bob)])
    now[0] += 1
    assert not train_again_after(lambda: store.remove_preference(ann, later)), "no policy has seen it"
    known = store.last_withdrawal()
    store.remove_preference(ann, third)
    store.record_training("p", [pseudonym(ann)], after=known)
    assert store.policies_to_train_again() == ["p"], "deleted while its training was prepared"
    store.record_training("p", [pseudonym(bob)])
    store.withdraw(ann)
    assert store.policies_to_train_again() == []


def test_a_note_of_a_reading_waits_for_changes_under_way(store: Store) -> None:
    ann = new_user(store)
    add(store, ann)
    noted = threading.Event()

    def note() -> None:
        store.record_reading("data", [ann])
        noted.set()

    thread = threading.Thread(target=note)
    with store._write(ann) as session:
        session.delete(session.scalars(select(PreferenceRow)).one())
        thread.start()
        assert not noted.wait(0.2)
    thread.join(20)
    assert noted.is_set() and store.preferences(ann) == []
