"""Which files that a user names may be written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fspo.errors import ConfigError
from fspo.runs.made import check_file_target


def test_a_pipe_may_be_written_and_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    check_file_target(tmp_path / "pipe", lambda _: False)  # reading it would wait for ever
    (tmp_path / "file").write_text("somebody's own")
    with pytest.raises(ConfigError, match="is not replaced"):
        check_file_target(tmp_path / "file", lambda _: False)


def test_nothing_is_written_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    for path in (tmp_path / "file" / "report.html", tmp_path / "file" / "deep" / "report.html"):
        with pytest.raises(ConfigError, match="file is a file, so"):
            check_file_target(path)
    check_file_target(tmp_path / "new" / "report.html")
