"""Preferences in the store: pages, changes, and limits."""

from __future__ import annotations

import pytest

from fspo.errors import DataError
from fspo.preferences.types import Turn
from fspo.serving.store import Store
from tests.serving.conftest import PROMPT, add, new_user


def test_pages_go_through_all_preferences_once(store: Store) -> None:
    ann, bob = new_user(store), new_user(store, "bob")
    mine = []
    for number in range(5):
        mine.append(add(store, ann, str(number)))
        theirs = add(store, bob, str(number))
    for newest_first in (False, True):
        seen: list[str] = []
        page = store.page(ann, limit=2, newest_first=newest_first)
        while page is not None:
            seen += [one.id for one in page.entries]
            page = store.page(ann, limit=2, after=seen[-1], newest_first=newest_first) if page.more else None
        assert seen == (mine[::-1] if newest_first else mine)
    assert store.page(ann, limit=2, after=theirs) is None


def test_preferences_can_be_changed_and_deleted(store: Store) -> None:
    ann = new_user(store)
    first, second = add(store, ann), add(store, ann, "loud")
    changed = store.change_preference(ann, first, chosen="Another.")
    assert changed is not None and changed == store.preference(ann, first)
    assert changed.preference.chosen == "Another." and changed.preference.rejected == "Not a calm one."
    with pytest.raises(DataError):
        store.change_preference(ann, first, chosen="Not a calm one. ")
    assert store.remove_preference(ann, second) and not store.remove_preference(ann, second)
    assert [one.id for one in store.preferences(ann)] == [first]


def test_what_holds_no_preference_is_refused(store: Store) -> None:
    ann = new_user(store)
    for turns, chosen, rejected in [
        (PROMPT, "same", " same "),
        (PROMPT, "", "x"),
        ((), "a", "b"),
        ((Turn("user", " "),), "a", "b"),
    ]:
        with pytest.raises(DataError):
            store.add_preference(ann, turns, chosen, rejected)
    add(store, ann, most=1)
    with pytest.raises(DataError):
        add(store, ann, "more", most=1)
    assert len(store.preferences(ann)) == 1


def test_the_newest_preferences_are_read_without_the_older_ones(store: Store) -> None:
    ann, bob = new_user(store), new_user(store, "bob")
    mine = [add(store, ann, str(number)) for number in range(5)]
    add(store, bob)
    for most, older in ((3, 2), (5, 0), (9, 0)):
        found, count = store.newest(ann, most)
        assert ([one.id for one in found], count) == (mine[-most:], older)


def test_a_users_texts_have_a_limit_of_bytes_and_others_have_their_own(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fspo.serving.stored_preferences.MOST_BYTES", 1_000)
    ann, bob = new_user(store), new_user(store, "bob")
    first = store.add_preference(ann, PROMPT, "ä" * 400, "no").id
    for refused in (
        lambda: store.add_preference(ann, PROMPT, "x" * 300, "no"),
        lambda: store.change_preference(ann, first, chosen="x" * 1_200),
        lambda: store.learn(ann, PROMPT, "x" * 300, "no", "edit", ["a"]),
    ):
        with pytest.raises(DataError, match="limit"):
            refused()
    assert [one.preference.chosen for one in store.preferences(ann)] == ["ä" * 400]
    store.change_account(ann, keep_conversations=True)
    store.keep_conversation(ann, "fspo", PROMPT, "x" * 300, [])
    store.keep_conversation(ann, "fspo", PROMPT, "short", [])
    assert store.remove_conversations(ann) == 1, "the long answer had no room"
    store.change_preference(ann, first, chosen="yes")
    store.add_preference(ann, PROMPT, "x" * 300, "no")
    store.add_preference(bob, PROMPT, "x" * 900, "no")
