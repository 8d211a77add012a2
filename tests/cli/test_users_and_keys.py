"""`fspo users` and `fspo keys`, on a real store."""

from __future__ import annotations

import shlex
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fspo.cli.main import app
from fspo.errors import TrainingError
from fspo.methods import rounds  # noqa: F401 - takes train_policy by name: not while a test has replaced it
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.types import Turn
from fspo.serving.ownership import pseudonym
from fspo.serving.store import Store
from fspo.study.store import StudyStore
from tests.study.site import study_config

pytestmark = pytest.mark.usefixtures("migrated_stores")


@pytest.fixture
def fspo(tmp_path: Path) -> Any:
    def call(*arguments: object, code: int = 0) -> str:
        found = CliRunner().invoke(app, [*map(str, arguments), "--store", str(tmp_path / "store")])
        assert found.exit_code == code, found.output
        return found.output

    return call


def test_a_user_from_the_first_key_to_the_deletion(fspo: Any, tmp_path: Path) -> None:
    fspo("users", "add", "ann", "--rate", "5/minute")
    fspo("users", "add", "bob")
    key = fspo("keys", "add", "ann").strip()
    store = Store.open(tmp_path / "store")
    ann = store.authenticate(key)
    assert ann is not None and store.account(ann).rate == "5/minute"
    (listed,) = store.keys(ann)
    shown = fspo("keys", "list", "ann")
    assert listed.id in shown and key not in shown
    for chosen, rejected in (("tea", "coffee"), ("coffee", "tea")):
        store.add_preference(ann, (Turn("user", "Drink?"),), chosen, rejected)
    fspo("users", "limit", "ann", "--rate", "7/minute")
    assert "ann: 2 preferences, at most 7/minute" in fspo("users", "list")

    data = tmp_path / "data"
    assert "allow_training" in from_store(tmp_path, data, code=1) and not data.exists()
    fspo("users", "consent", "ann")
    from_store(tmp_path, data, "--dry-run")
    assert not data.exists()
    from_store(tmp_path, data)
    (row,) = PreferenceDataset.load(data).preferences
    assert (row.user, row.chosen) == (pseudonym(ann), "coffee")
    assert "overwrite" in from_store(tmp_path, data, code=1)
    store.record_training("people-1", [pseudonym(ann)])
    store.record_training("people-2", [pseudonym(store.user_named("bob"))])
    withdrawn = fspo("users", "consent", "ann", "--withdraw")
    assert "Train people-1 again" in withdrawn and f"Delete {data}" in withdrawn and "people-2" not in withdrawn
    store.record_training("people-1", [pseudonym(ann)])

    fspo("users", "export", "ann", tmp_path / "ann.zip")
    assert "coffee" in zipfile.ZipFile(tmp_path / "ann.zip").read("preferences.jsonl").decode()
    assert (tmp_path / "ann.zip").stat().st_mode & 0o077 == 0
    assert "exists" in fspo("users", "export", "ann", tmp_path / "ann.zip", code=2)

    fspo("keys", "revoke", "ann", listed.id)
    assert store.authenticate(key) is None
    deleted = fspo("users", "delete", "ann", "--yes")
    assert "people-1" in deleted and "2 preferences" in deleted
    assert "study" not in deleted and "_" not in deleted.splitlines()[0] and " 0 " not in deleted
    assert f"Delete {data}" in fspo("users", "list")
    assert "Train people-1 again" in fspo("users", "list") and "ann:" not in fspo("users", "list")
    shutil.rmtree(data)
    assert f"Delete {data}" not in fspo("users", "list") and f"{data} is no longer" in fspo("users", "list")
    store.close()


def test_what_is_proposed_for_a_store_can_be_pasted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def call(*arguments: str) -> Any:
        return CliRunner().invoke(app, arguments)

    store = str(tmp_path / "my store")
    hint = shlex.split(call("users", "add", "zed", "--store", store).output.partition("with: ")[2])
    assert call(*hint[1:]).exit_code == 0, "it names the store"
    said = call("keys", "add", "nobody", "--store", store).output
    assert store in said.replace("'", "") and call(*shlex.split(said.split("`")[1])[1:]).output.startswith("zed")
    monkeypatch.setenv("FSPO_STORE", store)
    assert "--store" not in call("users", "add", "ann").output


def test_without_a_terminal_nobody_is_deleted_unasked(fspo: Any) -> None:
    fspo("users", "add", "bob")
    assert "--yes" in fspo("users", "delete", "bob", code=2)
    assert "bob" in fspo("users", "list")
    fspo("users", "delete", "bob", "--yes")
    assert "fspo users add" in fspo("users", "list"), "an empty store says what to do"


WRONG = [
    (("users", "add", "ann", "--rate", "often"), 2),
    (("users", "add", "ann", "--description", "x" * 2_001), 1),
    (("users", "add", "ann", "--description", "a\x07b"), 1),
    (("users", "limit", "nobody", "--rate", "5/minute"), 1),
    (("keys", "add", "nobody"), 1),
    (("users", "delete", "nobody", "--yes"), 1),
    (("users", "consent", "nobody"), 1),
]


@pytest.mark.parametrize(("arguments", "code"), WRONG, ids=lambda value: str(value)[:40])
def test_what_is_impossible_changes_nothing(fspo: Any, arguments: tuple[str, ...], code: int) -> None:
    fspo("users", "add", "bob")
    fspo(*arguments, code=code)
    assert fspo("users", "list") == "bob: 0 preferences\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("users", "list"),
        ("users", "limit", "ann", "--rate", "5/minute"),
        ("users", "export", "ann", "ann.zip"),
        ("users", "delete", "ann", "--yes"),
        ("users", "consent", "ann"),
        ("keys", "add", "ann"),
        ("keys", "list", "ann"),
        ("keys", "revoke", "ann", "key_0"),
        ("users", "add", "ann", "--rate", "often"),
    ],
    ids=str,
)
def test_where_there_is_no_store_only_a_new_user_makes_one(
    fspo: Any, arguments: tuple[str, ...], tmp_path: Path
) -> None:
    said = fspo(*arguments, code=2 if "often" in arguments else 1)
    assert ("holds no store" in said) != ("often" in said)
    assert not (tmp_path / "store").exists()


def from_store(tmp_path: Path, out: Path, *options: str, code: int = 0) -> str:
    found = CliRunner().invoke(app, ["data", "from-store", str(tmp_path / "store"), str(out), *options])
    assert found.exit_code == code, found.output
    return " ".join(found.output.split())


def test_a_folder_without_a_store_is_refused_and_no_store_is_made(tmp_path: Path) -> None:
    assert "no store" in from_store(tmp_path, tmp_path / "data", code=1)
    assert not (tmp_path / "store").exists()


def test_a_training_is_noted_in_the_store_before_it_begins(
    fspo: Any, tmp_path: Path, tiny_model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(tmp_path / "store")
    for name in "abcdef":
        store.add_user(name)
        owner = store.user_named(name)
        store.change_account(owner, allow_training=True)
        for number in range(8):
            store.add_preference(owner, (Turn("user", f"Question {number}?"),), f"{name} {number}", "other")
    from_store(tmp_path, tmp_path / "data")

    def killed(*_: Any, out: Path, **__: Any) -> Any:
        raise TrainingError("The training was killed.")

    monkeypatch.setattr("fspo.training.train.train_policy", killed)
    settings = tmp_path / "run.yaml"
    common = "{all: {steps: 1, shots: 1, queries: 1}}"
    settings.write_text(
        f"name: people\ndata: {tmp_path / 'data'}\nmodel: {tiny_model_path}\noutput: {tmp_path / 'run'}\n"
        f"methods: [fspo]\ntraining: {common}\nevaluation: {{shots: 1, queries: 1}}\n"
    )
    found = CliRunner().invoke(app, ["run", str(settings)])
    assert "killed" in found.output, found.output
    store.withdraw(store.user_named("a"))
    store.withdraw(store.user_named("b"))
    store.withdraw(store.user_named("c"))
    (policy,) = store.policies_to_train_again()
    assert Path(policy).is_relative_to(tmp_path / "run" / "methods"), "of three users at least one was trained on"
    store.close()


def test_a_participant_of_a_study_is_listed_as_such(fspo: Any, tmp_path: Path) -> None:
    store = StudyStore.open(tmp_path / "store")
    store.enter(study_config(tmp_path), "en", {}, "one", lambda _: [])
    store.close()
    assert "participant of the study 'small'" in fspo("users", "list")
