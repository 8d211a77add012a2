from __future__ import annotations

from pathlib import Path

import pytest

from fspo.errors import ConfigError
from fspo.paths import expanded, shown


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def test_the_home_folder_is_put_in(home: Path) -> None:
    assert expanded(Path("~/a/b")) == home / "a/b"
    assert expanded("~/a/b") == str(home / "a/b")
    assert expanded(Path("~")) == home
    assert expanded("~root/x") not in ("~root/x", str(home / "x"))


@pytest.mark.parametrize("name", ["a/~b", "someone/model", "hub:a/b", "", "smollm2-135m", "/a/~/b"])
def test_every_other_name_stays_as_it_is(home: Path, name: str) -> None:
    assert expanded(name) == name
    assert expanded(Path(name)) == Path(name)


def test_what_can_not_be_a_path_is_refused(home: Path) -> None:
    with pytest.raises(ConfigError, match="~no-such-user/x starts with a home folder that is not known"):
        expanded("~no-such-user/x")
    with pytest.raises(ConfigError, match="null character"):
        expanded("a\0b")
    Path("~mine.old").write_text("")
    assert expanded(Path("~mine.old")) == Path("~mine.old")


def test_a_path_ends_a_sentence_without_being_another(home: Path, tmp_path: Path) -> None:
    assert shown(Path()) == str(tmp_path)
    assert shown(Path("..")) == str(tmp_path.parent)
    assert shown(Path("a/b")) == "a/b"
    assert shown(Path("/")) == "/"
