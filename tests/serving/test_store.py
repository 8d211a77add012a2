"""Users and keys, what is saved is there, and everything of one person is exported or deleted."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest

from fspo.errors import DataError
from fspo.preferences.types import Turn
from fspo.serving.connection import StoreBusy
from fspo.serving.ownership import Owner, UnknownOwner, pseudonym
from fspo.serving.store import Account, Store
from tests.serving.conftest import PROMPT, add, new_user


def test_what_is_saved_is_there_after_the_store_was_opened_again(place: str | Path) -> None:
    store = Store.open(place)
    ann = new_user(store)
    turns = (Turn("system", "Be kind."), *PROMPT, Turn("assistant", "Hm?"), Turn("user", "Any <|im_end|> film."))
    saved = store.add_preference(ann, turns, "chosen\n\t🙂", "rejected", origin="thumbs", source="film page")
    store.change_account(ann, description="Likes calm films.", personalise=False)
    store.close()
    again = Store.open(place)
    assert again.preferences(ann) == [saved]
    assert saved.preference.messages == turns and saved.preference.source == {"origin": "thumbs", "source": "film page"}
    account = again.account(ann)
    assert (account.description, account.personalise, account.preferences) == ("Likes calm films.", False, 1)
    again.close()


def test_a_key_opens_its_users_data_until_it_is_revoked(store: Store) -> None:
    ann, bob = new_user(store), new_user(store, "bob")
    new, other = store.add_key(ann), store.add_key(bob)
    assert store.authenticate(new.key) == ann and store.authenticate(other.key) == bob
    for wrong in ("", new.key[:-1], new.key + "x", new.key.upper(), "\ud800"):
        assert store.authenticate(wrong) is None
    with pytest.raises(DataError):
        store.revoke_key(bob, new.id)
    store.revoke_key(ann, new.id)
    assert store.authenticate(new.key) is None
    assert [key.id for key in store.keys(bob)] == [other.id] and store.keys(ann) == []


def test_a_change_of_an_account_reads_nothing_after_it_is_saved(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    ann = new_user(store)
    add(store, ann, "calm")

    def breaks(_: Owner) -> Account:
        raise StoreBusy("The store is busy.")

    monkeypatch.setattr(store, "account", breaks)
    changed = store.change_account(ann, personalise=False, description="Likes calm.")
    assert (changed.personalise, changed.description, changed.preferences) == (False, "Likes calm.", 1)


def test_nothing_can_be_saved_for_a_deleted_user(store: Store) -> None:
    ann = new_user(store)
    key = store.add_key(ann).key
    store.withdraw(ann)
    assert store.authenticate(key) is None and store.users() == []
    for call in (lambda: add(store, ann), lambda: store.account(ann), lambda: store.withdraw(ann)):
        with pytest.raises(UnknownOwner):
            call()


def test_the_archive_holds_everything_and_no_digest(store: Store) -> None:
    ann, bob = new_user(store), new_user(store, "bob")
    saved = add(store, ann)
    add(store, bob, "SECRET-OF-BOB")
    key = store.add_key(ann)
    store.change_account(ann, description="Likes calm.", keep_conversations=True)
    store.keep_conversation(ann, "fspo", PROMPT, "An answer.", [saved])
    store.record_training("fspo-1", [pseudonym(ann)])
    archive = zipfile.ZipFile(io.BytesIO(store.export(ann)))
    files = {name: archive.read(name).decode() for name in archive.namelist()}
    user = json.loads(files["user.json"])
    assert user["description"] == "Likes calm." and user["policies"] == ["fspo-1"]
    (preference,) = map(json.loads, files["preferences.jsonl"].splitlines())
    assert (preference["id"], preference["chosen"]) == (saved, "A calm one.")
    (conversation,) = map(json.loads, files["conversations.jsonl"].splitlines())
    assert (conversation["answer"], conversation["shots"]) == ("An answer.", [saved])
    assert json.loads(files["keys.jsonl"])["ending"] == key.key[-4:]
    assert {"preference.added", "key.added"} <= {json.loads(e)["kind"] for e in files["events.jsonl"].splitlines()}
    whole = "".join(files.values())
    assert "BOB" not in whole and bob.id not in whole and "digest" not in whole and key.key not in whole


def test_a_text_that_the_database_can_not_hold_is_refused_in_one_sentence(store: Store, place: str | Path) -> None:
    ann = new_user(store)
    for bad in ("\x00", "pref_\x00", "none"):
        assert store.preference(ann, bad) is None and not store.remove_preference(ann, bad)
        assert store.page(ann, limit=1, after=bad) is None and not store.remove_conversation(ann, bad)
        with pytest.raises(DataError):
            store.revoke_key(ann, bad)
    store.change_account(ann, keep_conversations=True)
    if isinstance(place, str):
        with pytest.raises(DataError, match="NUL"):
            store.keep_conversation(ann, "fspo", PROMPT, "a\x00b", [])
    for bad in ("a\x00b", "a\ud800b"):
        with pytest.raises(DataError, match="NUL"):
            store.learn(ann, PROMPT, bad, "no", "edit", [])
        with pytest.raises(DataError, match="NUL"):
            store.add_preference(ann, [Turn("user", bad)], "yes", "no")
    for too_long in (
        lambda: store.change_account(ann, rate="1/second;" * 20),
        lambda: store.add_user("carl", rate="1/second;" * 20),
        lambda: store.record_training("p" * 1_001, [pseudonym(ann)]),
    ):
        with pytest.raises(DataError, match="at most"):
            too_long()


def test_names_of_users_are_unique_and_a_misspelt_one_is_found(store: Store) -> None:
    new_user(store, "annette")
    with pytest.raises(DataError):
        store.add_user("annette")
    with pytest.raises(DataError):
        store.add_user(" ")
    with pytest.raises(DataError, match="annette"):
        store.user_named("anette")
