"""`fspo users` and `fspo keys`, on a real store."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fspo.cli.main import app
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.types import Turn
from fspo.serving.store import Store


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

    fspo("users", "collect", tmp_path / "data", "--policy", "people-1")
    (row,) = PreferenceDataset.load(tmp_path / "data").preferences
    assert (row.user, row.chosen) == (ann.id, "coffee")

    fspo("users", "export", "ann", tmp_path / "ann.zip")
    assert "coffee" in zipfile.ZipFile(tmp_path / "ann.zip").read("preferences.jsonl").decode()
    assert (tmp_path / "ann.zip").stat().st_mode & 0o077 == 0
    assert "exists" in fspo("users", "export", "ann", tmp_path / "ann.zip", code=2)

    fspo("keys", "revoke", "ann", listed.id)
    assert store.authenticate(key) is None
    assert "people-1" in fspo("users", "delete", "ann", "--yes")
    assert "Train people-1 again" in fspo("users", "list") and "ann:" not in fspo("users", "list")
    store.close()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("users", "add", "ann", "--rate", "often"), 2),
        (("users", "limit", "nobody", "--rate", "5/minute"), 1),
        (("keys", "add", "nobody"), 1),
        (("users", "delete", "nobody", "--yes"), 1),
        (("users", "collect", "new-folder", "--policy", "p"), 2),
    ],
    ids=str,
)
def test_what_is_impossible_changes_nothing(fspo: Any, arguments: tuple[str, ...], code: int) -> None:
    fspo(*arguments, code=code)
    assert fspo("users", "list") == "" and not Path("new-folder").exists()
