"""The dataset of a store: of whom, what it says, and what a deletion says of it and of policies trained on it."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from fspo.cli.store_options import recording_people
from fspo.errors import DataError
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.types import Preference, Turn, User
from fspo.serving.connection import public_place
from fspo.serving.ownership import Owner, pseudonym
from fspo.serving.people_data import exports_in, people_dataset, record_export
from fspo.serving.store import Store
from fspo.serving.stored_preferences import StoredPreference
from tests.progress_lines import Lines


def person(store: Store, name: str, *, consents: bool = True) -> Owner:
    store.add_user(name)
    owner = store.user_named(name)
    store.change_account(owner, allow_training=consents, description=f"{name} is calm.")
    for number in range(3):
        store.add_preference(owner, (Turn("user", f"Question {number}?"),), f"{name} {number}", "other")
    return owner


def test_only_users_who_allow_training_are_in_it_and_under_pseudonyms(store: Store) -> None:
    ann, bob = person(store, "ann"), person(store, "bob", consents=False)
    store.add_preference(ann, (Turn("user", "question  0?"),), "other", "ann 0", origin="thumbs")
    store.change_account(bob, personalise=True)
    store.add_user("carl")
    store.change_account(store.user_named("carl"), allow_training=True)
    dataset = people_dataset(store, "here")
    assert list(dataset.users.values()) == [User(pseudonym(ann), "ann is calm.")]
    assert [(row.chosen, row.source["origin"]) for row in dataset] == [
        ("ann 1", "comparison"),
        ("ann 2", "comparison"),
        ("other", "thumbs"),
    ], "the newest of two that contradict each other counts"
    assert {row.user for row in dataset} == {pseudonym(ann)}
    whole = repr([*dataset, *dataset.users.values()])
    assert ann.id not in whole and bob.id not in whole and "bob" not in whole
    store.change_account(ann, allow_training=False)
    with pytest.raises(DataError, match="allow_training"):
        people_dataset(store, "here")


def test_a_deletion_names_the_datasets_and_policies_that_have_seen_the_preferences(
    sqlite_store: Store, tmp_path: Path
) -> None:
    place = public_place(tmp_path / "store")
    ann, bob = person(sqlite_store, "ann"), person(sqlite_store, "bob")
    dataset = people_dataset(sqlite_store, place)
    dataset.save(tmp_path / "data")
    for export in exports_in(dataset):
        record_export(sqlite_store, export, tmp_path / "data", policy=False)
    again = PreferenceDataset.load(tmp_path / "data").merge(
        PreferenceDataset([User("synthetic")], [Preference("synthetic", "q", "a", "b", source={"store": "Shop"})])
    )
    said, policy = Lines(), tmp_path / "policy"
    sqlite_store.remove_preference(ann, sqlite_store.preferences(ann)[0].id)  # after the export, before the training
    recording_people(said)(again, policy)
    assert said.lines == []
    assert sqlite_store.policies_to_train_again() == [str(policy)]
    assert sqlite_store.datasets_to_delete() == [str(tmp_path / "data")]
    recording_people(said)(people_dataset(sqlite_store, place), policy)
    assert sqlite_store.policies_to_train_again() == []
    sqlite_store.change_account(bob, description="Somebody else now.")
    assert sqlite_store.policies_to_train_again() == [str(policy)], "an old description counts"
    recording_people(said)(people_dataset(sqlite_store, place), policy)
    sqlite_store.change_account(bob, allow_training=False)
    assert sqlite_store.policies_to_train_again() == [str(policy)], "consent that is withdrawn counts"
    done = sqlite_store.withdraw(ann)
    assert (done.policies, done.datasets) == ((str(policy),), (str(tmp_path / "data"),))
    assert not any(b"ann" in path.read_bytes() for path in (tmp_path / "store").iterdir())


def test_what_is_deleted_during_the_reading_marks_the_dataset_and_what_is_added_is_left_out(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, bob = person(store, "ann"), person(store, "bob")
    first = store.preferences(ann)[0].id
    later = SimpleNamespace(time=lambda: time.time() + 60)
    monkeypatch.setattr("fspo.serving.ownership.time", later)  # all that follows happens later
    read = store.preferences

    def changing(owner: Owner) -> list[StoredPreference]:
        store.add_preference(owner, (Turn("user", "Late?"),), "late", "other")
        found = read(owner)
        if owner == ann:
            store.remove_preference(ann, first)
        return found

    monkeypatch.setattr(store, "preferences", changing)
    dataset = people_dataset(store, "here", tmp_path / "data")
    assert store.datasets_to_delete() == [str(tmp_path / "data")], "also if the command ends here"
    for export in exports_in(dataset):
        record_export(store, export, tmp_path / "data", policy=False)
    assert {row.user for row in dataset} == {pseudonym(ann), pseudonym(bob)}
    assert not any(row.chosen == "late" for row in dataset)
    assert store.datasets_to_delete() == [str(tmp_path / "data")]


def test_the_notes_of_a_dataset_stay_until_another_one_is_in_its_place(store: Store, tmp_path: Path) -> None:
    ann, _ = person(store, "ann"), person(store, "bob")
    for export in exports_in(people_dataset(store, "here", tmp_path)):
        record_export(store, export, tmp_path, policy=False)
    store.change_account(ann, allow_training=False)
    people_dataset(store, "here")
    again = people_dataset(store, "here", tmp_path)  # its files are not written yet
    assert store.datasets_to_delete() == [str(tmp_path)]
    for export in exports_in(again):
        record_export(store, export, tmp_path, policy=False)
    assert store.datasets_to_delete() == []


def test_a_store_that_is_gone_or_that_only_the_data_names_is_said_and_ends_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rows(place: str) -> PreferenceDataset:
        name = "person-0123456789abcdef"
        return PreferenceDataset(
            [User(name)], [Preference(name, "q", "a", "b", source={"store": place, "withdrawal": 0})]
        )

    said = Lines()
    monkeypatch.delenv("FSPO_STORE", raising=False)
    recording_people(said)(rows(str(tmp_path / "gone")), tmp_path / "policy")
    recording_people(said)(rows("postgresql://elsewhere/x?connect_timeout=1"), tmp_path / "policy")
    assert len(said.lines) == 2 and "holds no store" in said.lines[0] and "FSPO_STORE" in said.lines[1]
    assert not (tmp_path / "gone").exists()


def test_the_place_of_a_store_has_no_password(tmp_path: Path) -> None:
    assert public_place("postgresql://me:SECRET@host/db?password=SECRET") == "postgresql+psycopg://me@host/db"
    assert public_place(tmp_path / "store") == str(tmp_path / "store")
